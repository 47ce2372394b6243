"""`bench-physics` as a user runs it: a study killed and run again, and a selection."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import physics
from engines.artifact import load_onnx, read_facts
from engines.samples import sample_path
from tests.support_commands import INTERRUPTED

SMOKE = Path(physics.__file__).parent / "studies" / "smoke.toml"
pytestmark = pytest.mark.slow


def start(folder: Path) -> "subprocess.Popen[str]":
    words = ["-m", "bench.physics", "run", str(SMOKE), "--folder", str(folder), "--jobs", "2"]
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def lines_until(process: "subprocess.Popen[str]", first: str) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if line.startswith(first):
            return


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        seen = list(lines_until(process, "trained "))
        assert seen[-1].startswith("trained "), seen
        process.terminate()
        rest, _ = process.communicate(timeout=60)
        assert process.returncode in INTERRUPTED, rest
    finally:
        process.kill()
    # The lock is free at once: no training was left behind.
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "engines").glob("*.onnx")}
    assert len(done) >= 1

    process = start(tmp_path)
    try:
        said, _ = process.communicate(timeout=280)
    finally:
        process.kill()
    assert process.returncode == 0, said
    engines = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "engines").glob("*.onnx")}
    assert len(engines) == 4
    assert {name: engines[name] for name in done} == done
    assert said.count("trained ") == 4 - len(done)

    tables = (tmp_path / "tables" / "tables.md").read_text()
    assert "Not complete" not in tables
    assert tables in said
    assert tables.count("| MLP supervised | 4 | 2 |") == 2 + 1  # two fractions and accuracy
    assert "| 6 leading pT | 6 | 1 |" in tables
    assert "[seen]" in tables
    assert "[held out]" in tables
    assert {"results.csv", "summary.csv", "boxes.csv"} <= {
        path.name for path in (tmp_path / "tables").iterdir()
    }
    assert (tmp_path / "figures" / "z.png").stat().st_size > 10_000


SELECTION = f"""
[data]
folder = "{sample_path("A4l").parent}"
background = "sm_cocktail.h5@0:60000"
extra = ["sm_rare.h5"]
[data.signals]
A4l = "A4l.h5"
[data.processes]
Z = 2
[train]
seeds = [0]
events = 12_000
[[encoders]]
name = "quick"
options = {{ recipe = "quick-mlp", epochs = 1, threads = 1 }}
[[encoders]]
name = "six"
options = {{ arch = "leading-pt" }}
[test]
window = 800
fractions = [0.3]
windows = 8
splits = 2
toys = 40
n_ref = 3_000
[select]
"""


@pytest.mark.usefixtures("keep_logging")
def test_a_process_left_out_of_training_is_found_and_no_signal_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = tmp_path / "select.toml", tmp_path / "out"
    study.write_text(SELECTION)
    assert physics.main(["select", str(study), "--folder", str(folder), "--no-signals"]) == 0
    engines = {path.name.split("-")[0]: path for path in (folder / "engines").glob("*.onnx")}
    facts = read_facts(load_onnx(engines["quick"]))
    assert facts.options["without_process"] == [2]
    assert [sample.stop for sample in facts.trained_on] == [12_000, 12_000]
    with (folder / "tables" / "selection-results.csv").open() as file:
        rows = {row["encoder"]: row for row in csv.DictReader(file)}
    assert {(row["signal"], row["windows"]) for row in rows.values()} == {("Z", "8")}
    # All windows of 240 Z events stand out; with background in their place hardly any.
    assert float(rows["quick"]["spreads"]) > 3
    assert float(rows["quick"]["power_2"]) == 1
    printed = capsys.readouterr().out
    assert "| 1 | " in printed
    assert "A4l" not in printed
    assert not any("A4l" in path.name for path in folder.rglob("*"))
