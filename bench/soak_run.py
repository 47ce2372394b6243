"""A long stream at a steady rate, and the consumer's state sampled throughout."""

import json
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import Process, free_endpoint, start
from bench.reliability_run import Way, capacity_hz, feed_words
from bench.scrape import Scrape, quantile_s, scrape, wait_until_ready
from bench.soak_fit import slope
from bench.stream_run import Feed, Served
from bench.usage import Usage, usage
from engines.errors import WorkerError
from engines.progress import Progress
from engines.types import Float64Array

__all__ = ["COUNTS", "Settings", "soak"]

#: Counted over the whole run, by the name of their metric.
COUNTS = {
    "events": "events_total",
    "missing": "missing_messages_total",
    "rejected": "rejected_messages_total",
    "duplicates": "duplicate_messages_total",
    "resets": "socket_resets_total",
}
_MOST_SAMPLES = 300
_END_S, _POLL_S = 120.0, 0.2
_CAPACITY_S = 12.0
_MB, _HOUR_S = 1e6, 3600.0


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        duration_s: of the stream.
        warm_up_s: of it, left out of slopes and quantiles.
        load: share of the capacity.
        rate_hz: events a second; 0 measures the capacity and takes the share of it.
        every_s: between samples; longer where they would be more than 300.
        per_message: events in a message.
        reliable: whether messages are acknowledged once they are on the disk.
    """

    duration_s: float
    warm_up_s: float
    load: float
    rate_hz: float
    every_s: float
    per_message: int
    reliable: bool

    @property
    def step_s(self) -> float:
        """Seconds between samples."""
        return max(self.every_s, self.duration_s / _MOST_SAMPLES)


def soak(served: Served, settings: Settings) -> dict[str, Any]:
    """Stream for long; return what was seen.

    Returns:
        `capacity_hz`, None if the rate was given; `rate_hz`; `sender`, how well the load kept it;
        `curves`, each a list over the samples, the last ones of `t_s`, from the first event;
        `resident`, MB and its slope in MB an hour; `descriptors` and `threads`, after the warm-up;
        `p99_s` of the halves after the warm-up; `counts`, and `all_counted`.

    Raises:
        WorkerError: if a process fails.
    """
    way = Way(reliable=settings.reliable)
    with tempfile.TemporaryDirectory() as name:
        folder, capacity, rate_hz = Path(name), None, settings.rate_hz
        if not rate_hz:
            full = Feed(0.0, _CAPACITY_S, 0.0, settings.per_message)
            capacity = capacity_hz(served, full, way, folder)
            rate_hz = settings.load * capacity
        feed = Feed(rate_hz, settings.duration_s, settings.warm_up_s, settings.per_message)
        with _consumer(served, way, folder) as (consumer, endpoint, address):
            samples = _Samples(consumer, address)
            load = _watch(feed, way, (endpoint, folder), samples, settings.step_s)
            last = _all_counted(address, load["events"], consumer)
            _end(consumer)
    curves = samples.curves()
    return {
        "capacity_hz": capacity,
        "rate_hz": rate_hz,
        "sender": {key: load[key] for key in ("rate_hz", "late_p99_s", "late_max_s", "cpu_s")},
        "curves": {key: values.tolist() for key, values in curves.items()},
        **_summary(curves, settings.warm_up_s),
        "events_sent": load["events"],
        "counts": {key: int(last.total(metric)) for key, metric in COUNTS.items()},
        "windows": {key: int(n) for key, n in last.by("windows_total", "outcome").items()},
        "all_counted": int(last.total("events_total")) == load["events"],
    }


@contextmanager
def _consumer(served: Served, way: Way, folder: Path) -> Iterator[tuple[Process, str, str]]:
    endpoint, address = free_endpoint(), free_endpoint().removeprefix("tcp://")
    words = (
        *("stream.consumer", "--engine", served.engine, "--device", served.device),
        *("--endpoint", endpoint, "--http", address, "--log-level", "WARNING"),
        *("--results", folder / "results.jsonl", *way.consumer_words(folder), *served.options),
    )
    with start(*words) as consumer:
        wait_until_ready(address, consumer)
        yield consumer, endpoint, address


class _Samples:
    """The consumer over time.

    Args:
        consumer: it.
        address: of its `--http`.
    """

    def __init__(self, consumer: Process, address: str) -> None:
        self._consumer, self._address = consumer, address
        self._rows: list[dict[str, float]] = []
        self._started_s = time.monotonic()
        self._before = self._take()

    def _take(self) -> tuple[float, Usage, Scrape]:
        seen = scrape(self._address)
        return time.monotonic() - self._started_s, usage(self._consumer.process.pid), seen

    def add(self) -> dict[str, float]:
        """Take a sample; return it."""
        t_s, used, seen = self._take()
        before_s, used_before, seen_before = self._before
        bounds, counts = seen.buckets("event_latency_seconds")
        counts = counts - seen_before.buckets("event_latency_seconds")[1]
        n_events = seen.total("events_total") - seen_before.total("events_total")
        quantiles = {f"p{q}_s": quantile_s(bounds, counts, q / 100) for q in (50, 99)}
        self._rows.append(
            {
                "t_s": t_s,
                "resident_bytes": used.resident_bytes,
                "descriptors": used.descriptors,
                "threads": used.threads,
                "cpu_cores": (used.cpu_s - used_before.cpu_s) / (t_s - before_s),
                "rate_hz": n_events / (t_s - before_s),
                # JSON knows no NaN: in a step without events the latency is 0.
                **{key: value or 0.0 for key, value in quantiles.items()},
                **{key: seen.total(name) for key, name in COUNTS.items()},
                "skipped": seen.total("windows_total", outcome="skipped"),
                "tested": seen.total("windows_total", outcome="tested"),
            }
        )
        self._before = t_s, used, seen
        return self._rows[-1]

    def curves(self) -> dict[str, Float64Array]:
        """Return all samples, by what was sampled."""
        if not self._rows:
            msg = "a soak must last longer than the time between samples; give it more --minutes"
            raise WorkerError(msg)
        return {key: np.array([row[key] for row in self._rows]) for key in self._rows[0]}


def _watch(
    feed: Feed, way: Way, places: tuple[str, Path], samples: _Samples, step_s: float
) -> dict[str, Any]:
    """Send a feed and take samples until it ends; return the load's report."""
    endpoint, folder = places
    progress = Progress(n_samples := math.ceil(feed.duration_s / step_s), "samples")
    with start(*feed_words(feed, endpoint), *way.producer_words(folder)) as load:
        next_s = time.monotonic() + step_s
        taken = 0
        while load.process.poll() is None:
            time.sleep(min(_POLL_S, max(0.0, next_s - time.monotonic())))
            if time.monotonic() < next_s or taken >= n_samples:
                continue
            next_s += step_s
            row = samples.add()
            taken += 1
            note = f"{row['resident_bytes'] / _MB:.0f} MB, p99 {1e3 * row['p99_s']:.1f} ms"
            progress.advance(1, note)
        progress.close()
        report: dict[str, Any] = json.loads(load.finish(_END_S))
    return report


def _all_counted(address: str, n_events: int, consumer: Process) -> Scrape:
    """Wait until so many events are counted, or no more come; return the metrics then."""
    until_s = time.monotonic() + _END_S
    seen = scrape(address)
    while seen.total("events_total") < n_events and time.monotonic() < until_s:
        consumer.check()
        time.sleep(_POLL_S)
        seen = scrape(address)
    return seen


def _end(consumer: Process) -> None:
    consumer.process.send_signal(signal.SIGTERM)
    consumer.finish(_END_S)


def _summary(curves: dict[str, Float64Array], warm_up_s: float) -> dict[str, Any]:
    warm = curves["t_s"] >= warm_up_s
    if not warm.any():
        warm[-1] = True
    after = {key: values[warm] for key, values in curves.items()}
    resident = after["resident_bytes"] / _MB
    line = slope(after["t_s"], resident)
    half = len(resident) // 2
    return {
        "resident": {
            "first_mb": float(resident[0]),
            "last_mb": float(resident[-1]),
            "most_mb": float(curves["resident_bytes"].max() / _MB),
            "slope_mb_per_hour": None if line is None else _HOUR_S * line.per_s,
            "slope_error_mb_per_hour": None if line is None else _HOUR_S * line.error_per_s,
            "is_flat": None if line is None else line.is_flat,
            "line": None if line is None else asdict(line),
        },
        "p99_s": {
            "first_half": float(np.median(after["p99_s"][: half or 1])),
            "second_half": float(np.median(after["p99_s"][half:])),
            "most": float(after["p99_s"].max()),
        },
        **{
            key: {
                "first": float(after[key][0]),
                "last": float(after[key][-1]),
                "most": float(after[key].max()),
            }
            for key in ("descriptors", "threads")
        },
        "cpu_cores": float(after["cpu_cores"].mean()),
    }
