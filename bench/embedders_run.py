"""One tester with several embedders, each on a machine of its own, beside a single consumer."""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.embedders_net import Machine, network
from bench.processes import Process
from bench.reliability_run import Streamed, feed_words
from bench.spread import spread
from bench.stream_run import Feed
from engines.errors import WorkerError
from engines.progress import Progress

__all__ = ["Settings", "measure"]

_END_S = 180.0
_SETTLING_EVENTS = 50_000
_SENDS, _EMBEDS = "producer-{}", "embedder-{}"
_TESTER = "tester"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        engine: the encoder; its reference stands beside it.
        n_embedders: how many, each with a producer.
        feed: what each producer sends.
        repeat: rounds, in which both arrangements take their turn.
        reliable: whether messages are acknowledged once the tester has them on its disk.
    """

    engine: Path
    n_embedders: int
    feed: Feed
    repeat: int
    reliable: bool = True


@dataclass(frozen=True)
class _Run:
    """What came of one: the stream's figures, bytes by link, and whether each event is in once."""

    streamed: Streamed
    to_first: int
    to_tester: int
    n_events: int
    windows: dict[str, Any]


def measure(settings: Settings) -> dict[str, Any]:
    """Let embedders with a tester, and a single consumer of the same producers, take turns.

    Returns:
        `embedders` and `single`, each with `events_hz`, `cpu_s_per_million` of the process that
        tests, `bytes_an_event` on the wire from the producers and, with embedders, on to the
        tester, and `windows`, by run, with `each_event_once`; `load_before`.

    Raises:
        EngineUnavailableError: if this system lets nobody make network namespaces.
        ParameterError: if the user may not.
        WorkerError: if a process fails, or not each event is counted once.
    """
    load_before, progress = os.getloadavg()[0], Progress(2 * settings.repeat, "runs")
    runs: dict[bool, list[_Run]] = {True: [], False: []}
    numbers = range(settings.n_embedders)
    names = [_TESTER, *map(_EMBEDS.format, numbers), *map(_SENDS.format, numbers)]
    with network(names) as machines:
        for _ in range(settings.repeat):
            for embedders, of_kind in runs.items():
                of_kind.append(_run(settings, machines, embedders=embedders))
                progress.advance(1, f"{of_kind[-1].streamed.rate_hz:.0f} events/s")
    progress.close()
    return {
        "load_before": load_before,
        "embedders": _record(runs[True]),
        "single": _record(runs[False]),
    }


def _record(runs: Sequence[_Run]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "runtime": runs[0].streamed.runtime,
        "events_hz": spread([run.streamed.rate_hz for run in runs]),
        "cpu_s_per_million": spread([run.streamed.cpu_s_per_million for run in runs]),
        "bytes_an_event": {"producer": spread([run.to_first / run.n_events for run in runs])},
        "windows": [run.windows for run in runs],
        "events": [run.n_events for run in runs],
    }
    if any(run.to_tester for run in runs):
        to_tester = [run.to_tester / run.n_events for run in runs]
        record["bytes_an_event"]["tester"] = spread(to_tester)
    return record


def _run(settings: Settings, machines: Mapping[str, Machine], *, embedders: bool) -> _Run:
    tester, numbers = machines[_TESTER], range(settings.n_embedders)
    producers = [machines[_SENDS.format(number)] for number in numbers]
    middle = [machines[_EMBEDS.format(number)] for number in numbers] if embedders else []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        words = _tester_words(settings, folder, tester, embedders=embedders)
        last = stack.enter_context(tester.start(*words))
        stages = [
            stack.enter_context(one.start(*_embedder_words(settings, one, tester)))
            for one in middle
        ]
        sent = [one.traffic().sent_bytes for one in producers]
        received = tester.traffic().received_bytes
        loads = _send(settings, producers, middle or [tester] * len(producers), [last, *stages])
        last.finish(_END_S)
        n_events = sum(load["events"] for load in loads)
        to_first = sum(one.traffic().sent_bytes for one in producers) - sum(sent)
        to_tester = tester.traffic().received_bytes - received if embedders else 0
        load = {"producers": loads}
        streamed = Streamed.read(load, n_events, folder / "timings.json")
        windows = _windows(folder / "results.jsonl", settings.feed.per_message, n_events)
    return _Run(streamed, to_first, to_tester, n_events, windows)


def _send(
    settings: Settings,
    producers: Sequence[Machine],
    receivers: Sequence[Machine],
    needed: Sequence[Process],
) -> list[dict[str, Any]]:
    """Let all producers send at once; return their reports."""
    with ExitStack() as stack:
        loads = []
        for place, (one, receiver) in enumerate(zip(producers, receivers, strict=True)):
            words = (*feed_words(settings.feed, receiver.endpoint), "--source", f"daq-{place}")
            how = ("--reliable",) if settings.reliable else ()
            loads.append(stack.enter_context(one.start(*words, *how)))
        until_s = time.monotonic() + _END_S + 10 * settings.feed.duration_s
        while any(load.process.poll() is None for load in loads):
            for process in (*loads, *needed):
                process.check()
            if time.monotonic() > until_s:
                msg = "the producers must end; they still send; give a shorter --duration"
                raise WorkerError(msg)
            time.sleep(0.05)
        return [json.loads(load.finish(_END_S)) for load in loads]


def _tester_words(
    settings: Settings, folder: Path, tester: Machine, *, embedders: bool
) -> tuple[object, ...]:
    role = ("--role", "test") if embedders else ("--engine", settings.engine)
    reliable = ("--reliable", "--state", folder / "state") if settings.reliable else ()
    return (
        *("stream.consumer", *role, "--reference", settings.engine.with_suffix(".ref"), *reliable),
        *("--endpoint", tester.endpoint, "--http", "off", "--exit-on-end"),
        *("--log-level", "WARNING", "--results", folder / "results.jsonl"),
        *("--timings", folder / "timings.json", "--timings-skip", _SETTLING_EVENTS),
    )


def _embedder_words(settings: Settings, one: Machine, tester: Machine) -> tuple[object, ...]:
    return (
        *("stream.consumer", "--role", "embed", "--engine", settings.engine, "--http", "off"),
        *("--endpoint", one.endpoint, "--forward", tester.endpoint, "--log-level", "WARNING"),
        *(("--reliable",) if settings.reliable else ()),
    )


def _windows(results: Path, per_message: int, n_events: int) -> dict[str, Any]:
    """Return the windows' account: whether what they hold is each source's stream, once.

    Windows that were skipped have no line: their events are `events_elsewhere`, as are those of the
    window that was open at the end.
    """
    windows = [json.loads(line) for line in results.read_text().splitlines()]
    windows = [window for window in windows if window["scale"] == 1]
    intervals: dict[str, list[tuple[int, int]]] = {}
    for window in windows:
        for span in window["spans"]:
            first = span["first_seq"] * per_message + span["first_event"]
            stop = span["last_seq"] * per_message + span["stop_event"]
            intervals.setdefault(span["source"], []).append((first, stop))
    held = sum(stop - first for of_one in intervals.values() for first, stop in of_one)
    apart = all(
        before <= after
        for of_one in intervals.values()
        for (_, before), (after, _) in pairwise(of_one)
    )
    whole = held == sum(window["n_events"] for window in windows)
    return {
        "tested": len(windows),
        "sources": sorted(intervals),
        "events_in_windows": held,
        "events_elsewhere": n_events - held,
        "each_event_once": apart and whole and all(window["n_missing"] == 0 for window in windows),
    }
