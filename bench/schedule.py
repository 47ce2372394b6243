"""An open-loop schedule: what is due when, whoever keeps up with it.

A message is due when the schedule says so, and carries that time as its `t_ns`; one that cannot go
in time goes as soon as it can, and none is left out. What waits, waits in the latency that the
consumer measures: no omission is coordinated with a slow consumer.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engines.types import IntArray

__all__ = ["Clock", "MachineClock", "Report", "Schedule", "drive"]

_NS = 1e9


class Clock(Protocol):
    """Unix time that never leaps, and waiting by it."""

    def now_ns(self) -> int:
        """Return unix nanoseconds."""

    def sleep(self, seconds: float) -> None:
        """Wait, perhaps a little longer."""


class MachineClock:
    """The monotonic clock, set to unix time once."""

    def __init__(self) -> None:
        """Fix the offset."""
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return unix nanoseconds."""
        return self._offset_ns + time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Schedule:
    """When messages are due.

    Attributes:
        rate_hz: events a second; 0 for as fast as they are taken, each due when it can go.
        per_message: events in a message.
        duration_s: how long messages fall due.

    >>> Schedule(1000.0, 250, 2.0).due_ns(1, start_ns=5)
    250000005
    """

    rate_hz: float
    per_message: int
    duration_s: float

    def due_ns(self, index: int, start_ns: int) -> int:
        """Return when a message is due if the first is at `start_ns`, unix ns; rate above 0."""
        return start_ns + round(index * self.per_message * _NS / self.rate_hz)

    def due_times_ns(self, clock: Clock) -> Iterator[int]:
        """Yield the due time of each message from now on, unix ns."""
        start_ns = clock.now_ns()
        if self.rate_hz:
            n_messages = math.ceil(self.duration_s * self.rate_hz / self.per_message)
            yield from (self.due_ns(index, start_ns) for index in range(n_messages))
        else:
            while (now_ns := clock.now_ns()) < start_ns + self.duration_s * _NS:
                yield now_ns


@dataclass(frozen=True)
class Report:
    """What was sent.

    Attributes:
        events, messages: their number.
        seconds: from the first due time to the last message handed over.
        rate_hz: events a second after the warm-up.
        late_p50_s, late_p99_s, late_max_s: handed over after due, in seconds, after the warm-up.
        cpu_s: CPU seconds of this process while it sent.
    """

    events: int
    messages: int
    seconds: float
    rate_hz: float
    late_p50_s: float
    late_p99_s: float
    late_max_s: float
    cpu_s: float


def drive(
    send: Callable[[int, int], object], schedule: Schedule, clock: Clock, warm_up_s: float = 0.0
) -> Report:
    """Send every message when it is due, or as soon after as `send` allows.

    Args:
        send: called with a message's number and its due time, unix ns; may block.
        schedule: when they are due.
        clock: whose time counts.
        warm_up_s: left out of rate and lateness; shorter than the schedule.
    """
    due_ns, sent_ns = [], []
    cpu_s = time.process_time()
    for index, due in enumerate(schedule.due_times_ns(clock)):
        while (left_ns := due - clock.now_ns()) > 0:
            clock.sleep(left_ns / _NS)
        send(index, due)
        due_ns.append(due)
        sent_ns.append(clock.now_ns())
    cpu_s = time.process_time() - cpu_s
    return _report(np.array(due_ns), np.array(sent_ns), schedule, warm_up_s, cpu_s)


def _report(
    due_ns: IntArray, sent_ns: IntArray, schedule: Schedule, warm_up_s: float, cpu_s: float
) -> Report:
    counted = int(np.searchsorted(due_ns, due_ns[0] + warm_up_s * _NS))
    counted = min(counted, len(due_ns) - 1)
    late_s = (sent_ns - due_ns)[counted:] / _NS
    span_s = float(sent_ns[-1] - sent_ns[counted]) / _NS
    p50, p99 = np.quantile(late_s, (0.5, 0.99), method="higher")
    return Report(
        events=len(due_ns) * schedule.per_message,
        messages=len(due_ns),
        seconds=float(sent_ns[-1] - due_ns[0]) / _NS,
        rate_hz=(len(late_s) - 1) * schedule.per_message / span_s if span_s else 0.0,
        late_p50_s=float(p50),
        late_p99_s=float(p99),
        late_max_s=float(late_s.max()),
        cpu_s=cpu_s,
    )
