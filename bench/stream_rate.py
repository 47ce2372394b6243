"""The rate that the stream sustains end to end, beside what its engine and the bare wire allow."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.embedding import EngineRate
from bench.processes import free_endpoint, start
from bench.spread import Spread, spread
from bench.stream_run import Cpu, Feed, Served, StreamRun, run_load, run_stream
from engines.engine import Engine, open_engine
from engines.progress import Progress
from stream.service import DEFAULT_LIMITS

__all__ = ["Settings", "measure", "receive_hz"]

#: Left out of the consumer's account of CPU.
_SETTLING_EVENTS = 50_000
_ENGINE_S = 2.0
_END_S = 60.0


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        dtypes: of the payload.
        duration_s: of each run, the warm-up included.
        warm_up_s: of it.
        repeat: rounds; in each everything takes its turn.
        per_message: events in a message.
        engine_batch: events that the engine alone embeds at once: a full micro-batch.
    """

    dtypes: tuple[str, ...] = ("<f4", "<f2")
    duration_s: float = 12.0
    warm_up_s: float = 2.0
    repeat: int = 3
    per_message: int = 256
    engine_batch: int = DEFAULT_LIMITS.max_batch


@dataclass
class _Rounds:
    """What each round found, for one dtype of the payload."""

    bare_hz: list[float] = field(default_factory=list)
    engine_hz: list[float] = field(default_factory=list)
    stream: list[StreamRun] = field(default_factory=list)
    untested: list[StreamRun] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        limits = [min(pair) for pair in zip(self.bare_hz, self.engine_hz, strict=True)]
        return {
            "bare_hz": spread(self.bare_hz),
            "engine_hz": spread(self.engine_hz),
            "stream": _record(self.stream, limits),
            "without_tests": _record(self.untested, limits),
        }


def measure(served: Served, settings: Settings) -> dict[str, Any]:
    """Let every dtype's stream, with tests and without, its bare wire and the engine take turns.

    Args:
        served: how the consumer runs.
        settings: what is sent.

    Returns:
        By dtype, each figure as median and 68 % band over the rounds: `bare_hz` and `engine_hz`,
        and for the stream with and without tests its rate, its share of the lower of the two in
        the same round, the windows, CPU seconds per million events, and what share of its CPU goes
        into other things than the encoder; `load_before` is the system's load.

    Raises:
        WorkerError: if a process fails.
    """
    load_before = os.getloadavg()[0]
    rounds = {dtype: _Rounds() for dtype in settings.dtypes}
    progress = Progress(settings.repeat * len(rounds), "rounds")
    untested = Served(served.engine, served.device, (*served.options, "--no-tests"))
    with open_engine(
        served.engine, device=served.device, max_batch=settings.engine_batch
    ) as engine:
        for _ in range(settings.repeat):
            for dtype, found in rounds.items():
                feed = Feed(
                    0.0, settings.duration_s, settings.warm_up_s, settings.per_message, dtype
                )
                found.engine_hz.append(_engine_hz(engine, settings.engine_batch))
                found.bare_hz.append(receive_hz(feed))
                found.stream.append(run_stream(served, feed, skip_events=_SETTLING_EVENTS))
                found.untested.append(run_stream(untested, feed, skip_events=_SETTLING_EVENTS))
                progress.advance(1, f"{found.stream[-1].load['rate_hz']:.0f} events/s")
        progress.close()
        runtime = engine.runtime
    by_dtype = {dtype: found.record() for dtype, found in rounds.items()}
    return {"runtime": runtime, "load_before": load_before, **by_dtype}


def receive_hz(feed: Feed) -> float:
    """Return the events a second that a bare receive loop takes from the same load."""
    endpoint = free_endpoint()
    with start("bench.receive", "--endpoint", endpoint) as receiver:
        run_load(feed, endpoint, receiver)
        received: dict[str, float] = json.loads(receiver.finish(_END_S))
    return received["messages"] * feed.per_message / received["seconds"]


def _engine_hz(engine: Engine, batch: int) -> float:
    return EngineRate(engine, batch, _ENGINE_S).measure_hz()


def _record(runs: list[StreamRun], limits_hz: list[float]) -> dict[str, Any]:
    rates = [run.load["rate_hz"] for run in runs]
    return {
        "events_hz": spread(rates),
        "share_of_limit": spread([hz / limit for hz, limit in zip(rates, limits_hz, strict=True)]),
        "windows_tested": spread([run.tested for run in runs]),
        "windows_skipped": spread([run.skipped for run in runs]),
        "cpu_s_per_million": _per_million(runs),
        "overhead": spread([run.cpu.overhead for run in runs]),
        "overhead_of_stream": spread([run.cpu.overhead_of_stream for run in runs]),
        "sender_cpu_s_per_million": spread(
            [1e6 * run.load["cpu_s"] / run.load["events"] for run in runs]
        ),
    }


def _per_million(runs: Iterable[StreamRun]) -> dict[str, Spread]:
    """Return the CPU seconds per million events of each part."""
    parts: list[tuple[Cpu, int]] = [(run.cpu, run.events) for run in runs]
    names = asdict(parts[0][0])
    return {
        name: spread([1e6 * asdict(cpu)[name] / events for cpu, events in parts]) for name in names
    }
