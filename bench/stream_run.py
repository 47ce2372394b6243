"""One run of the real consumer under a load: both are processes of their own."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.hdr import Recording
from bench.processes import Process, free_endpoint, start
from engines.errors import ArtifactError, WorkerError
from stream.stages import DURATIONS

__all__ = [
    "Cpu",
    "Feed",
    "Process",
    "Served",
    "StreamRun",
    "free_endpoint",
    "run_load",
    "run_stream",
]

_END_S = 120.0


@dataclass(frozen=True)
class Feed:
    """What is sent.

    Attributes:
        rate_hz: events a second; 0 for as fast as they are taken.
        duration_s: how long.
        warm_up_s: part of it that does not count.
        per_message: events in a message.
        dtype: of the payload, "<f4" or "<f2".
    """

    rate_hz: float
    duration_s: float
    warm_up_s: float
    per_message: int = 256
    dtype: str = "<f4"


@dataclass(frozen=True)
class Served:
    """How the consumer runs.

    Attributes:
        engine: the encoder; its reference stands beside it.
        device: where the encoder and the tests run.
        options: more options of `stream-consumer`.
    """

    engine: Path
    device: str = "cpu"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of the consumer, warm-up left out.

    Attributes:
        total: of the process.
        engine: inside the encoder.
        own: the rest of the thread that serves the stream: what the consumer itself costs.
        wire: ZeroMQ's threads.
        nplm: everything else: features and tests.
    """

    total: float
    engine: float
    own: float
    wire: float
    nplm: float

    @classmethod
    def of(cls, spent: dict[str, float]) -> "Cpu":
        """Return the split of what `--timings` writes."""
        total, engine = spent["process"], spent["engine"]
        stream, wire = spent["MainThread"], spent.get("ZMQ", 0.0)
        return cls(total, engine, stream - engine, wire, max(0.0, total - stream - wire))

    @property
    def overhead(self) -> float:
        """The consumer's own part and ZeroMQ's, over all of the process."""
        return (self.own + self.wire) / self.total

    @property
    def overhead_of_stream(self) -> float:
        """The same over what is left without features and tests."""
        return (self.own + self.wire) / (self.engine + self.own + self.wire)


@dataclass(frozen=True)
class StreamRun:
    """What came of a run.

    Attributes:
        load: the report of `bench.load`.
        stages: durations of events by stage, and `latency`, production to embedding.
        events: how many, warm-up left out.
        wall_s: how long they took.
        cpu: what they cost.
        runtime: what computed the embeddings.
        tested, skipped: windows.
        test_s: seconds that tests ran, the warm-up included.
    """

    load: dict[str, float]
    stages: dict[str, Recording]
    events: int
    wall_s: float
    cpu: Cpu
    runtime: str
    tested: int
    skipped: int
    test_s: float


def run_stream(served: Served, feed: Feed, *, skip_events: int) -> StreamRun:
    """Start a consumer, feed it, wait until it has ended.

    Args:
        served: how it runs.
        feed: what is sent.
        skip_events: left out of its timings, for the warm-up.

    Raises:
        WorkerError: if either process fails or does not end.
    """
    endpoint = free_endpoint()
    with tempfile.TemporaryDirectory() as name:
        timings, results = Path(name) / "timings.json", Path(name) / "results.jsonl"
        consume = (
            *("stream.consumer", "--engine", served.engine, "--device", served.device),
            *("--endpoint", endpoint, "--http", "off", "--exit-on-end", "--log-level", "WARNING"),
            *("--timings", timings, "--timings-skip", skip_events, "--results", results),
            *served.options,
        )
        with start(*consume) as consumer:
            load = run_load(feed, endpoint, consumer)
            consumer.finish(_END_S)
        return _read(load, timings, results)


def run_load(feed: Feed, endpoint: str, receiver: Process) -> dict[str, float]:
    """Send events to a receiver at an endpoint; return the load's report.

    Raises:
        WorkerError: if one of the two fails.
    """
    words = (
        *("bench.load", "--endpoint", endpoint, "--rate", feed.rate_hz, "--dtype", feed.dtype),
        *("--duration", feed.duration_s, "--warm-up", feed.warm_up_s),
        *("--batch", feed.per_message),
    )
    with start(*words) as load:
        # A consumer that cannot keep up takes longer to be sent everything.
        said = load.finish(_END_S + 10 * feed.duration_s, needs=receiver)
    report: dict[str, float] = json.loads(said)
    return report


def _read(load: dict[str, float], timings: Path, results: Path) -> StreamRun:
    try:
        record: dict[str, Any] = json.loads(timings.read_text())
        if record["n_events"] != load["events"]:
            msg = (
                f"all {load['events']} events must arrive; got {record['n_events']}; measure again"
            )
            raise WorkerError(msg)
        tests = [json.loads(line) for line in results.read_text().splitlines()]
        return StreamRun(
            load=load,
            stages={name: Recording.from_counts(record["stages"][name]) for name in DURATIONS},
            events=record["events"],
            wall_s=record["wall_s"],
            cpu=Cpu.of(record["cpu_s"]),
            runtime=record["engine"],
            tested=record["windows"]["tested"],
            skipped=record["windows"]["skipped"],
            test_s=sum(test["test_s"] for test in tests),
        )
    except (OSError, ValueError, KeyError) as exc:
        msg = f"the consumer's timings must be complete; got {exc!r}; send more events"
        raise ArtifactError(msg) from exc
