"""Toys in worker processes: the bits of a serial run, whoever gets killed on the way."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ParameterError, WorkerError
from engines.toy_journal import ToyJournal
from engines.toy_processes import ProcessRunner
from engines.toy_runs import SerialRunner, cut_batches
from engines.types import Float64Array
from tests.support_toys import BATCH_SIZE, SumJob, pool_toys, run_all


@pytest.fixture(scope="module")
def expected() -> Float64Array:
    return run_all(SumJob(), SerialRunner())


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("this did not happen within 30 s")
        time.sleep(0.01)


def running(pids: list[str]) -> list[str]:
    """Return those that still run; a killed process that nobody waited for does not."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [pid for pid, stat in stats.items() if stat.exists() and " Z " not in stat.read_text()]


def test_processes_give_the_bits_of_a_serial_run(tmp_path: Path, expected: Float64Array) -> None:
    t = run_all(SumJob(folder=tmp_path), ProcessRunner(2))
    np.testing.assert_array_equal(t, expected)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_more_processes_than_batches(tmp_path: Path, expected: Float64Array) -> None:
    t = run_all(SumJob(folder=tmp_path), ProcessRunner(8), toys=pool_toys(BATCH_SIZE))
    np.testing.assert_array_equal(t, expected[:BATCH_SIZE])
    assert len(list(tmp_path.iterdir())) == 1


def test_killed_worker_is_reported_and_the_next_run_continues(
    tmp_path: Path, expected: Float64Array
) -> None:
    job = SumJob("kill", at=13, folder=tmp_path)
    with ToyJournal.open(tmp_path / "t", "key") as journal:
        with pytest.raises(WorkerError, match=r"killed by SIGKILL; .* fewer workers; .* are kept"):
            run_all(job, ProcessRunner(2), journal)
        assert 8 <= journal.n_toys < len(expected)
        np.testing.assert_array_equal(run_all(job, ProcessRunner(2), journal), expected)


def test_error_of_the_job_arrives_as_it_was_raised() -> None:
    with pytest.raises(ParameterError, match="toy 9 is not to be run") as caught:
        run_all(SumJob("refuse", at=9), ProcessRunner(2))
    assert str(caught.value) == "toy 9 is not to be run"
    assert "in _spring" in caught.value.__notes__[0]


def test_closing_ends_the_workers_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    job = SumJob("stall", at=4, folder=tmp_path)
    results = ProcessRunner(2).run(job, cut_batches(pool_toys(), BATCH_SIZE))
    assert next(results)[0] == 0
    await_that(lambda: len(list(tmp_path.iterdir())) == 2)
    results.close()
    assert running([entry.name for entry in tmp_path.iterdir()]) == []


@pytest.mark.parametrize(("n_workers", "n_kept"), [(1, 12), (2, 19)])
def test_killed_calibration_continues_and_leaves_no_worker(
    tmp_path: Path, expected: Float64Array, n_workers: int, n_kept: int
) -> None:
    path, folder = tmp_path / "d4.ref.toys", tmp_path / "pids"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.support_toys", str(path), str(n_workers), str(folder)]
    with subprocess.Popen(command) as process:
        # One of two workers stands still at toy 13; the other does all the rest.
        n_lines = 1 + (3 if n_workers == 1 else 5)
        await_that(lambda: path.exists() and path.read_bytes().count(b"\n") == n_lines)
        process.kill()
    pids = [entry.name for entry in folder.iterdir()]
    assert len(pids) == n_workers
    await_that(lambda: running(pids) == [])
    with ToyJournal.open(path, "key") as journal:
        assert journal.n_toys == n_kept
        t = run_all(SumJob("refuse", at=11), ProcessRunner(2), journal)
    np.testing.assert_array_equal(t, expected)
