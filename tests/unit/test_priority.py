"""Who goes first: what the system then says of the threads."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.priority import let_stream_pass, step_back

SCHED = Path("/proc/thread-self/sched")


@pytest.fixture(autouse=True)
def switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def in_a_thread(*calls: object) -> dict[str, int]:
    """Return what the system says of a thread that made these calls."""
    said: dict[str, int] = {}

    def work() -> None:
        for call in calls:
            assert callable(call)
            call()
        for line in SCHED.read_text().splitlines():
            name, _, value = line.partition(":")
            if value.strip().isdecimal():
                said[name.strip()] = int(value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return said


@pytest.mark.skipif(not SCHED.exists(), reason="the system does not show a thread's priority")
def test_thread_that_steps_back_has_a_lower_priority_alone() -> None:
    assert in_a_thread(step_back)["prio"] == in_a_thread()["prio"] + 19


@pytest.mark.skipif(
    "se.slice" not in (SCHED.read_text() if SCHED.exists() else ""),
    reason="Linux before 6.12, or one that does not show it, has no slices of one's own",
)
def test_slices_are_short_also_after_stepping_back() -> None:
    assert in_a_thread(let_stream_pass)["se.slice"] == 100_000
    assert in_a_thread(let_stream_pass, step_back)["se.slice"] == 100_000


def test_interpreter_changes_threads_soon() -> None:
    let_stream_pass()
    assert sys.getswitchinterval() <= 1e-3
