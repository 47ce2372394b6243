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
from training.objective import parse_objective
from training.run.checkpoint import load_checkpoint, save_checkpoint
from training.run.effects import check_effects, check_views
from training.run.folder import RunFolder, write_toml
from training.run.lock import hold_folder
from training.run.pictures import draw_embedding, draw_losses
from training.run.recipes import resolve
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
    RunFolder(tmp_path / "d4.run", SETTINGS, SAMPLES).save(state(1), history(1))
    with pytest.raises(MismatchError, match=r"lr 0\.001; this one has 0\.01; .* --fresh"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "lr": 1e-2}, SAMPLES)
    with pytest.raises(MismatchError, match="heads no value; this one has 8"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "heads": 8}, SAMPLES)
    with pytest.raises(MismatchError, match="seed no value"):
        RunFolder(tmp_path / "d4.run", {**SETTINGS, "seed": 1}, SAMPLES)


@pytest.mark.parametrize("edited", ["lr = 0.5\n", "lr = "])
def test_folder_in_which_nothing_was_trained_is_new(tmp_path: Path, edited: str) -> None:
    RunFolder(tmp_path, {**SETTINGS, "dim": 8}, SAMPLES)
    with (tmp_path / "config.toml").open("a") as file:
        file.write(edited)
    assert RunFolder(tmp_path, SETTINGS, SAMPLES).epochs_done() == 0
    assert tomllib.loads((tmp_path / "config.toml").read_text())["dim"] == 4


def test_options_that_no_training_wrote_are_not_written_over(tmp_path: Path) -> None:
    own = tmp_path / "config.toml"
    own.write_text("dim = 4  # mine\n")
    for use in (lambda: RunFolder(tmp_path, SETTINGS, SAMPLES), lambda: RunFolder.clear(tmp_path)):
        with pytest.raises(
            ArtifactError, match=r"must be one that train-encoder wrote.* --run-dir"
        ):
            use()
    assert own.read_text() == "dim = 4  # mine\n"


def test_a_training_without_its_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    kept_folder(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(MismatchError, match=r"dim 4; this one has 8; .* --fresh"):
        RunFolder(tmp_path, {**SETTINGS, "dim": 8}, SAMPLES)
    assert tomllib.loads((tmp_path / "config.toml").read_text())["dim"] == 4
    assert RunFolder(tmp_path, SETTINGS, SAMPLES).epochs_done() == 0


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
    kept_folder(tmp_path)
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


def kept_folder(path: Path) -> RunFolder:
    folder = RunFolder(path, SETTINGS, SAMPLES, content="read")
    folder.save(state(2), history(2))
    folder.close()
    return folder


def test_what_was_read_and_the_options_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    kept_folder(tmp_path)
    with pytest.raises(MismatchError, match=r"labels or re-simulations, .* --fresh"):
        RunFolder(tmp_path, SETTINGS, SAMPLES, content="other")
    (tmp_path / "config.toml").unlink()
    with pytest.raises(MismatchError, match=r"with dim 4; this one has 8"):
        RunFolder(tmp_path, {**SETTINGS, "dim": 8}, SAMPLES, content="read")
    assert not (tmp_path / "config.toml").exists()
    assert RunFolder(tmp_path, SETTINGS, SAMPLES, content="read").epochs_done() == 2


def test_metrics_are_written_anew_from_the_checkpoint(tmp_path: Path) -> None:
    kept_folder(tmp_path)
    whole = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text("".join(whole.splitlines(keepends=True)[:2]))
    RunFolder(tmp_path, SETTINGS, SAMPLES, content="read", writes=False)
    assert (tmp_path / "metrics.csv").read_text() != whole
    RunFolder(tmp_path, SETTINGS, SAMPLES, content="read")
    assert (tmp_path / "metrics.csv").read_text() == whole


@pytest.mark.parametrize(
    "wrong", [{"history": 3}, {"samples": [1]}, {"settings": None}, {"history": [{"epoch": 1}]}]
)
def test_a_checkpoint_of_something_else_is_one_sentence(
    wrong: dict[str, object], tmp_path: Path
) -> None:
    kept_folder(tmp_path)
    place = tmp_path / "checkpoint.pt"
    whole = load_checkpoint(place)
    assert whole is not None
    save_checkpoint(place, {**whole, **wrong})
    with pytest.raises(ArtifactError, match=r"parts do not fit .* --fresh"):
        RunFolder(tmp_path, SETTINGS, SAMPLES, content="read")
    save_checkpoint(place, {"epoch": 1})
    with pytest.raises(ArtifactError, match=r"parts do not fit \(KeyError: 'history'\)"):
        RunFolder(tmp_path, SETTINGS, SAMPLES, content="read")


def test_a_fold_says_which_it_is_beside_options_that_can_be_read(tmp_path: Path) -> None:
    settings = {**SETTINGS, "fold": "2 of 5"}
    RunFolder(tmp_path, settings, SAMPLES).save(state(1), history(1))
    text = (tmp_path / "config.toml").read_text()
    assert text.splitlines()[1] == '# fold = "2 of 5"'
    assert "fold" not in tomllib.loads(text)
    assert RunFolder(tmp_path, settings, SAMPLES).epochs_done() == 1
    with pytest.raises(MismatchError, match='fold "2 of 5"; this one has "3 of 5"'):
        RunFolder(tmp_path, {**SETTINGS, "fold": "3 of 5"}, SAMPLES)


def test_a_run_folder_belongs_to_one_training(tmp_path: Path) -> None:
    place = tmp_path / "d4.run"
    with hold_folder(place, writes=False):
        assert not place.exists()
    with (
        hold_folder(place),
        pytest.raises(ArtifactError, match=r"another training writes .* --run-dir"),
        hold_folder(place),
    ):
        pass
    with hold_folder(place):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="choose --run-dir"), hold_folder(tmp_path / "file"):
        pass


OPTIONS = dict.fromkeys(
    (
        *("arch", "dim", "loss", "recipe", "inputs", "head", "augment", "mask_probability"),
        *("temperature", "view_temperature", "vicreg_weights", "schedule", "lr_end"),
    )
)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"arch": "vae", "dim": 3}, "--dim must be 6 with --arch vae"),
        ({"arch": "raw", "dim": 4}, "--dim must be 57 with --arch raw"),
        ({"arch": "raw", "loss": "simclr"}, "--loss changes nothing with --arch raw, which"),
        ({"arch": "vae", "head": "dino"}, "--head changes nothing with --arch vae"),
        ({"schedule": "constant", "lr_end": 0.1}, "--lr-end changes nothing with --schedule con"),
        ({"loss": "vicreg", "temperature": 0.3}, "--temperature changes nothing with --loss vic"),
        (
            {"loss": "supcon", "view_temperature": 0.3},
            "--view-temperature changes nothing with --loss supcon",
        ),
        ({"vicreg_weights": [1.0, 2.0, 3.0]}, "--vicreg-weights .* got 1.0 2.0 3.0; leave it out"),
        (
            {"loss": "supcon", "mask_probability": 0.3},
            "--mask-probability changes nothing with --loss supcon",
        ),
        (
            {"loss": "simclr", "augment": "crop", "mask_probability": 0.3},
            "--mask-probability changes nothing with --augment",
        ),
    ],
)
def test_options_without_effect_are_refused(given: dict[str, object], said: str) -> None:
    options = {**OPTIONS, **given}
    with pytest.raises(ParameterError, match=said):
        check_effects(options, resolve(options))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"arch": "vae", "dim": 6},
        {"arch": "raw", "dim": 57},
        {"arch": "leading-pt"},
        {"loss": "simclr", "mask_probability": 0.3, "temperature": 0.2},
        {"recipe": "paper-mlp-simclr"},
        {"schedule": "constant"},
        {"loss": "supcon+vicreg", "vicreg_weights": [1.0, 2.0, 3.0]},
    ],
)
def test_options_with_effect_pass_and_so_does_what_config_toml_then_holds(
    given: dict[str, object],
) -> None:
    options = {**OPTIONS, **given}
    settled = resolve(options)
    check_effects(options, settled)
    if settled["arch"] in ("mlp", "transformer"):
        again = {**options, **settled, "mask_probability": None}
        check_effects(again, resolve(again))


@pytest.mark.parametrize(
    ("loss", "augment", "said"),
    [
        ("simclr", "rotation", "--augment rotation must have inputs that are not turned"),
        ("supcon+vicreg", "none", "must have two views that differ; got --augment none"),
        ("supcon", "rotation", "--augment rotation must go with a loss of two views"),
        ("supcon", "resimulation", "a loss of two views"),
    ],
)
def test_augmentations_without_effect_are_refused(loss: str, augment: str, said: str) -> None:
    given = {**OPTIONS, "loss": loss, "augment": augment}
    with pytest.raises(ParameterError, match=said):
        check_views(given, parse_objective(loss), augment, rotate=True)


@pytest.mark.parametrize(
    ("loss", "augment", "rotate"),
    [
        ("simclr", "rotation", False),
        ("simclr", "masking:0.5,rotation", True),
        ("simclr", "resimulation", True),
        ("supcon", "masking:0.5", True),
        ("supcon", "none", True),
    ],
)
def test_augmentations_with_effect_or_by_default_pass(
    loss: str, augment: str, rotate: bool
) -> None:
    given = {**OPTIONS, "loss": loss, "augment": augment}
    check_views(given, parse_objective(loss), augment, rotate=rotate)


def test_the_legend_counts_the_events_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[int]] = []
    monkeypatch.setattr(
        "training.run.pictures._legend", lambda _figure, _names, counts: said.append(list(counts))
    )
    embeddings = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    targets = np.arange(30) % 2
    draw_embedding(embeddings, targets, ["a", "b"], tmp_path / "a.png")
    draw_embedding(embeddings, targets, ["a", "b"], tmp_path / "a.png", [700, 900])
    assert said == [[15, 15], [700, 900]]
