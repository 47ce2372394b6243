"""`train-encoder` as a user runs it."""

import csv
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from engines.engine import open_engine
from engines.event_files import EventFile, read_events, read_labels, write_events
from engines.events import EventRange
from engines.samples import sample_path
from training.losses import SIMCLR_TEMPERATURES
from training.run.lock import hold_folder
from training.train_encoder import main

COCKTAIL, RARE = sample_path("sm_cocktail"), sample_path("sm_rare")
FAST = ("--batch-size", "128", "--threads", "1")
SMALL = ("--epochs", "2", *FAST)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "training.train_encoder", *map(str, arguments)]


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, stdout and stderr without progress."""
    try:
        code = main([str(word) for word in arguments])
    except SystemExit as exc:
        code = int(exc.code or 0)
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("train: ")]
    return code, printed.out, "\n".join(lines)


@dataclass(frozen=True)
class Trained:
    """A finished training on two whole files of the bundled events."""

    events: tuple[Path, Path]
    output: Path
    said: str

    @property
    def folder(self) -> Path:
        return self.output.with_suffix(".run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    paths = (folder / "sm.h5", folder / "signal.h5")
    for path, source in zip(paths, (COCKTAIL, sample_path("A4l")), strict=True):
        part = EventRange(source, 0, 1500 if path.stem == "sm" else 300)
        labels = read_labels(part)
        assert labels is not None
        kept = labels < 20 if path.stem == "signal" else labels < 3
        write_events(path, read_events(part)[kept], labels[kept])
    done = train("--events", *paths, *SMALL, "-o", folder / "d4.onnx")
    assert done.returncode == 0, done.stderr
    return Trained(paths, folder / "d4.onnx", done.stdout)


def test_supervised_mlp_trains_and_says_how_well(tmp_path: Path) -> None:
    out = tmp_path / "d4.onnx"
    events = (f"{COCKTAIL}@0:3000", f"{RARE}@0:600")
    done = train("--events", *events, "--epochs", "8", *FAST, "-o", out)
    assert done.returncode == 0, done.stderr
    others = [line for line in done.stderr.splitlines() if not line.startswith("train: ")]
    assert len(others) == 3  # classes 1 to 3 of so small a sample
    assert all("events to train on; add a file with more of it" in line for line in others)
    assert "class 3: " in done.stdout
    found = re.search(r"accuracy: (0\.\d+) \+- 0\.\d+ \(.*: (0\.\d+)\)", done.stdout)
    assert found is not None
    accuracy, majority = map(float, found.groups())
    assert accuracy > 0.75
    with open_engine(out) as engine:
        assert engine.fingerprint in done.stdout
        assert engine.embed(read_events(EventRange(COCKTAIL, 5000, 5007))).shape == (7, 4)
        facts = engine.facts
    assert (facts.arch, facts.loss, facts.dim) == ("mlp", "supcon+0.5*simclr", 4)
    assert [(s.name, s.start, s.stop) for s in facts.trained_on] == [
        ("sm_cocktail.h5", 0, 3000),
        ("sm_rare.h5", 0, 600),
    ]
    assert facts.options["seed"] == 0
    assert facts.metrics["linear_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert facts.metrics["majority_rate"] == pytest.approx(majority, abs=1e-4)
    assert facts.metrics["parity"] <= 1e-4
    assert facts.versions["torch"]


@pytest.mark.usefixtures("keep_logging")
def test_transformer_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d2.onnx"
    events = ("--events", f"{COCKTAIL}@0:400", f"{RARE}@0:200")
    code = main([*events, *FAST, *("--arch", "transformer", "--epochs", "2", "-o", str(out))])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    with open_engine(out) as engine:
        assert engine.facts.arch == "transformer"
        assert engine.fingerprint in printed.out


@pytest.mark.usefixtures("keep_logging")
def test_simclr_needs_no_labels_and_repeats_with_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "plain.h5", read_events(EventRange(COCKTAIL, 0, 1000)))
    common = ("--events", str(tmp_path / "plain.h5"), "--loss", "simclr", "--epochs", "1", *FAST)
    done = train(*common, "-o", tmp_path / "first.onnx")
    assert done.returncode == 0, done.stderr
    assert "linear evaluation: none" in done.stdout
    assert main([*common, "-o", str(tmp_path / "again.onnx")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_run_folder_holds_options_metrics_and_pictures(trained: Trained) -> None:
    held = {path.name for path in trained.folder.iterdir()}
    assert {"config.toml", "metrics.csv", "checkpoint.pt", "loss.png", "embedding.png"} <= held
    assert ("tensorboard" in held) == (importlib.util.find_spec("tensorboard") is not None)
    with (trained.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["events_per_s"]) > 0 for row in rows)


def test_last_part_of_whole_files_is_reserved_and_signals_are_classes(trained: Trained) -> None:
    with open_engine(trained.output) as engine:
        facts = engine.facts
    for path, used, kept in zip(trained.events, facts.trained_on, facts.reserved, strict=True):
        with EventFile(path) as file:
            n = len(file)
        assert (used.name, used.start, used.stop) == (path.name, 0, n - round(0.2 * n))
        assert (kept.name, kept.start, kept.stop) == (path.name, used.stop, n)
        assert f"reserved: events {kept.start} to {n} of {path.name}" in trained.said
    assert re.search(r"class 10: 192 to train on, 48 held out", trained.said)
    assert facts.options["recipe"] == "mlp"


@pytest.mark.usefixtures("keep_logging")
def test_trained_events_are_recognised_in_another_file_and_order(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engines.calibrate_reference import main as calibrate

    copy, out = tmp_path / "copy.h5", tmp_path / "copy.ref"
    with EventFile(trained.events[0]) as file:
        particles = file.read(100, 400)
    write_events(copy, np.random.default_rng(0).permutation(particles))
    options = ["--engine", str(trained.output), "--window", "20", "--n-basis", "60"]
    options += ["--centres", "10", "--n-ref", "60", "--toys", "3", "-o", str(out), "--threads", "1"]
    assert calibrate([*options, "--events", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "copy.h5 holds events that the encoder was trained on" in said
    assert not out.exists()


@pytest.mark.usefixtures("keep_logging")
def test_calibration_takes_the_reserved_part_of_the_whole_file(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engines.calibrate_reference import main as calibrate
    from engines.reference_file import load_reference

    events, out = trained.events[0], tmp_path / "d4.ref"
    options = ["--engine", str(trained.output), "--window", "20", "--n-basis", "60"]
    options += ["--centres", "10", "--n-ref", "60", "--toys", "3", "-o", str(out), "--threads", "1"]
    assert calibrate([*options, "--events", f"{events}@0:400"]) == 2
    assert "was trained on 400 of these events" in capsys.readouterr().err
    assert calibrate([*options, "--events", str(events)]) == 0
    assert "the part that training reserved" in capsys.readouterr().err
    (sample,) = load_reference(out).facts.samples
    with EventFile(events) as file:
        n = len(file)
    assert (sample.start, sample.stop) == (n - round(0.2 * n), n)


@pytest.mark.usefixtures("keep_logging")
def test_a_finished_training_is_exported_again_from_its_own_config(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained.folder / "config.toml"
    code, out, err = said(capsys, "--config", config)
    assert code == 0
    assert "holds this training, finished: exporting from it" in err
    assert out.splitlines()[-1] == trained.said.splitlines()[-1]
    code, out, err = said(capsys, "--config", config, "--lr", "0.5")
    assert (code, out) == (2, "")
    assert "holds a training with lr 0.01; this one has 0.5; name another folder" in err


@pytest.mark.usefixtures("keep_logging")
def test_a_killed_training_continues_to_the_same_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = ("--events", f"{COCKTAIL}@0:6000", "--loss", "simclr", "--epochs", "12", *FAST)
    killed = subprocess.Popen(command(*events, "-o", tmp_path / "killed.onnx"))
    metrics = tmp_path / "killed.run" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "killed.onnx").exists()
    code, continued, err = said(capsys, *events, "-o", tmp_path / "killed.onnx")
    assert code == 0
    assert re.search(r"killed\.run: continuing after epoch \d+ of 12", err)
    code, undisturbed, _ = said(capsys, *events, "-o", tmp_path / "whole.onnx")
    assert code == 0
    assert continued.splitlines()[-1] == undisturbed.splitlines()[-1]


@pytest.mark.usefixtures("keep_logging")
def test_folds_give_an_encoder_each_and_the_mean_accuracy(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--events", trained.events[0], "--folds", "2", "--without-process", "2", *SMALL)
    code, out, err = said(capsys, *options, "-o", tmp_path / "d4.onnx")
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("d4-fold1.onnx", "d4-fold2.onnx", "d4.run"),
    }
    stored = json.loads((tmp_path / "d4.run" / "folds.json").read_text())
    one, other = stored["accuracies"]
    assert stored["mean"] == pytest.approx((one + other) / 2)
    assert stored["standard_error"] == pytest.approx(abs(one - other) / 2)
    mean, error = stored["mean"], stored["standard_error"]
    assert "slightly optimistic" in out
    with open_engine(tmp_path / "d4-fold2.onnx") as engine:
        assert engine.facts.options["fold"] == "2 of 2"
    config = (tmp_path / "d4.run" / "fold1" / "config.toml").read_text()
    assert config.splitlines()[1] == '# fold = "1 of 2"'
    assert f"accuracy over 2 folds: {mean:.4f} +- {error:.4f}" in out
    assert "class 2" not in out


@pytest.mark.parametrize(
    ("arch", "dim"), [(["raw"], 57), (["leading-pt"], 6), (["quantities", "--keep", "mt"], 1)]
)
@pytest.mark.usefixtures("keep_logging")
def test_baselines_train_nothing(
    arch: list[str], dim: int, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base.onnx"
    code, printed, err = said(capsys, "--events", trained.events[0], "--arch", *arch, "-o", out)
    assert code == 0, err
    assert f"--arch {arch[0]} trains nothing" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["base.onnx"]
    with open_engine(out) as engine:
        assert engine.dim == engine.facts.dim == dim
        assert engine.facts.loss == "none"
        assert len(engine.facts.reserved) == 1


@pytest.mark.usefixtures("keep_logging")
def test_a_small_class_does_not_block_a_training_without_labels(
    bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--events", bad / "rare.h5", "--epochs", "1", "--batch-size", "32")
    out = tmp_path / "d4.onnx"
    code, printed, err = said(capsys, *options, "--loss", "simclr", "-o", out)
    assert code == 0, err
    assert re.search(r"class 1: 4 to train on, 0 held out\n", printed)
    code, _, err = said(capsys, *options[:2], "--arch", "leading-pt", "-o", tmp_path / "6.onnx")
    assert code == 0, err


@pytest.mark.usefixtures("keep_logging")
def test_a_picture_that_cannot_be_drawn_costs_no_encoder(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        assert (tmp_path / "d4.onnx").exists()
        msg = "no font"
        raise RuntimeError(msg)

    monkeypatch.setattr("training.run.pictures.draw_losses", fail)
    config = ("--config", trained.folder / "config.toml", "--run-dir", tmp_path / "d4.run")
    shutil.copytree(trained.folder, tmp_path / "d4.run")
    code, out, err = said(capsys, *config, "-o", tmp_path / "d4.onnx")
    assert code == 0, err
    assert "a picture could not be drawn: no font" in err
    assert out.splitlines()[-1] == trained.said.splitlines()[-1]


@pytest.mark.usefixtures("keep_logging")
def test_a_run_folder_in_use_damaged_or_of_other_events_is_one_sentence(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "d4.run"
    shutil.copytree(trained.folder, place)
    config = ("--config", trained.folder / "config.toml")
    again = (*config, "--run-dir", place, "-o", tmp_path / "d4.onnx")
    with hold_folder(place):
        code, out, err = said(capsys, *again)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "another training writes into" in err
    (place / "config.toml").unlink()
    code, out, err = said(capsys, *again, "--dim", "3")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "holds a training with dim 4; this one has 3" in err
    (place / "checkpoint.pt").write_bytes(b"")
    code, out, err = said(capsys, *again)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "checkpoint.pt is damaged" in err


@pytest.mark.usefixtures("keep_logging")
def test_options_that_were_refused_bind_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--events", f"{COCKTAIL}@0:100", "--loss", "simclr", "-o", tmp_path / "m7.onnx")
    code, _, err = said(capsys, *few, "--batch-size", "4096", "--epochs", "1")
    assert code == 2
    assert "lower --batch-size or add events" in err
    assert (tmp_path / "m7.run" / "config.toml").exists()
    code, _, err = said(capsys, *few, "--batch-size", "32", "--epochs", "1")
    assert code == 0, err


@pytest.mark.usefixtures("keep_logging")
def test_labels_that_changed_are_not_continued_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    particles = read_events(EventRange(COCKTAIL, 0, 400))
    events, labels = tmp_path / "a.h5", np.arange(400) % 2
    common = ("--events", f"{events}@0:400", "--epochs", "1", "--batch-size", "64")
    for changed in (False, True):
        write_events(events, particles, 1 - labels if changed else labels)
        code, out, err = said(capsys, *common, "-o", tmp_path / "d4.onnx")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "changed since; name another folder with --run-dir" in err


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of event files that nobody can train on."""
    folder = tmp_path_factory.mktemp("bad")
    particles = read_events(EventRange(COCKTAIL, 0, 400))
    write_events(folder / "unlabelled.h5", particles)
    write_events(folder / "single.h5", particles, np.zeros(400, dtype=np.int64))
    write_events(folder / "sorted.h5", particles, np.repeat([0, 1], [200, 200]))
    write_events(folder / "few.h5", particles, np.arange(400) % 40 == 1)
    write_events(folder / "rare.h5", particles, np.arange(400) % 80 == 1)
    (folder / "truncated.h5").write_bytes((folder / "single.h5").read_bytes()[:3000])
    with h5py.File(folder / "shape.h5", "w") as file:
        file["Particles"] = particles[:, :18]
    with h5py.File(folder / "nan.h5", "w") as file:
        file["Particles"] = np.full((400, 19, 3), np.nan, dtype=np.float32)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--events", "missing.h5"), "missing.h5 does not exist"),
        (("--events", "truncated.h5"), "not a complete HDF5 file"),
        (("--events", "shape.h5"), "must have shape (n, 19, 3 or 4)"),
        (("--events", "single.h5", "nan.h5"), "/nan.h5 is not (320 such"),
        (("--events", "unlabelled.h5"), "use --loss simclr"),
        (("--events", "single.h5"), "two classes or more"),
        (("--events", "single.h5@9:2"), "START < STOP"),
        (("--events", "single.h5@0:4", "--loss", "simclr"), "at least 10 events"),
        (("--events", "unlabelled.h5", "--loss", "simclr"), "lower --batch-size"),
        (
            ("--events", "missing.h5", "-o", "nowhere/d4.onnx"),
            "nowhere/d4.onnx (No such file or directory); choose a folder that exists",
        ),
        (("--events", "missing.h5", "--dim", "0"), "above zero"),
        (("--events", "missing.h5", "--dim", "2000"), "dim must be at most 1024; got 2000"),
        (("--events", "missing.h5", "--arch", "raw", "--dim", "4"), "--dim must be 57 with --arch"),
        (
            ("--events", "missing.h5", "--schedule", "constant", "--lr-end", "0.1"),
            "--lr-end changes nothing with --schedule constant; got 0.1; leave it out",
        ),
        (("--events", "missing.h5", "--loss", "simclr", "--augment", "none"), "views that differ"),
        (
            ("--events", "missing.h5", "--loss", "supcon", "--augment", "rotation"),
            "a loss of two views",
        ),
        (
            ("--events", "missing.h5", "--loss", "simclr", "--augment", "rotation"),
            "inputs that are not turned to the MET",
        ),
        (
            ("--events", "single.h5", "unlabelled.h5@9:20"),
            "each event may be given once; single.h5 events 0 to 400 and unlabelled.h5 events",
        ),
        (("--events", "rare.h5"), "class 1 must hold at least 10 events"),
        (("--events", "rare.h5"), "or use --without-process"),
        (("--events", "missing.h5", "--seed", "-1"), "seed must be"),
        (("--events", "missing.h5", "--mask-probability", "1.5"), "mask probability must be"),
        (("--events", "missing.h5", "--loss", "barlow"), "loss must be one of"),
        (("--events", "missing.h5", "--loss", "vae"), "--loss vae must go with --arch vae"),
        (("--events", "missing.h5", "--recipe", "slow"), "recipe must be one of mlp, hybrid-mlp"),
        (("--events", "missing.h5", "--arch", "cnn"), "arch must be one of"),
        (("--events", "missing.h5", "--arch", "transformer", "--heads", "7"), "heads"),
        (("--events", "missing.h5", "--augment", "blur"), "blur"),
        (
            ("--events", "missing.h5", "--loss", "supcon", "--augment", "resimulation"),
            "a loss of two views",
        ),
        (("--events", "missing.h5", "--reserve", "1"), "reserve must be from 0 to below 1"),
        (("--events", "missing.h5", "--warm-up", "21"), "warm-up must be from 0 to the 8 epochs"),
        (("--events", "unlabelled.h5", "--loss", "supvicreg+ce"), "unlabelled.h5 has no 'process'"),
        (("--events", "unlabelled.h5", "--loss", "ce"), "use --loss simclr"),
        (("--events", "unlabelled.h5", "--recipe", "paper-supvicreg"), "use --loss vicreg"),
        (("--events", "unlabelled.h5", "--loss", "simclr", "--without-process", "1"), "leave"),
        (
            ("--events", "single.h5", "--loss", "simclr", "--augment", "resimulation"),
            "single.h5 has no 'Realisations'; make them with simulate-events --resimulate K",
        ),
        (("--events", "few.h5", "--folds", "6"), "class 1 must hold at least 12 events"),
        (("--events", "sorted.h5"), "sorted.h5 must be shuffled"),
    ],
)
@pytest.mark.usefixtures("keep_logging")
def test_bad_input_gives_one_sentence(
    arguments: tuple[str, ...], said: str, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([str(word) for word in in_folder(bad, arguments)])
    except SystemExit as exc:
        code = int(exc.code or 0)
    printed = capsys.readouterr()
    assert code == 2
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not (bad / "d4.onnx").exists()


@pytest.mark.parametrize("arguments", [("--events", "truncated.h5"), ("--events", "single.h5")])
def test_bad_input_ends_the_process_with_2_and_no_traceback(
    arguments: tuple[str, ...], bad: Path
) -> None:
    done = train(*in_folder(bad, arguments))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def in_folder(folder: Path, arguments: tuple[str, ...]) -> list[str | Path]:
    words: list[str | Path] = [
        folder / word if word.partition("@")[0].endswith((".h5", ".onnx")) else word
        for word in arguments
    ]
    return words if "-o" in arguments else [*words, "-o", folder / "d4.onnx"]


def test_help_is_fast_and_teaches() -> None:
    code = (
        "import sys, training.train_encoder as command\n"
        "try: command.main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "example:\n  train-encoder --events" in done.stdout
    *others, last = map(str, SIMCLR_TEMPERATURES)
    dimensions = f"nearest of {', '.join(others)} and {last})"
    assert dimensions in " ".join(done.stdout.split())
