"""A good producer alone, and then beside a hostile one, at the same consumer."""

import json
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.hostile_consumer import GOOD
from bench.hostile_keys import NO_KEYS, make_keys
from bench.hostile_kinds import NOT_RELIABLE
from bench.processes import Process, free_endpoint, start
from bench.reliability_run import Way, capacity_hz, feed_words
from bench.scrape import Scrape, scrape, wait_until_ready
from bench.stream_run import Feed, Served
from bench.usage import forget_peak, usage
from engines.errors import WorkerError
from engines.progress import Progress

__all__ = ["Settings", "measure"]

_END_S, _POLL_S, _STILL_S = 120.0, 0.2, 3.0
_CAPACITY_S = 12.0
_MB = 1e6
_COUNTS = {
    "missing": "missing_messages_total",
    "duplicates": "duplicate_messages_total",
    "socket_resets": "socket_resets_total",
    "denied_connections": "denied_connections_total",
}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        kinds: of hostility, of `bench.hostile_kinds.KINDS`.
        share: of the capacity that the good producer sends.
        rate_hz: events a second that it sends instead; 0 measures the capacity.
        alone_s, beside_s: how long each part is.
        per_message: events in a good message.
        reliable: which deliveries; True for acknowledged ones.
    """

    kinds: tuple[str, ...]
    share: float
    rate_hz: float
    alone_s: float
    beside_s: float
    per_message: int
    reliable: tuple[bool, ...] = (False, True)

    @property
    def warm_up_s(self) -> float:
        """Seconds that do not count at the start."""
        return min(2.0, self.alone_s / 4)

    @property
    def begin_s(self) -> float:
        """Seconds until the hostile one is felt in full, and after it has ended."""
        return min(2.0, self.beside_s / 4)


def measure(served: Served, settings: Settings) -> dict[str, Any]:
    """Let a good producer stream alone and beside each kind of hostility.

    Returns:
        `capacity_hz`, None if a rate was given; `rate_hz`; `runs`: each `kind`, `reliable`, events
        `sent` and `counted` of the good one, its latency `alone` and `beside`, `peak_mb` of the
        consumer in both, its metrics' `series`, what it counted, and what the hostile one sent.

    Raises:
        WorkerError: if a process fails.
    """
    capacity, rate_hz = None, settings.rate_hz
    if not rate_hz:
        with tempfile.TemporaryDirectory() as folder:
            full = Feed(0.0, _CAPACITY_S, 0.0, settings.per_message)
            capacity = capacity_hz(served, full, Way(), Path(folder))
        rate_hz = settings.share * capacity
    cases = [
        (kind, reliable)
        for reliable in settings.reliable
        for kind in settings.kinds
        if not (reliable and kind in NOT_RELIABLE and False in settings.reliable)
    ]
    progress, runs = Progress(len(cases), "kinds"), []
    for kind, reliable in cases:
        runs.append(_Case(served, settings, rate_hz, kind, reliable=reliable).run())
        progress.advance(1, kind)
    progress.close()
    return {"capacity_hz": capacity, "rate_hz": rate_hz, "runs": runs}


class _Case:
    """One kind of hostility.

    Args:
        served: how the consumer runs.
        settings: what is measured.
        rate_hz: of the good producer.
        kind: of hostility.
        reliable: whether messages are acknowledged.
    """

    def __init__(
        self, served: Served, settings: Settings, rate_hz: float, kind: str, *, reliable: bool
    ) -> None:
        self._served, self._settings = served, settings
        self._kind, self._way = kind, Way(reliable=reliable)
        total_s = settings.alone_s + settings.beside_s + 2 * settings.begin_s
        self._feed = Feed(rate_hz, total_s, settings.warm_up_s, settings.per_message)
        self._endpoint = free_endpoint()
        self._address = free_endpoint().removeprefix("tcp://")

    def run(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            keys = make_keys(folder) if self._kind == "uninvited" else NO_KEYS
            words = (
                *("bench.hostile_consumer", folder / "rows.json", "--engine", self._served.engine),
                *("--device", self._served.device, "--endpoint", self._endpoint),
                *("--http", self._address, "--results", folder / "results.jsonl"),
                *("--log-level", "WARNING", *keys.consumer, *self._way.consumer_words(folder)),
                *self._served.options,
            )
            attack = (
                *("bench.hostile_peer", "--kind", self._kind, "--endpoint", self._endpoint),
                *("--http", self._address, "--when", folder, *keys.hostile),
                *(("--reliable",) if self._way.reliable else ()),
            )
            with start(*words) as process, start(*attack) as other:
                wait_until_ready(self._address, process)
                _wait_until(folder / "ready", process, other)
                found = self._stream(process, other, keys.good, folder / "go")
                process.process.send_signal(signal.SIGTERM)
                process.finish(_END_S)
            rows = np.array(json.loads((folder / "rows.json").read_text()), dtype=np.float64)
        return self._record(found, rows.reshape(-1, 3))

    def _stream(
        self, consumer: Process, other: Process, good: Sequence[object], go: Path
    ) -> dict[str, Any]:
        """Let the good one send, and for a while the other one; return figures and times."""
        pid, settings = consumer.process.pid, self._settings
        words = (*feed_words(self._feed, self._endpoint), "--source", GOOD, *good)
        with start(*words, *self._way.producer_words(Path())) as load:
            _wait_for_events(self._address, load, consumer)
            begun_ns = time.time_ns()
            time.sleep(settings.alone_s)
            alone = {"peak_mb": usage(pid).peak_bytes / _MB, "series": len(self._scrape())}
            forget_peak(pid)
            started_ns = time.time_ns()
            go.touch()
            time.sleep(settings.begin_s + settings.beside_s)
            other.check()
            stopped_ns = time.time_ns()
            other.process.send_signal(signal.SIGTERM)
            sent = json.loads(other.finish(_END_S, needs=consumer))["sent"]
            report: dict[str, Any] = json.loads(load.finish(_END_S, needs=consumer))
        last = self._settled(report["events"])
        return {
            "events": report["events"],
            "alone_ns": (begun_ns + 1e9 * settings.warm_up_s, started_ns),
            "beside_ns": (started_ns + 1e9 * settings.begin_s, stopped_ns),
            "alone": alone,
            "beside": {"peak_mb": usage(pid).peak_bytes / _MB, "series": len(last)},
            "hostile_sent": sent,
            "seconds": (stopped_ns - started_ns) / 1e9,
            "last": last,
        }

    def _scrape(self) -> Scrape:
        return scrape(self._address)

    def _settled(self, n_events: int) -> Scrape:
        """Return the metrics once all good events are counted, or no more come."""
        until_s = still_s = time.monotonic() + _END_S
        before = -1.0
        while True:
            last = self._scrape()
            counted = last.total("source_events_total", source=GOOD)
            now_s = time.monotonic()
            if counted != before:
                before, still_s = counted, now_s + _STILL_S
            if counted >= n_events or now_s > min(still_s, until_s):
                return last
            time.sleep(_POLL_S)

    def _record(self, found: dict[str, Any], rows: "np.ndarray[Any, Any]") -> dict[str, Any]:
        last: Scrape = found["last"]
        counted = int(rows[:, 1].sum())
        accepted = last.by("source_events_total", "source")
        return {
            "kind": self._kind,
            "reliable": self._way.reliable,
            "sent": found["events"],
            "counted": counted,
            "all_counted": counted == found["events"],
            "alone": {**found["alone"], **_quantiles(rows, found["alone_ns"])},
            "beside": {**found["beside"], **_quantiles(rows, found["beside_ns"])},
            "hostile_sent": found["hostile_sent"],
            "hostile_s": found["seconds"],
            "hostile_events_accepted": int(sum(accepted.values()) - accepted.get(GOOD, 0)),
            "rejected": {
                key: int(n) for key, n in last.by("rejected_messages_total", "reason").items()
            },
            **{key: int(last.total(name)) for key, name in _COUNTS.items()},
        }


def _wait_until(path: Path, *processes: Process) -> None:
    until_s = time.monotonic() + _END_S
    while not path.exists():
        for process in processes:
            process.check()
        if time.monotonic() > until_s:
            msg = f"the hostile producer must start within {_END_S:.0f} s; it did not"
            raise WorkerError(msg)
        time.sleep(_POLL_S)


def _wait_for_events(address: str, load: Process, consumer: Process) -> None:
    until_s = time.monotonic() + _END_S
    while not scrape(address).total("source_events_total", source=GOOD):
        load.check()
        consumer.check()
        if time.monotonic() > until_s:
            msg = f"events must arrive within {_END_S:.0f} s; none did; see the consumer's log"
            raise WorkerError(msg)
        time.sleep(_POLL_S)


def _quantiles(
    rows: "np.ndarray[Any, Any]", between_ns: tuple[float, float]
) -> dict[str, float | None]:
    """Return quantiles of the latency of messages produced between two times."""
    took = rows[(rows[:, 0] >= between_ns[0]) & (rows[:, 0] < between_ns[1]), 2]
    if not len(took):
        return dict.fromkeys(("p50_s", "p99_s", "max_s"))
    p50, p99 = np.quantile(took, (0.5, 0.99)).tolist()
    return {"p50_s": p50, "p99_s": p99, "max_s": float(took.max())}
