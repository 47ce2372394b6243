"""`bench-physics run` as a user runs it: killed, run again, and whole in the end."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import physics

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
        assert process.returncode == 130, rest
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
