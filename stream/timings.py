"""A fine record of latencies and of CPU time, for measurements: `stream-consumer --timings FILE`.

Latencies are kept as in an HdrHistogram (hdrhistogram.org): buckets of equal width within each
power of two, so that every value is known to one part in a thousand, whatever its size.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import ArtifactError
from engines.types import IntArray

__all__ = ["Timings", "highest_equivalent_ns"]

#: 2^10 buckets in each power of two.
_SUB_BUCKET_BITS = 10
#: Messages are sorted into buckets so many at a time.
_FOLD = 4096


def highest_equivalent_ns(values_ns: IntArray) -> IntArray:
    """Return the largest value, up to 2^53, that shares its bucket with each of these.

    >>> highest_equivalent_ns(np.array([1000, 1_000_000])).tolist()
    [1000, 1000447]
    """
    shift = np.maximum(np.frexp(values_ns)[1] - 1 - _SUB_BUCKET_BITS, 0)
    return np.asarray((((values_ns >> shift) + 1) << shift) - 1)


class Timings:
    """Latencies of events by stage, and the CPU time of the parts of the process.

    Args:
        path: the file that `save` writes.
        names: of a message's durations, in the order in which they are added.
        skip_events: events to leave out at the start: a warm-up.
    """

    def __init__(self, path: Path, names: Sequence[str], skip_events: int = 0) -> None:
        """Start the account when the first events have been skipped."""
        self._path, self._names, self._left_out = path, tuple(names), skip_events
        self._counts: list[Counter[int]] = [Counter() for _ in self._names]
        self._started: dict[str, Any] | None = None
        self._stopped: dict[str, Any] | None = None
        self._n_events = 0
        self._rows: list[tuple[float, ...]] = []
        self._engine_cpu_s = 0.0

    @contextmanager
    def engine_cpu(self) -> Iterator[None]:
        """Count the CPU time of what this thread does within as the engine's."""
        started_s = time.thread_time()
        yield
        self._engine_cpu_s += time.thread_time() - started_s

    def add(self, n_events: int, durations_s: Sequence[float]) -> None:
        """Count a message's events at its durations."""
        if self._left_out > 0:
            self._left_out -= n_events
            return
        if self._started is None:
            self._started = self._clocks()
        self._n_events += n_events
        self._rows.append((n_events, *durations_s))
        if len(self._rows) >= _FOLD:
            self._fold()

    def _fold(self) -> None:
        n_events, *columns = np.array(self._rows).reshape(-1, 1 + len(self._names)).T
        self._rows.clear()
        for counts, seconds in zip(self._counts, columns, strict=True):
            values_ns = np.maximum(np.rint(1e9 * seconds), 0).astype(np.int64)
            buckets, places = np.unique(highest_equivalent_ns(values_ns), return_inverse=True)
            totals = np.bincount(places, n_events).astype(int)
            for bucket, total in zip(buckets.tolist(), totals.tolist(), strict=True):
                counts[bucket] += total

    def stop(self) -> None:
        """End the account, while the threads that it covers still live."""
        self._stopped = self._clocks()

    def save(self, **facts: object) -> None:
        """Write everything as JSON.

        Args:
            facts: added as they are.

        Raises:
            ArtifactError: if the file cannot be written.
        """
        self._fold()
        now = self._stopped or self._clocks()
        started = self._started or now
        threads = {
            name: now["threads"][name] - started["threads"].get(name, 0.0)
            for name in now["threads"]
        }
        record = {
            "stages": dict(zip(self._names, map(dict, self._counts), strict=True)),
            "events": self._n_events,
            "wall_s": now["wall"] - started["wall"],
            "cpu_s": {
                "process": now["process"] - started["process"],
                "engine": now["engine"] - started["engine"],
                **threads,
            },
            **facts,
        }
        try:
            self._path.write_text(json.dumps(record) + "\n")
        except OSError as exc:
            msg = f"cannot write {self._path} ({exc}); choose a folder that is writable"
            raise ArtifactError(msg) from exc

    def _clocks(self) -> dict[str, Any]:
        return {
            "wall": time.perf_counter(),
            "process": time.process_time(),
            "engine": self._engine_cpu_s,
            "threads": _cpu_by_thread(),
        }


def _cpu_by_thread() -> dict[str, float]:
    """Return the CPU seconds so far of the threads, those of one kind together; Linux only.

    Python's threads go by the names that they have in Python, others by those of the system.
    """
    ours = {thread.native_id: thread.name for thread in threading.enumerate()}
    spent: dict[str, float] = {}
    tasks = Path("/proc/self/task")
    for task in tasks.iterdir() if tasks.is_dir() else ():
        try:
            cpu_s = int((task / "schedstat").read_text().split()[0]) / 1e9
            name = ours.get(int(task.name)) or (task / "comm").read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        kind = "ZMQ" if name.startswith("ZMQ") else name.partition("_")[0]
        spent[kind] = spent.get(kind, 0.0) + cpu_s
    return spent
