"""The GPU suite rehearsed on the CPU, and its parts that fail or take too long."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_suite import Part, parts, run_part

SIX = {"tests", "nplm", "engines", "embedding", "latency", "toys"}


@pytest.mark.slow
def test_a_rehearsal_leaves_at_most_eight_files(tmp_path: Path) -> None:
    words = ["-m", "bench.gpu_suite", "-o", str(tmp_path / "gpu"), "--device", "cpu", "--quick"]
    done = subprocess.run(
        [sys.executable, *words, "--toys", "20"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu" / "suite.json").read_text())
    assert {part["name"]: part["status"] for part in record["parts"]} == dict.fromkeys(SIX, "done")
    assert record["gpu"] is None
    assert record["machine"]["cores"]
    assert "skipped" in record["parts"][0]["output"][-1]
    names = {path.name for path in (tmp_path / "gpu").iterdir()}
    jsons = {"suite", "nplm", "nplm-toys", "engines", "embedding", "latency"}
    assert names == {f"{name}.json" for name in jsons} | {"suite.png", "latency.png"}
    toys = json.loads((tmp_path / "gpu" / "nplm-toys.json").read_text())
    assert toys["settings"]["toys"] == 20
    engines = json.loads((tmp_path / "gpu" / "engines.json").read_text())["results"]
    assert engines["ways"]["torch"]["largest_difference"] < 1e-5
    assert engines["precisions"]["fp16"]["largest_over_spread"] < 0.05
    assert "CUDA provider" in engines["ways"]["ONNX Runtime"]["unavailable"]
    assert engines["faster"] is None


def test_a_part_that_fails_says_so() -> None:
    outcome = run_part(Part("a", lambda _: ["no_such_module"], 60), 60)
    assert outcome.status == "failed"
    assert "no_such_module" in outcome.output[-1]


def test_a_part_that_takes_too_long_is_stopped_with_its_own_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.gpu_suite._LEAST_S", 0.0)
    held = tmp_path / "held"
    code = f"import fcntl, time; f = open({str(held)!r}, 'w'); fcntl.flock(f, 2); time.sleep(200)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    outcome = run_part(Part("a", lambda _: ["timeit", "-n1", "-r1", child], 3), 3)
    assert outcome.status == "stopped"
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for as long as the child lives


def test_a_part_without_time_is_left_out() -> None:
    assert run_part(Part("a", lambda _: ["this"], 60), 5).status == "left out"


def test_as_many_toys_as_there_is_time_for(tmp_path: Path) -> None:
    toys = parts(tmp_path, "cpu", 1000, quick=True)[-1]
    assert toys.words(100) is None  # the part that says what a toy takes left nothing
    results = {"build_s": 10, "both_s": {"median": 0.5}, "pool_features_s": 5, "toy_s": 0.1}
    (tmp_path / "nplm.json").write_text(json.dumps({"results": results}))

    def asked(limit_s: float) -> int:
        words = toys.words(limit_s) or ["--toys", "0"]
        return int(words[words.index("--toys") + 1])

    assert [asked(limit_s) for limit_s in (500, 110, 40)] == [1000, 480, 0]
