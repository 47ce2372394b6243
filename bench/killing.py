"""Streams with processes that are killed, and what came of every event."""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
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
#: The undisturbed stream, and the rest after the last kill: what tests keep up with.
_CALM_HZ = 30_000.0
#: A process is at work again when the state was written so often.
_N_WRITES, _START_S = 10, 60.0
_SHORTEST_S = 0.05
_OPEN = re.compile(r"(\d+) events of an unfinished window kept")
#: Starts take longer while others are being killed.
_SPARE = 2.0
_Start: TypeAlias = Callable[[], AbstractContextManager[Process]]


@dataclass
class _Stream:
    """A producer, what it streams to, and their files; each may be started any number of times."""

    folder: Path
    options: argparse.Namespace
    n_events: int
    endpoint: str = field(default_factory=free_endpoint)
    tester_endpoint: str = field(default_factory=free_endpoint)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder.mkdir()

    def makers(self, rate_hz: float, *, roles: bool) -> dict[str, _Start]:
        """Return what starts each process, by its name, the last one to end last."""
        producer = partial(self.producer, rate_hz)
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
            *("--results", self.folder / "results.jsonl", "--max-waiting", 100_000),
            *("--endpoint", endpoint),
        )

    def _embedder(self, endpoint: str, tester: str) -> AbstractContextManager[Process]:
        return start(
            *("stream.consumer", "--role", "embed", "--engine", self.options.engine, "--reliable"),
            *("--endpoint", endpoint, "--forward", tester, "--http", "off"),
        )

    def producer(self, rate_hz: float) -> AbstractContextManager[Process]:
        spool = ("--spool", self.folder / "spool") if self.options.spool else ()
        return start(
            *("stream.producer", self.options.events, "--loop", "--events", self.n_events),
            *("--rate", rate_hz, "--batch", _BATCH, "--source", _SOURCE, "--reliable", *spool),
            *("--endpoint", self.endpoint),
        )

    def await_work(self, processes: Iterable[Process]) -> float:
        """Wait until messages are kept, again; return the seconds that it took.

        Raises:
            WorkerError: if that takes too long, or one of the processes has failed.
        """
        log, started = self.folder / "state" / "run.sqlite-wal", time.monotonic()
        times: set[int] = set()
        while len(times) < _N_WRITES:
            for process in processes:
                process.check()
            if time.monotonic() - started > _START_S:
                msg = f"messages must be kept within {_START_S:g} s of a start; none are"
                raise WorkerError(msg)
            with suppress(FileNotFoundError):
                times.add(log.stat().st_mtime_ns)
            time.sleep(0.01)
        return time.monotonic() - started

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
        WorkerError: if a process fails otherwise than by a kill, or windows were skipped without
            one.
    """
    rng = np.random.default_rng(options.seed)
    at_work = rng.permutation(options.kills) % 2 == 0
    roles = "embedder" in victims
    with tempfile.TemporaryDirectory() as folder:
        start_s = _try_out(_Stream(Path(folder) / "trial", options, 2**40), roles=roles)
        # Into loading and recovery too, and a little after them.
        longest_s = options.longest + np.where(at_work, 0.0, start_s)
        lives_s = rng.uniform(_SHORTEST_S, longest_s)
        seconds = lives_s.sum() + _SPARE * at_work.sum() * start_s
        n_events = int(options.rate * seconds // _BATCH * _BATCH) or _BATCH
        calm = _Stream(Path(folder) / "calm", options, n_events)
        n_open = [_disturb(calm, calm.makers(_CALM_HZ, roles=roles), (), [])]
        _check_whole(calm.windows())
        torn = _Stream(Path(folder) / "killed", options, n_events)
        started = time.monotonic()
        lives = list(zip(lives_s.tolist(), at_work.tolist(), strict=True))
        n_open.append(_disturb(torn, torn.makers(options.rate, roles=roles), victims, lives))
        seconds = time.monotonic() - started
        results = _compare(calm.windows(), torn.windows(), n_open, n_events)
    results |= {
        "kills": len(lives),
        "kills_counted_from_work": int(at_work.sum()),
        "start_s": start_s,
        "seconds": seconds,
    }
    return results, _text(results, options.victim)


def _try_out(stream: _Stream, *, roles: bool) -> float:
    """Return how long a start takes."""
    with ExitStack() as stack:
        makers = stream.makers(stream.options.rate, roles=roles).values()
        return stream.await_work([stack.enter_context(make()) for make in makers])


def _disturb(
    stream: _Stream,
    makers: Mapping[str, _Start],
    victims: Sequence[str],
    lives: Sequence[tuple[float, bool]],
) -> int:
    """Stream, with kills, until everything has arrived; return the events of the open window.

    Args:
        stream: what is to arrive, and where.
        makers: what starts each process.
        victims: who is killed, in turn.
        lives: seconds until each kill, and whether they begin only when the stream goes on.
    """
    bar = Progress(len(lives), "kills") if lives else None
    end_s = _END_S + stream.n_events / _SLOW_HZ
    with ExitStack() as stack:
        processes = {name: stack.enter_context(make()) for name, make in makers.items()}

        def kill(name: str, make: _Start) -> None:
            victim = processes[name].process
            if victim.poll() is not None:
                processes[name].check()
                msg = f"the {name} must live to be killed; the stream has ended; raise --rate"
                raise WorkerError(msg)
            victim.kill()
            victim.wait()
            processes[name] = stack.enter_context(make())

        for place, (life_s, at_work) in enumerate(lives):
            if at_work:
                stream.await_work(processes.values())
            time.sleep(life_s)
            name = victims[place % len(victims)]
            kill(name, makers[name])
            if bar is not None:
                bar.advance(1)
        if bar is not None:
            bar.close()
            kill("producer", partial(stream.producer, _CALM_HZ))
        # The producer ends when all is acknowledged, the last one when the source has ended.
        last = list(processes.values())[-1]
        processes["producer"].finish(end_s, needs=last)
        found = _OPEN.search(last.finish(end_s))
    if found is None:
        msg = "the summary must say what the open window holds; it does not"
        raise WorkerError(msg)
    return int(found[1])


def _check_whole(calm: list[dict[str, Any]]) -> None:
    """Raise a WorkerError if the stream to compare with lacks windows: tests did not keep up."""
    n_skipped = calm[-1]["window"] - calm[0]["window"] + 1 - len(calm) if calm else 0
    if n_skipped:
        msg = f"{n_skipped} windows were skipped without a kill; compare on a quieter machine"
        raise WorkerError(msg)


def _compare(
    calm: list[dict[str, Any]], torn: list[dict[str, Any]], n_open: list[int], n_events: int
) -> dict[str, Any]:
    contents = [[(one["window"], one["spans"]) for one in windows] for windows in (calm, torn)]
    counted = [interval for one in torn for interval in _intervals(one)]
    t = np.array([[a["t"], b["t"]] for a, b in zip(calm, torn, strict=False)])
    trials = [one["trials"] for one in torn]
    return {
        "events_sent": n_events,
        "events_in_windows": sum(one["n_events"] for one in torn),
        "events_in_the_open_window": n_open[1],
        "events_in_the_open_window_undisturbed": n_open[0],
        "windows": len(torn),
        "windows_undisturbed": len(calm),
        "same_contents": contents[0] == contents[1] and n_open[0] == n_open[1],
        "each_event_once": _is_partition(counted)
        and sum(one["n_events"] for one in torn) + n_open[1] == n_events,
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
        f"{results['kills']} kills of the {victim} in {results['seconds']:.0f} s, "
        f"{results['kills_counted_from_work']} of them at work: "
        f"{results['events_in_windows']} of {results['events_sent']} events in "
        f"{results['windows']} windows, {results['events_in_the_open_window']} in the open one, "
        f"{'each once, contents as undisturbed' if good else 'LOST, DOUBLED OR MOVED'}; "
        f"t differs by at most {results['largest_difference_of_t']:.2g}; trials "
        f"{'without a gap' if results['trials_without_a_gap'] else 'WITH GAPS'}\n"
    )
