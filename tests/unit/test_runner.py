"""The thread beside the stream."""

import logging
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from stream.runner import GivenUp, TestRunner
from stream.window import ClosedWindow
from tests.support_stream import closed_window

WAIT_S = 20.0


class Bench:
    """Examines windows only when let, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.examined: list[int] = []
        self.given_up: list[GivenUp] = []
        self.skipped: list[int] = []
        self.fail_on: int | None = None

    def examine(self, closed: ClosedWindow, given_up: GivenUp) -> None:
        self.begun.release()
        if not self.go.acquire(timeout=WAIT_S):
            msg = "nobody let the test go on"
            raise TimeoutError(msg)
        if closed.index == self.fail_on:
            msg = "this window cannot be tested"
            raise ValueError(msg)
        self.examined.append(closed.index)
        self.given_up.append(given_up)

    def skip(self, closed: ClosedWindow) -> None:
        self.skipped.append(closed.index)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def runner(bench: Bench) -> Iterator[TestRunner]:
    made = TestRunner(bench.examine, bench.skip, size=2)
    yield made
    bench.go.release(100)
    made.close()


def submit(runner: TestRunner, indices: range) -> None:
    for index in indices:
        runner.submit(closed_window(np.zeros((3, 1), np.float32), index=index))


def test_newest_windows_wait_and_the_oldest_is_given_up(bench: Bench, runner: TestRunner) -> None:
    submit(runner, range(1))
    assert bench.begun.acquire(timeout=WAIT_S)  # window 0 is being tested, none waits
    submit(runner, range(1, 6))
    assert bench.skipped == [1, 2, 3]
    assert runner.n_waiting == 2
    bench.go.release(3)
    runner.close()
    assert bench.examined == [0, 4, 5]
    assert bench.given_up == [GivenUp(), GivenUp(3, 9), GivenUp(3, 9)]
    assert runner.n_waiting == 0


def test_a_flood_of_full_windows_waits_with_so_many_events_together(bench: Bench) -> None:
    runner = TestRunner(bench.examine, bench.skip, size=16, max_events=10)
    submit(runner, range(1))
    assert bench.begun.acquire(timeout=WAIT_S)
    for index, n_events in ((1, 4), (2, 6), (3, 5), (4, 30)):
        runner.submit(closed_window(np.zeros((n_events, 1), np.float32), index=index))
        assert runner.n_waiting == {1: 1, 2: 2, 3: 1, 4: 1}[index]
    assert bench.skipped == [1, 2, 3]
    bench.go.release(2)
    runner.close()
    assert bench.examined == [0, 4]
    assert bench.given_up[-1] == GivenUp(3, 15)


def test_close_finishes_what_waits(bench: Bench, runner: TestRunner) -> None:
    submit(runner, range(2))
    bench.go.release(2)
    runner.close()
    assert bench.examined == [0, 1]
    assert bench.skipped == []


def test_close_without_windows_returns(runner: TestRunner) -> None:
    runner.close()


def test_failing_test_does_not_end_the_thread(
    bench: Bench, runner: TestRunner, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fail_on = 0
    submit(runner, range(2))
    bench.go.release(2)
    with caplog.at_level(logging.ERROR):
        runner.close()
    assert bench.examined == [1]
    assert "the test of window 0 failed" in caplog.text
