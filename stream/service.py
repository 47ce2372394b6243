"""The consumer's work: messages in, embedded in micro-batches, cut into windows, tested."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import zmq

from engines.engine import Engine
from engines.errors import EngineError, MessageError
from engines.reference_file import ReferenceFacts
from engines.types import FloatArray
from stream.block import Block
from stream.endpoints import Socket
from stream.features import Featuriser, PendingFeatures
from stream.message import Message, Reason, decode_message
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.runner import TestRunner
from stream.sequence import SequenceTracker
from stream.sparse_log import SparseLog
from stream.tester import Outputs, Tester
from stream.window import ClosedWindow, Windows

__all__ = ["DEFAULT_LIMITS", "Consumer", "Limits"]

_LOG = logging.getLogger(__name__)
_POLL_MS = 100
_DRAIN_S = 5.0
#: Times the square root of the events expected in a time window.
_LARGEST_MESSAGE = 0.5
_MAX_CLOCK_AHEAD_S, _MAX_CLOCK_BEHIND_S = 5.0, 86_400.0
_MAX_SOURCES = 500

_Embedded: TypeAlias = tuple[FloatArray, PendingFeatures]


@dataclass(frozen=True)
class Limits:
    """How much the consumer takes on at once.

    Attributes:
        max_batch: events embedded together.
        max_waiting: closed windows that may wait for their test; beyond it the oldest is skipped.
    """

    max_batch: int = 4096
    max_waiting: int = 16


DEFAULT_LIMITS = Limits()


class Consumer:
    """Takes messages from a socket until told to stop.

    Args:
        engine: the encoder.
        monitor: tests the windows.
        windows: cuts the stream.
        outputs: where results go.
        metrics: what Prometheus sees.
        n_expected: events expected in a window, for the fill.
        limits: how much is taken on at once.
        now_ns: the wall clock, unix ns.

    Attributes:
        tester: what came of the windows.
        n_events, n_messages, n_rejected, n_missing, n_skipped: events embedded; messages
            accepted, refused and missing; windows given up.
    """

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        windows: Windows,
        outputs: Outputs,
        metrics: Metrics,
        *,
        n_expected: float,
        limits: Limits = DEFAULT_LIMITS,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start the threads of the features and of the test."""
        self._engine, self._windows, self._metrics = engine, windows, metrics
        self._n_expected, self._limits, self._now_ns = n_expected, limits, now_ns
        self._by_time = monitor.by_time
        self._sequences, self._sparse_log = SequenceTracker(), SparseLog()
        self._open_sources: set[str] = set()
        self._any_ended = False
        self._n_unembedded = 0
        self._confirms = True
        self.n_events = self.n_messages = self.n_rejected = self.n_missing = 0
        self.n_skipped = 0
        self.tester = Tester(monitor, outputs, metrics, self._sparse_log)
        self._featuriser = Featuriser(monitor.features, metrics.features.observe)
        self._runner = TestRunner(self._examine, self._skip, limits.max_waiting)

    def run(
        self, socket: Socket, stopped: Callable[[], bool], *, exit_on_end: bool = False
    ) -> None:
        """Consume until `stopped`, or with `exit_on_end` until each source has sent its end.

        What the socket has received by then is still processed and every closed window tested;
        once stopped, alarms are no longer confirmed, so that the end comes soon.
        """
        while not stopped() and not (exit_on_end and self._all_ended):
            if socket.poll(_POLL_MS):
                self.take(_receive(socket, self._limits.max_batch))
        self._confirms = not stopped()
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline and socket.poll(0):
            self.take(_receive(socket, self._limits.max_batch))

    def close(self) -> None:
        """Test the windows that wait, then close the outputs."""
        self._runner.close()
        self._featuriser.close()
        self.tester.close()

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""
        return self._windows.n_unclosed

    @property
    def _all_ended(self) -> bool:
        return self._any_ended and not self._open_sources

    def take(self, received: Sequence[list[bytes]]) -> None:
        """Process messages as they came from the socket."""
        accepted = [found for frames in received if (found := self._accept(frames)) is not None]
        full = [(message, n_missing) for message, n_missing in accepted if len(message)]
        embedded = self._embed([message for message, _ in full])
        for (message, n_missing), embedding in zip(full, embedded, strict=True):
            if embedding is None:
                self._n_unembedded += n_missing + 1
            else:
                self._add(message, embedding, n_missing + self._n_unembedded)
                self._n_unembedded = 0
        for message, _ in accepted:
            self._follow_source(message)

    def _accept(self, frames: list[bytes]) -> tuple[Message, int] | None:
        """Return the message and how many are missing before it, or None if it is refused."""
        try:
            message = decode_message(frames)
            self._check_clock(message)
            n_missing = self._sequences.check(message.source, message.seq)
        except MessageError as exc:
            self._reject(exc)
            return None
        if n_missing:
            self.n_missing += n_missing
            self._metrics.missing.inc(n_missing)
            text = f"{n_missing} messages of source {message.source!r} before {message.seq}"
            self._sparse_log.log("missing messages", text)
        self.n_messages += 1
        self._metrics.messages.inc()
        return message, n_missing

    def _check_clock(self, message: Message) -> None:
        """Refuse a production time that cannot be: it would misplace the windows' bounds."""
        ahead_s = (message.t_ns - self._now_ns()) / 1e9
        if not -_MAX_CLOCK_BEHIND_S <= ahead_s <= _MAX_CLOCK_AHEAD_S:
            msg = (
                f"t_ns of source {message.source!r} must be the time of production, at most a day "
                f"ago; it is {ahead_s:+.0f} s from now; set its clock right"
            )
            raise MessageError(Reason.CLOCK, msg)

    def _reject(self, exc: MessageError) -> None:
        self.n_rejected += 1
        self._metrics.rejected.labels(exc.reason).inc()
        self._sparse_log.log(f"message refused ({exc.reason})", str(exc))

    def _embed(self, messages: Sequence[Message]) -> list[_Embedded | None]:
        """Embed messages together; if the encoder refuses, alone, refusing only the bad ones."""
        if not messages:
            return []
        started = time.perf_counter()
        try:
            particles = [message.particles for message in messages]
            joined = particles[0] if len(particles) == 1 else np.concatenate(particles)
            embeddings = self._engine.embed(joined)
        except EngineError as exc:
            if len(messages) == 1:
                self._reject(MessageError(Reason.EMBEDDING, str(exc)))
                return [None]
            return [alone for message in messages for alone in self._embed([message])]
        self._metrics.embedding.observe(time.perf_counter() - started)
        features = self._featuriser.submit(embeddings)
        ends = list(itertools.accumulate(map(len, messages), initial=0))
        return [
            (embeddings[start:stop], features[start:stop])
            for start, stop in itertools.pairwise(ends)
        ]

    def _add(self, message: Message, embedded: _Embedded, n_missing: int) -> None:
        self._metrics.events.inc(len(message))
        self._metrics.latency.observe(max(0.0, (self._now_ns() - message.t_ns) / 1e9))
        self.n_events += len(message)
        embeddings, features = embedded
        block = Block(
            source=message.source,
            seq=message.seq,
            t_ns=message.t_ns,
            particles=message.particles,
            embeddings=embeddings,
            features=features,
            n_missing=n_missing,
        )
        self._check_size(message)
        n_empty = self._windows.n_empty
        for window in self._windows.add(block):
            self._runner.submit(window)
        if self._windows.n_empty > n_empty:
            n_empty = self._windows.n_empty - n_empty
            self._metrics.windows.labels("empty").inc(n_empty)
            _LOG.warning("%d time windows without any event were not tested", n_empty)
        self._metrics.fill.set(self._windows.n_open)
        self._metrics.fill_ratio.set(self._windows.n_open / self._n_expected)
        self._metrics.waiting.set(self._runner.n_waiting)

    def _check_size(self, message: Message) -> None:
        """Messages are placed whole: large ones make the counts of time windows jump."""
        largest = _LARGEST_MESSAGE * self._n_expected**0.5
        if self._by_time and len(message) > max(1.0, largest):
            text = (
                f"{len(message)} events of source {message.source!r}; counts of time windows are "
                f"Poisson only if messages are of at most about {largest:.0f}; p-values are too "
                "small at times"
            )
            self._sparse_log.log("large message", text)

    def _follow_source(self, message: Message) -> None:
        if message.end:
            self._open_sources.discard(message.source)
            self._any_ended = True
            self._sparse_log.log("source ended", message.source, logging.INFO)
        elif message.source not in self._open_sources and len(self._open_sources) < _MAX_SOURCES:
            self._open_sources.add(message.source)
            self._sparse_log.log("source started", message.source, logging.INFO)

    def _examine(self, window: ClosedWindow) -> None:
        # With many windows waiting, each is still tested before one is confirmed.
        n_waiting = self._runner.n_waiting
        self._metrics.waiting.set(n_waiting)
        has_time = n_waiting <= self._limits.max_waiting // 2
        self.tester.examine(window, confirm=self._confirms and has_time)

    def _skip(self, window: ClosedWindow) -> None:
        self.n_skipped += 1
        self._metrics.windows.labels("skipped").inc()
        text = f"window {window.index}: windows close faster than tests finish"
        self._sparse_log.log("window skipped", text)

    def snapshot(self, facts: ReferenceFacts, far: str) -> dict[str, object]:
        """Return what the live page shows."""
        return {
            "events": self.n_events,
            "fill": self._windows.n_open / self._n_expected,
            "calibrated_on": facts.calibration(),
            "far": far,
            **self.tester.snapshot(),
        }


def _receive(socket: Socket, max_batch: int) -> list[list[bytes]]:
    """Return the messages that have arrived, up to about `max_batch` events' bytes."""
    received: list[list[bytes]] = []
    left = max_batch * 19 * 3 * 4
    while left > 0:
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        received.append(frames)
        left -= sum(map(len, frames)) or 1
    return received
