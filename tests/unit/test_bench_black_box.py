"""A black box: the background in its order, signal in half of the splits, nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.black_box_file import main, write_black_box
from engines.errors import SampleSizeError
from engines.event_files import EventFile, read_events
from engines.events import EventRange
from tests.support_scan import stored_gaussians

SETTINGS = {"window": 100, "splits": 7, "fraction": 0.05, "seed": 3}


def sources(folder: Path) -> tuple[EventRange, EventRange]:
    background = stored_gaussians(folder / "sm.h5", 1000, 1)
    signal = stored_gaussians(folder / "new.h5", 50, 2, 9.0)
    return EventRange(background.path, 200, 1000), EventRange(signal.path, 10)


def test_what_is_in_it(tmp_path: Path) -> None:
    background, signal = sources(tmp_path)
    truth = write_black_box(tmp_path / "box.h5", background, signal, **SETTINGS)  # type: ignore[arg-type]
    told = json.loads(truth.read_text())
    events = read_events(tmp_path / "box.h5")
    assert events.shape == (700, 19, 3)
    is_signal = events[:, 1, 1] > 5.0
    per_split = is_signal.reshape(7, 100).sum(axis=1)
    assert per_split.tolist() == [5 * (k in told["splits_with_signal"]) for k in range(7)]
    assert len(told["splits_with_signal"]) == 3
    assert np.array_equal(events[~is_signal], read_events(background)[: 700 - 15])
    assert np.array_equal(events[is_signal], read_events(signal)[:15])
    with EventFile(tmp_path / "box.h5") as file:
        assert not file.has_labels


def test_the_seed_decides(tmp_path: Path) -> None:
    background, signal = sources(tmp_path)
    boxes = []
    for seed in (1, 1, 2):
        settings = {**SETTINGS, "seed": seed}
        write_black_box(tmp_path / "box.h5", background, signal, **settings)  # type: ignore[arg-type]
        boxes.append(read_events(tmp_path / "box.h5"))
    assert np.array_equal(boxes[0], boxes[1])
    assert not np.array_equal(boxes[0], boxes[2])


@pytest.mark.parametrize(("name", "value"), [("splits", 9), ("fraction", 0.5)])
def test_too_few_events(tmp_path: Path, name: str, value: float) -> None:
    background, signal = sources(tmp_path)
    settings = {**SETTINGS, name: value}
    with pytest.raises(SampleSizeError, match=r"the black box needs \d+ events of .*; there are"):
        write_black_box(tmp_path / "box.h5", background, signal, **settings)  # type: ignore[arg-type]


@pytest.mark.usefixtures("keep_logging")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    background, signal = sources(tmp_path)
    where = ["--window", "100", "--splits", "4", "-o", str(tmp_path / "box.h5")]
    assert main([str(background), str(signal), *where]) == 0
    assert "box.truth.json" in capsys.readouterr().out
    assert main([str(background), str(tmp_path / "none.h5"), *where]) == 2
    assert "does not exist" in capsys.readouterr().err
