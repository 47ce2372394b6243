"""Streams with processes that are killed, and what came of every event."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.processes import Process, free_endpoint, start
from engines.errors import WorkerError
from engines.progress import Progress

__all__ = ["measure"]

_SOURCE = "kills"
_BATCH = 256
#: For everything to arrive: so long, and as long as a slow machine takes for the events.
_END_S, _SLOW_HZ = 120.0, 10_000.0
_Start: TypeAlias = Callable[[], AbstractContextManager[Process]]


@dataclass
class _Stream:
    """A producer, what it streams to, and their files; each may be started any number of times."""

    folder: Path
    options: argparse.Namespace
    n_events: int
    endpoint: str = field(default_factory=free_endpoint)
    tester_endpoint: str = field(default_factory=free_endpoint)

    def makers(self, rate_hz: float, *, roles: bool) -> dict[str, _Start]:
        """Return what starts each process, by its name, the last one to end last."""
        producer = partial(self._producer, rate_hz)
        if roles:
            embed = partial(self._embedder, self.endpoint, self.tester_endpoint)
            tester = partial(self._tester, self.tester_endpoint, "--role", "test")
            return {"producer": producer, "embedder": embed, "tester": tester}
        engine = ("--engine", self.options.engine)
        return {"producer": producer, "consumer": partial(self._tester, self.endpoint, *engine)}

    def _tester(self, endpoint: str, *words: object) -> AbstractContextManager[Process]:
        return start(
            *("stream.consumer", *words, "--reference", self.options.engine.with_suffix(".ref")),
            *("--reliable", "--state", self.folder / "state", "--http", "off", "--exit-on-end"),
            *("--results", self.folder / "results.jsonl", "--max-waiting", 1000),
            *("--endpoint", endpoint),
        )

    def _embedder(self, endpoint: str, tester: str) -> AbstractContextManager[Process]:
        return start(
            *("stream.consumer", "--role", "embed", "--engine", self.options.engine, "--reliable"),
            *("--endpoint", endpoint, "--forward", tester, "--http", "off"),
        )

    def _producer(self, rate_hz: float) -> AbstractContextManager[Process]:
        spool = ("--spool", self.folder / "spool") if self.options.spool else ()
        return start(
            *("stream.producer", self.options.events, "--loop", "--events", self.n_events),
            *("--rate", rate_hz, "--batch", _BATCH, "--source", _SOURCE, "--reliable", *spool),
            *("--endpoint", self.endpoint),
        )

    def windows(self) -> list[dict[str, Any]]:
        """Return the results; a torn line raises."""
        lines = (self.folder / "results.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def measure(options: argparse.Namespace, victims: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Kill as asked; return the figures and a text.

    Args:
        options: of the command.
        victims: names of the processes that are killed, in turn.

    Raises:
        WorkerError: if a process fails otherwise than by a kill.
    """
    rng = np.random.default_rng(options.seed)
    lives_s = rng.uniform(0.05, options.longest, options.kills)
    n_events = int(options.rate * lives_s.sum() // _BATCH * _BATCH) or _BATCH
    end_s = _END_S + n_events / _SLOW_HZ
    roles = "embedder" in victims
    with tempfile.TemporaryDirectory() as folder:
        calm = _Stream(Path(folder) / "calm", options, n_events)
        calm.folder.mkdir()
        _disturb(calm.makers(0, roles=roles), (), [], end_s)
        torn = _Stream(Path(folder) / "killed", options, n_events)
        torn.folder.mkdir()
        started = time.monotonic()
        n_kills = _disturb(torn.makers(options.rate, roles=roles), victims, lives_s.tolist(), end_s)
        seconds = time.monotonic() - started
        results = _compare(calm.windows(), torn.windows(), n_events)
    results |= {"kills": n_kills, "seconds": seconds}
    return results, _text(results, options.victim)


def _disturb(
    makers: Mapping[str, _Start], victims: Sequence[str], lives_s: Sequence[float], end_s: float
) -> int:
    """Stream, with kills, until everything has arrived; return how often a victim was killed."""
    bar = Progress(len(lives_s), "kills") if lives_s else None
    with ExitStack() as stack:
        processes = {name: stack.enter_context(make()) for name, make in makers.items()}
        for place, life_s in enumerate(lives_s):
            name = victims[place % len(victims)]
            time.sleep(life_s)
            victim = processes[name].process
            if victim.poll() is not None:
                processes[name].check()
                msg = f"the {name} must live to be killed; the stream has ended; raise --rate"
                raise WorkerError(msg)
            victim.kill()
            victim.wait()
            processes[name] = stack.enter_context(makers[name]())
            if bar is not None:
                bar.advance(1)
        if bar is not None:
            bar.close()
        # The producer ends when all is acknowledged, the last one when the source has ended.
        last = list(processes.values())[-1]
        processes["producer"].finish(end_s, needs=last)
        last.finish(end_s)
    return len(lives_s)


def _compare(
    calm: list[dict[str, Any]], torn: list[dict[str, Any]], n_events: int
) -> dict[str, Any]:
    contents = [[(one["window"], one["spans"]) for one in windows] for windows in (calm, torn)]
    counted = [interval for one in torn for interval in _intervals(one)]
    t = np.array([[a["t"], b["t"]] for a, b in zip(calm, torn, strict=False)])
    trials = [one["trials"] for one in torn]
    return {
        "events_sent": n_events,
        "events_in_windows": sum(one["n_events"] for one in torn),
        "events_of_the_last_window": n_events - sum(one["n_events"] for one in calm),
        "windows": len(torn),
        "windows_undisturbed": len(calm),
        "same_contents": contents[0] == contents[1],
        "each_event_once": _is_partition(counted),
        "trials_without_a_gap": trials == list(range(1, len(trials) + 1)),
        "largest_difference_of_t": float(np.abs(np.diff(t)).max()) if len(t) else 0.0,
    }


def _intervals(window: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield the first event that a span holds, counted from the source's first, and the next."""
    for span in window["spans"]:
        yield (
            span["first_seq"] * _BATCH + span["first_event"],
            span["last_seq"] * _BATCH + span["stop_event"],
        )


def _is_partition(intervals: list[tuple[int, int]]) -> bool:
    """Return whether intervals follow each other from 0 on, none missing and none twice."""
    stops = [0, *(stop for _, stop in intervals)]
    return [start for start, _ in intervals] == stops[:-1]


def _text(results: dict[str, Any], victim: str) -> str:
    good = results["same_contents"] and results["each_event_once"]
    return (
        f"{results['kills']} kills of the {victim} in {results['seconds']:.0f} s: "
        f"{results['events_in_windows']} of {results['events_sent']} events in "
        f"{results['windows']} windows ({results['events_of_the_last_window']} in the open one), "
        f"{'each once, contents as undisturbed' if good else 'LOST, DOUBLED OR MOVED'}; "
        f"t differs by at most {results['largest_difference_of_t']:.2g}; trials "
        f"{'without a gap' if results['trials_without_a_gap'] else 'WITH GAPS'}\n"
    )
