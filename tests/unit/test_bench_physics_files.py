"""Engines that exist already, as a study takes them: refused before anything is measured."""

import re
from pathlib import Path

import onnx
import pytest

from bench.physics_study.read_study import read_study
from engines.artifact import EngineFacts, SampleFacts, load_onnx, write_facts
from engines.errors import ParameterError
from engines.events import EventRange
from engines.samples import sample_path
from tests.support_commands import tiny_encoder

STUDY = f"""
[data]
folder = "{sample_path("A4l").parent}"
background = "sm_cocktail.h5@0:40000"
[data.signals]
A4l = "A4l.h5@1000:"
[data.processes]
Z = 2
[[encoders]]
name = "tiny"
files = ["tiny0.onnx", "tiny1.onnx"]
[test]
window = 200
fractions = [0.05]
n_ref = 1500
[select]
encoders = ["tiny"]
"""


def engine(path: Path, *trained_on: EventRange, dim: int = 3) -> Path:
    model = load_onnx(tiny_encoder(path))
    write_facts(model, EngineFacts(trained_on=tuple(map(SampleFacts.of, trained_on)), dim=dim))
    onnx.save_model(model, path)
    return path


def test_engines_of_one_dimension_that_saw_other_events_are_taken(tmp_path: Path) -> None:
    engine(tmp_path / "tiny0.onnx")
    engine(tmp_path / "tiny1.onnx", EventRange(sample_path("sm_cocktail"), 0, 32_000))
    (tmp_path / "study.toml").write_text(STUDY)
    assert read_study(tmp_path / "study.toml").encoders[0].seeds == (0, 1)


@pytest.mark.parametrize(
    ("trained", "dim", "said"),
    [
        (EventRange(sample_path("A4l"), 0, 1500), 3, "files must suit the test; of tiny1.onnx"),
        (EventRange(sample_path("sm_rare"), 0, 10), 4, "tiny0.onnx has 3, tiny1.onnx has 4"),
        (EventRange(sample_path("A4l"), 0, 10), 3, "[select] encoders must be trained on no"),
    ],
)
def test_engines_that_do_not_suit_are_refused_at_once(
    tmp_path: Path, trained: EventRange, dim: int, said: str
) -> None:
    engine(tmp_path / "tiny0.onnx")
    engine(tmp_path / "tiny1.onnx", trained, dim=dim)
    (tmp_path / "study.toml").write_text(STUDY)
    with pytest.raises(ParameterError, match=re.escape(said)):
        read_study(tmp_path / "study.toml")
