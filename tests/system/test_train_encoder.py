"""`train-encoder` as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from engines.engine import open_engine
from engines.event_files import read_events, write_events
from engines.events import EventRange
from engines.samples import sample_path
from training.train_encoder import main

COCKTAIL, RARE = sample_path("sm_cocktail"), sample_path("sm_rare")
FAST = ("--batch-size", "128", "--threads", "1")


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.train_encoder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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
    assert (facts.arch, facts.loss, facts.dim) == ("mlp", "supcon", 4)
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


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of event files that nobody can train on."""
    folder = tmp_path_factory.mktemp("bad")
    particles = read_events(EventRange(COCKTAIL, 0, 400))
    write_events(folder / "unlabelled.h5", particles)
    write_events(folder / "single.h5", particles, np.zeros(400, dtype=np.int64))
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
        (("--events", "nan.h5"), "must be finite"),
        (("--events", "unlabelled.h5"), "use --loss simclr"),
        (("--events", "single.h5"), "two classes or more"),
        (("--events", "single.h5@9:2"), "START < STOP"),
        (("--events", "single.h5@0:4", "--loss", "simclr"), "at least 10 events"),
        (("--events", "unlabelled.h5", "--loss", "simclr"), "lower --batch-size"),
        (("--events", "missing.h5", "-o", "nowhere/d4.onnx"), "nowhere does not exist"),
        (("--events", "missing.h5", "--dim", "0"), "above zero"),
        (("--events", "missing.h5", "--seed", "-1"), "seed must be"),
        (("--events", "missing.h5", "--mask-probability", "1.5"), "mask probability must be"),
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
