"""One stream from a producer to a consumer, delivered in one of several ways, until all counts."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Process, free_endpoint, start
from bench.stream_run import Feed, Served
from engines.errors import ArtifactError, WorkerError

__all__ = ["Streamed", "Way", "capacity_hz", "feed_words", "run_feed", "run_way"]

_END_S = 180.0
#: Left out of a consumer's account while a rate without limit settles.
_SETTLING_EVENTS = 50_000


@dataclass(frozen=True)
class Way:
    """How messages are delivered.

    Attributes:
        reliable: whether they are acknowledged.
        state: whether the consumer keeps its run; a reliable one does.
        spool: whether the producer keeps messages on its disk.
    """

    reliable: bool = False
    state: bool = False
    spool: bool = False

    def consumer_words(self, folder: Path) -> tuple[object, ...]:
        """Return the consumer's options."""
        state = ("--state", folder / "state") if self.state or self.reliable else ()
        return (*(("--reliable",) if self.reliable else ()), *state)

    def producer_words(self, folder: Path) -> tuple[object, ...]:
        """Return the producer's options."""
        spool = ("--spool", folder / "spool") if self.spool else ()
        return (*(("--reliable",) if self.reliable else ()), *spool)


@dataclass(frozen=True)
class Streamed:
    """What came of a stream.

    Attributes:
        rate_hz: events a second that the consumer counted, its warm-up left out.
        load: the report of `bench.reliability_load`.
        cpu_s_per_million: of the consumer, per million events.
        tested, skipped: windows.
        runtime: what computed the embeddings.
    """

    rate_hz: float
    load: dict[str, Any]
    cpu_s_per_million: float
    tested: int
    skipped: int
    runtime: str

    @classmethod
    def read(cls, load: dict[str, Any], n_sent: int, timings: Path) -> "Streamed":
        """Return what a consumer's `--timings` say.

        Raises:
            ArtifactError: if they are damaged, or too few events were counted.
            WorkerError: if not each event sent was counted once.
        """
        try:
            record: dict[str, Any] = json.loads(timings.read_text())
            if record["n_events"] != n_sent:
                msg = f"all {n_sent} events must count once; {record['n_events']} did"
                raise WorkerError(msg)
            return cls(
                rate_hz=record["events"] / record["wall_s"],
                load=load,
                cpu_s_per_million=1e6 * record["cpu_s"]["process"] / record["events"],
                tested=record["windows"]["tested"],
                skipped=record["windows"]["skipped"],
                runtime=record["engine"],
            )
        except (OSError, ValueError, KeyError, ZeroDivisionError) as exc:
            msg = f"the consumer's timings must be complete; got {exc!r}; send more events"
            raise ArtifactError(msg) from exc


def run_way(
    served: Served, feed: Feed, way: Way, places: tuple[Path, Path], *, skip_events: int
) -> Streamed:
    """Start a consumer, feed it, wait until everything has been counted.

    Args:
        served: how the consumer runs.
        feed: what is sent.
        way: how it is delivered.
        places: folders in which the state and the spool lie while this lasts.
        skip_events: left out of the consumer's account, for the warm-up.

    Raises:
        WorkerError: if either process fails, or not each event is counted once.
    """
    endpoint = free_endpoint()
    with (
        tempfile.TemporaryDirectory(dir=places[0]) as state,
        tempfile.TemporaryDirectory(dir=places[1]) as spool,
    ):
        timings = Path(state) / "timings.json"
        consume = (
            *("stream.consumer", "--engine", served.engine, "--device", served.device),
            *("--endpoint", endpoint, "--http", "off", "--exit-on-end", "--log-level", "WARNING"),
            *("--timings", timings, "--timings-skip", skip_events),
            *("--results", Path(state) / "results.jsonl"),
            *way.consumer_words(Path(state)),
            *served.options,
        )
        with start(*consume) as consumer:
            words = (*feed_words(feed, endpoint), *way.producer_words(Path(spool)))
            load = run_feed(words, feed, consumer)
            consumer.finish(_END_S)
        return Streamed.read(load, load["events"], timings)


def feed_words(feed: Feed, endpoint: str) -> tuple[object, ...]:
    """Return the words that start a producer of a feed."""
    return (
        *("bench.reliability_load", "--endpoint", endpoint, "--rate", feed.rate_hz),
        *("--duration", feed.duration_s, "--warm-up", feed.warm_up_s),
        *("--batch", feed.per_message, "--dtype", feed.dtype),
    )


def run_feed(words: Sequence[object], feed: Feed, consumer: Process) -> dict[str, Any]:
    """Send a feed; return the producer's report.

    Raises:
        WorkerError: if one of the two processes fails.
    """
    with start(*words) as load:
        said = load.finish(_END_S + 10 * feed.duration_s, needs=consumer)
    report: dict[str, Any] = json.loads(said)
    return report


def capacity_hz(served: Served, feed: Feed, way: Way, folder: Path) -> float:
    """Return the events a second that a consumer takes in a way of delivery.

    Raises:
        WorkerError: if a process fails.
    """
    return run_way(served, feed, way, (folder, folder), skip_events=_SETTLING_EVENTS).rate_hz
