"""The run folder and its pictures; what processes under torchrun share."""

import csv
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.artifact import SampleFacts
from engines.errors import ArtifactError, MismatchError, ParameterError
from training.distributed import Group, open_group
from training.fit_config import Epoch
from training.run.folder import RunFolder, write_toml
from training.run.pictures import draw_embedding, draw_losses
from training.views import choose_precision

SETTINGS = {"events": ["a.h5"], "output": "d4.onnx", "dim": 4, "lr": 1e-3, "heads": None}
SAMPLES = (SampleFacts("a.h5", "id", 0, 9),)


def history(n: int) -> tuple[Epoch, ...]:
    return tuple(Epoch(k, 10 * k, 1 / k, 2 / k, 1e-3, 0.5, 1000.0) for k in range(1, n + 1))


def state(n: int) -> dict[str, object]:
    return {"history": [vars(epoch) for epoch in history(n)]}


def test_toml_holds_every_kind_of_option() -> None:
    settings = {
        "mask_absent": False,
        "name": 'a "b" é',
        "keep": [],
        "weights": (25.0, 1e-6),
        "seed": 3,
        "heads": None,
    }
    assert tomllib.loads(write_toml(settings)) == {
        "mask-absent": False,
        "name": 'a "b" é',
        "keep": [],
        "weights": [25.0, 1e-6],
        "seed": 3,
    }


def test_folder_keeps_state_and_metrics(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "d4.run", SETTINGS, SAMPLES)
    assert folder.epochs_done() == 0
    folder.save(state(1), history(1))
    folder.save(state(2), history(2))
    folder.close()
    again = RunFolder(tmp_path / "d4.run", {**SETTINGS, "output": "other.onnx"}, SAMPLES)
    assert again.epochs_done() == 2
    with (tmp_path / "d4.run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation_loss"]) == 1.0
    assert set(rows[0]) == {
        *("epoch", "step", "loss", "validation_loss", "learning_rate", "seconds", "events_per_s"),
    }


def test_folder_of_another_training_is_refused_by_the_option_that_differs(tmp_path: Path) -> None:
    RunFolder(tmp_path / "d4.run", SETTINGS, SAMPLES)
    with pytest.raises(MismatchError, match=r"lr 0\.001; this one has 0\.01; .* --fresh"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "lr": 1e-2}, SAMPLES)
    with pytest.raises(MismatchError, match="heads no value; this one has 8"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "heads": 8}, SAMPLES)
    with pytest.raises(MismatchError, match="seed no value"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "seed": 1}, SAMPLES)


def test_folder_on_events_that_changed_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "d4.run", SETTINGS, SAMPLES)
    folder.save(state(1), history(1))
    folder.close()
    changed = (replace(SAMPLES[0], content_id="other"),)
    with pytest.raises(MismatchError, match=r"another a\.h5, .* --fresh"):
        RunFolder(tmp_path / "d4.run", SETTINGS, changed).epochs_done()


def test_clear_removes_what_a_training_left_and_only_that(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS, SAMPLES)
    folder.save(state(1), history(1))
    folder.close()
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    RunFolder.clear(tmp_path / "missing")


def test_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write .* choose --run-dir"):
        RunFolder(tmp_path / "file" / "d4.run", SETTINGS, SAMPLES)
    (tmp_path / "config.toml").write_text("dim = ")
    with pytest.raises(ArtifactError, match=r"cannot read .* --fresh"):
        RunFolder(tmp_path, SETTINGS, SAMPLES)


def test_only_the_leader_writes(tmp_path: Path) -> None:
    follower = RunFolder(tmp_path / "d4.run", SETTINGS, SAMPLES, writes=False)
    follower.save(state(1), history(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_embedding_is_drawn_at_every_dimension(dim: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embeddings, targets = rng.normal(size=(300, dim)).astype(np.float32), rng.integers(0, 3, 300)
    embeddings[:, 0] = 1.0  # a coordinate that does not vary
    draw_embedding(embeddings, targets, ["a", "b", "c", "none of it"], tmp_path / "a.png")
    draw_embedding(embeddings, None, [], tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_losses_are_drawn_or_refused_in_one_sentence(tmp_path: Path) -> None:
    draw_losses(history(1), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ArtifactError, match="cannot write the picture"):
        draw_losses(history(2), tmp_path / "missing" / "loss.png")


def test_a_batch_is_shared_out_evenly() -> None:
    batch = torch.arange(12)
    parts = [Group(rank, 3).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch)
    Group(0, 3).check_batch(12)
    with pytest.raises(ParameterError, match=r"multiple of the 3 processes; got 13; .* 12"):
        Group(0, 3).check_batch(13)


def test_a_process_alone_changes_nothing() -> None:
    with open_group("cpu") as group:
        part = torch.ones(3, requires_grad=True)
        assert group.gather(part) is part
        assert group.share(0.25) == 0.25
        assert group.leads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with (
        pytest.raises(ParameterError, match="device must be cpu on this machine"),
        open_group("cuda"),
    ):
        pass


def test_precision_is_full_where_half_does_not_help() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu, attends=True).name == "fp32"
    assert choose_precision("bf16", cpu, attends=False).name == "bf16"
    with pytest.raises(ParameterError, match="precision must be one of auto, fp32, bf16"):
        choose_precision("fp16", cpu, attends=True)
    with choose_precision("bf16", cpu, attends=False).context(cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
