"""What it costs to lose nothing: rates that take turns, and the time to an acknowledgement."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from bench.hdr import Recording
from bench.reliability_run import Streamed, Way, run_way
from bench.spread import spread
from bench.stream_run import Feed, Served
from engines.errors import ArtifactError
from engines.progress import Progress

__all__ = ["PLAIN", "WAYS", "Settings", "measure"]

#: The way that the others are compared with.
PLAIN = "pull"
#: By name: how messages are delivered, and in which places the state and the spool lie.
WAYS: dict[str, tuple[Way, str]] = {
    PLAIN: (Way(), "disk"),
    "pull, state in memory": (Way(state=True), "memory"),
    "pull, state": (Way(state=True), "disk"),
    "reliable in memory": (Way(reliable=True), "memory"),
    "reliable": (Way(reliable=True), "disk"),
    "reliable, spool, in memory": (Way(reliable=True, spool=True), "memory"),
    "reliable, spool": (Way(reliable=True, spool=True), "disk"),
}
_SETTLING_EVENTS = 50_000
_N_SYNCS, _SYNC_BYTES = 100, 1 << 16


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        per_message: events in a message, one size after the other.
        duration_s: of each run, the warm-up included.
        warm_up_s: of it.
        repeat: rounds; in each everything takes its turn.
        latency_hz: events a second at which acknowledgements are timed.
        disk, memory: folders, the second of a file system without a disk.
    """

    per_message: tuple[int, ...]
    duration_s: float
    warm_up_s: float
    repeat: int
    latency_hz: float
    disk: Path
    memory: Path

    def place(self, name: str) -> Path:
        """Return the folder of a way's place."""
        return self.memory if name == "memory" else self.disk


def measure(served: Served, settings: Settings) -> dict[str, Any]:
    """Let all ways of delivery take turns.

    Returns:
        `places`, what the folders are and how long a sync of 64 KiB takes there; `rates` by events
        a message, of each way its `events_hz`, its `share` of plain PULL in the same round, and the
        consumer's `cpu_s_per_million`; `acknowledgements` by events a message, of each reliable
        way the summary of the seconds from `send` to the acknowledgement; `load_before`.

    Raises:
        WorkerError: if a process fails, or not each event is counted once.
        ArtifactError: if a folder cannot be written.
    """
    reliable = [name for name, (way, _) in WAYS.items() if way.reliable]
    n_runs = len(settings.per_message) * settings.repeat * (len(WAYS) + len(reliable))
    progress, load_before = Progress(n_runs, "runs"), os.getloadavg()[0]
    places = {name: _place(settings.place(name)) for name in ("disk", "memory")}
    rates, acknowledgements, runtime = {}, {}, ""
    for size in settings.per_message:
        full: dict[str, list[Streamed]] = defaultdict(list)
        timed: dict[str, list[Streamed]] = defaultdict(list)
        for _ in range(settings.repeat):
            for name in WAYS:
                full[name].append(_run(served, settings, name, size, 0.0))
                progress.advance(1, f"{name} {full[name][-1].rate_hz:.0f} events/s")
            for name in reliable:
                timed[name].append(_run(served, settings, name, size, settings.latency_hz))
                progress.advance(1, name)
        rates[str(size)] = _rates(full)
        acknowledgements[str(size)] = {name: _times(runs) for name, runs in timed.items()}
        runtime = full[PLAIN][0].runtime
    progress.close()
    return {
        "runtime": runtime,
        "load_before": load_before,
        "places": places,
        "rates": rates,
        "acknowledgements": acknowledgements,
    }


def _run(served: Served, settings: Settings, name: str, size: int, rate_hz: float) -> Streamed:
    way, place = WAYS[name]
    folder = settings.place(place)
    feed = Feed(rate_hz, settings.duration_s, settings.warm_up_s, size)
    skip = round(rate_hz * settings.warm_up_s) if rate_hz else _SETTLING_EVENTS
    return run_way(served, feed, way, (folder, folder), skip_events=skip)


def _rates(runs: Mapping[str, Sequence[Streamed]]) -> dict[str, Any]:
    plain = [run.rate_hz for run in runs[PLAIN]]
    return {
        name: {
            "events_hz": spread([run.rate_hz for run in of_way]),
            "share": spread(
                [run.rate_hz / of_plain for run, of_plain in zip(of_way, plain, strict=True)]
            ),
            "cpu_s_per_million": spread([run.cpu_s_per_million for run in of_way]),
            "windows_tested": sum(run.tested for run in of_way),
            "windows_skipped": sum(run.skipped for run in of_way),
        }
        for name, of_way in runs.items()
    }


def _times(runs: Sequence[Streamed]) -> dict[str, Any]:
    recordings = [Recording.from_counts(run.load["acknowledged"]) for run in runs]
    summary = Recording.merged(recordings).summary()
    summary["messages"] = summary.pop("events")
    summary["p99_by_run_s"] = spread([one.quantile_s(0.99) for one in recordings])
    return summary


def _place(folder: Path) -> dict[str, Any]:
    """Return a folder's file system, and seconds that 64 KiB take to be written and synced."""
    block, took = os.urandom(_SYNC_BYTES), []
    try:
        with NamedTemporaryFile(dir=folder) as file:
            for _ in range(_N_SYNCS):
                started = time.perf_counter()
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - started)
    except OSError as exc:
        msg = f"cannot write in {folder} ({exc}); choose folders that are writable"
        raise ArtifactError(msg) from exc
    p50, p99 = np.quantile(took, (0.5, 0.99)).tolist()
    return {"file_system": _file_system(folder), "sync_p50_s": p50, "sync_p99_s": p99}


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [str(one) for one in (folder.resolve(), *folder.resolve().parents)]
    # The longest path that holds it; of two at one path the later one hides the other.
    holding = [(len(words[1]), place) for place, words in enumerate(mounts) if words[1] in above]
    return mounts[max(holding)[1]][2] if holding else "unknown"
