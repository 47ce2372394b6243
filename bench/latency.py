"""How long events take from production to embedding, at shares of what the consumer can take.

Production is when the schedule says that a message is complete: how long its source took to fill it
is not counted, every wait after it is.
"""

import os
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from bench.hdr import Recording
from bench.spread import spread
from bench.stream_run import Feed, Served, StreamRun, run_stream
from engines.errors import ParameterError
from engines.progress import Progress
from engines.reference_file import load_reference

__all__ = ["Point", "Settings", "always_testing", "measure"]

#: Events left out while a rate without limit settles; at a fixed rate the warm-up is in seconds.
_SETTLING_EVENTS = 50_000
#: A window closes so often at least in a run that always tests: well below the time of one test.
_CLOSES_EVERY_S = 0.01


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        loads: shares of the capacity.
        capacity_hz: events a second that count as capacity; 0 measures them first.
        duration_s: of each run, the warm-up included.
        warm_up_s: of it.
        repeat: runs of each kind; runs with and without tests take turns.
        per_message: events in a message.
        dtype: of the payload, "<f4" or "<f2".
    """

    loads: tuple[float, ...] = (0.1, 0.5, 0.8, 0.95)
    capacity_hz: float = 0.0
    duration_s: float = 12.0
    warm_up_s: float = 2.0
    repeat: int = 1
    per_message: int = 256
    dtype: str = "<f4"

    def __post_init__(self) -> None:
        """Refuse a run that is all warm-up.

        Raises:
            ParameterError: if the warm-up is not shorter than the run.
        """
        if self.warm_up_s >= self.duration_s:
            msg = (
                f"warm-up must be shorter than a run of {self.duration_s:g} s; got "
                f"{self.warm_up_s:g} s; give a longer --duration"
            )
            raise ParameterError(msg)

    def feed(self, rate_hz: float) -> Feed:
        """Return the load of a rate."""
        return Feed(rate_hz, self.duration_s, self.warm_up_s, self.per_message, self.dtype)


@dataclass(frozen=True)
class Point:
    """One load, with or without tests.

    Attributes:
        load: share of the capacity.
        rate_hz: events a second.
        testing: whether a test always ran.
        runs: what was measured, one after the other.
    """

    load: float
    rate_hz: float
    testing: bool
    runs: tuple[StreamRun, ...]

    def recording(self, stage: str) -> Recording:
        """Return all runs' durations of a stage, or of `latency`."""
        return Recording.merged(run.stages[stage] for run in self.runs)

    def record(self) -> dict[str, Any]:
        """Return everything, JSON-able; seconds as `_s`."""
        n_million = sum(run.events for run in self.runs) / 1e6
        cpu = [asdict(run.cpu) for run in self.runs]
        quantiles, seconds = self.recording("latency").curve()
        return {
            "load": self.load,
            "rate_hz": self.rate_hz,
            "testing": self.testing,
            "latency": self.recording("latency").summary(),
            "p99_s": spread([run.stages["latency"].quantile_s(0.99) for run in self.runs]),
            "stages": {
                stage: self.recording(stage).summary()
                for stage in self.runs[0].stages
                if stage != "latency"
            },
            "cpu_s_per_million": {key: sum(one[key] for one in cpu) / n_million for key in cpu[0]},
            "test_share": float(np.mean([_share(run) for run in self.runs])),
            "windows": {
                "tested": sum(run.tested for run in self.runs),
                "skipped": sum(run.skipped for run in self.runs),
            },
            "sender": {
                key: spread([run.load[key] for run in self.runs])
                for key in ("rate_hz", "late_p99_s", "late_max_s", "cpu_s")
            },
            "curve": {"quantile": quantiles.tolist(), "seconds": seconds.tolist()},
        }


def measure(served: Served, settings: Settings) -> dict[str, Any]:
    """Find the capacity, then send at shares of it, without a test and with one always running.

    Args:
        served: how the consumer runs.
        settings: what is sent.

    Returns:
        `capacity_hz`, `runtime`, `load_before`, the system's load, and `points`, the records of
        every load.

    Raises:
        ParameterError: if the reference is for windows of time.
        WorkerError: if a process fails.
    """
    window = load_reference(served.engine.with_suffix(".ref")).facts.window
    if window.mode != "count":
        msg = f"windows must hold a number of events; got {window}; take another reference"
        raise ParameterError(msg)
    load_before = os.getloadavg()[0]
    progress = Progress(1 + 2 * settings.repeat * len(settings.loads), "runs")
    capacity_hz = settings.capacity_hz or _capacity_hz(served, settings)
    progress.advance(1, f"capacity {capacity_hz:.0f} events/s")
    runs: dict[tuple[float, bool], list[StreamRun]] = defaultdict(list)
    for load, testing in settings.repeat * list(product(settings.loads, (False, True))):
        runs[load, testing].append(
            _run(served, settings, load * capacity_hz, round(window.n_expected) * testing)
        )
        progress.advance(1, f"{100 * load:.0f} % load")
    progress.close()
    points = [
        Point(load, load * capacity_hz, testing, tuple(of_one))
        for (load, testing), of_one in runs.items()
    ]
    return {
        "capacity_hz": capacity_hz,
        "runtime": points[0].runs[0].runtime,
        "load_before": load_before,
        "points": [point.record() for point in points],
    }


def _run(served: Served, settings: Settings, rate_hz: float, n_window: int) -> StreamRun:
    """Run the consumer at a rate, always testing windows of a number of events, or 0 for none."""
    options = always_testing(rate_hz, n_window) if n_window else ("--no-tests",)
    served = replace(served, options=(*served.options, *options))
    skip_events = round(settings.warm_up_s * rate_hz)
    return run_stream(served, settings.feed(rate_hz), skip_events=skip_events)


def _capacity_hz(served: Served, settings: Settings) -> float:
    """Return the events a second that the consumer takes, testing as it always does."""
    run = run_stream(served, settings.feed(0.0), skip_events=_SETTLING_EVENTS)
    return run.load["rate_hz"]


def always_testing(rate_hz: float, n_window: int) -> tuple[str, ...]:
    """Return the consumer's options with which windows close faster than tests finish.

    >>> always_testing(20_000.0, 5000), always_testing(600_000.0, 5000)
    (('--slide', '200'), ())
    """
    longest = max(1, int(rate_hz * _CLOSES_EVERY_S))
    if longest >= n_window:
        return ()
    step = next(step for step in range(longest, 0, -1) if n_window % step == 0)
    return ("--slide", str(step))


def _share(run: StreamRun) -> float:
    """Return the share of the time in which a test ran."""
    return min(1.0, run.test_s / run.load["seconds"])
