"""Two processes under torchrun, each with half a batch, take the steps of one with all of it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from engines.engine import open_engine
from engines.samples import sample_path
from training.train_encoder import main

OPTIONS = (
    *("--events", f"{sample_path('sm_rare')}@0:300", "--arch", "transformer", "--head", "dino"),
    *("--epochs", "1", "--batch-size", "64", "--threads", "1", "--seed", "3"),
)


def torchrun(module: str, *arguments: str | Path) -> str:
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", module)
    done = subprocess.run(
        [sys.executable, "-m", *launch, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("loss", "validation_loss")]


def test_shared_gradient_is_that_of_one_process() -> None:
    assert torchrun("tests.support_torchrun").count("of 2: loss") == 2


@pytest.mark.usefixtures("keep_logging")
def test_command_trains_together_and_one_process_writes(tmp_path: Path) -> None:
    two = tmp_path / "two.onnx"
    printed = torchrun("training.train_encoder", *OPTIONS, "-o", two)
    assert printed.count("fingerprint") == 1
    with open_engine(two) as engine:
        assert engine.facts.options["processes"] == 2
    assert main([*OPTIONS, "-o", str(tmp_path / "one.onnx")]) == 0
    assert losses(tmp_path / "two.run") == pytest.approx(losses(tmp_path / "one.run"), abs=1e-4)
