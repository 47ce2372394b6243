"""Messages from the socket: accepted into a micro-batch, or refused, counted and forgotten."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import zmq

from engines.errors import MessageError
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.endpoints import Socket
from stream.message import Frame, Header, Reason, decode_header
from stream.metrics import Metrics
from stream.payload import read_payload
from stream.sequence import SequenceTracker
from stream.sparse_log import SparseLog
from stream.stages import Arrival

__all__ = ["Emit", "Intake"]

#: Takes the events of a micro-batch, (n, 19, 3), their messages, and when it closed.
Emit: TypeAlias = Callable[[FloatArray, Sequence[Arrival], float], None]

_MAX_CLOCK_AHEAD_S, _MAX_CLOCK_BEHIND_S = 5.0, 86_400.0
_MAX_SOURCES = 500


class Intake:
    """Fills micro-batches; one closes when it is full or its deadline passes.

    Args:
        batch: what is filled.
        emit: called with each micro-batch that holds events.
        metrics: what Prometheus sees.
        sparse_log: for trouble that may repeat.
        now_ns: the wall clock, unix ns.
    """

    def __init__(
        self,
        batch: MicroBatch,
        emit: Emit,
        metrics: Metrics,
        sparse_log: SparseLog,
        now_ns: Callable[[], int],
    ) -> None:
        """Start without a source."""
        self._batch, self._emit = batch, emit
        self._metrics, self._sparse_log, self._now_ns = metrics, sparse_log, now_ns
        self._sequences = SequenceTracker()
        self._open_sources: set[str] = set()
        self._any_ended = False

    @property
    def all_ended(self) -> bool:
        """Whether a source has ended and none is open."""
        return self._any_ended and not self._open_sources

    def gather(self, socket: Socket, max_delay_s: float, *, idle_ms: int = 0) -> bool:
        """Take messages until the micro-batch is full or its deadline passes, and close it.

        Args:
            socket: where they arrive.
            max_delay_s: how long the first may wait for others.
            idle_ms: how long to wait for the first.

        Returns:
            Whether there was a message at all.
        """
        frames = _receive(socket, idle_ms)
        if frames is None:
            return False
        closes_s = time.perf_counter() + max_delay_s
        while frames is not None:
            self.take(frames)
            if self._batch.is_full or time.perf_counter() >= closes_s:
                break
            frames = self._next(socket, closes_s)
        self.close_batch()
        return True

    def _next(self, socket: Socket, closes_s: float) -> list[Frame] | None:
        """Wait for a message until the micro-batch closes; ZeroMQ waits whole milliseconds."""
        frames = _receive(socket, int(1e3 * (closes_s - time.perf_counter())))
        if frames is None and (left_s := closes_s - time.perf_counter()) > 0:
            time.sleep(left_s)
            frames = _receive(socket, 0)
        return frames

    def take(self, frames: Sequence[Frame]) -> None:
        """Add a message to the micro-batch, or refuse it."""
        received_s, received_ns = time.perf_counter(), self._now_ns()
        try:
            header = decode_header(frames)
            if not self._batch.fits(header.n):
                self.close_batch()
                received_s, received_ns = time.perf_counter(), self._now_ns()
            read_payload(frames[1], header.dtype, self._batch.rows(header.n))
            wire_s = _age_s(header, received_ns)
            n_missing = self._sequences.check(header.source, header.seq)
        except MessageError as exc:
            self.reject(exc)
            return
        if n_missing:
            self._metrics.n_missing += n_missing
            text = f"{n_missing} messages of source {header.source!r} before {header.seq}"
            self._sparse_log.log("missing messages", text)
        self._batch.add(Arrival(header, n_missing, wire_s, received_s, time.perf_counter()))

    def close_batch(self) -> None:
        """Emit the events of the micro-batch, and begin another."""
        closed_s = time.perf_counter()
        particles, messages = self._batch.take()
        if len(particles):
            self._emit(particles, [m for m in messages if m.header.n], closed_s)
        if messages:
            self._metrics.observe_messages(messages, self._now_ns() / 1e9)
        for message in messages:
            self._follow(message.header)

    def reject(self, exc: MessageError) -> None:
        """Count and log a refused message."""
        self._metrics.rejected[exc.reason] += 1
        self._sparse_log.log(f"message refused ({exc.reason})", str(exc))

    def _follow(self, header: Header) -> None:
        if header.end:
            self._open_sources.discard(header.source)
            self._any_ended = True
            self._sparse_log.log("source ended", header.source, logging.INFO)
        elif header.source not in self._open_sources and len(self._open_sources) < _MAX_SOURCES:
            self._open_sources.add(header.source)
            self._sparse_log.log("source started", header.source, logging.INFO)


def _receive(socket: Socket, wait_ms: int) -> list[Frame] | None:
    """Return the frames of the next message, its payload not copied; None if none comes in time."""
    # Half the cost of a poll, whose price is paid for every message where they are few.
    socket.setsockopt(zmq.RCVTIMEO, max(0, wait_ms))
    try:
        frame = socket.recv(copy=False, track=False)
    except zmq.Again:
        return None
    frames: list[Frame] = [frame.buffer]
    while frame.more:
        frame = socket.recv(copy=False, track=False)
        frames.append(frame.buffer)
    return frames


def _age_s(header: Header, now_ns: int) -> float:
    """Return the seconds since production.

    Raises:
        MessageError: if the time of production cannot be; it would misplace the windows' bounds.
    """
    age_s = (now_ns - header.t_ns) / 1e9
    if not -_MAX_CLOCK_AHEAD_S <= age_s <= _MAX_CLOCK_BEHIND_S:
        msg = (
            f"t_ns of source {header.source!r} must be the time of production, at most a day "
            f"ago; it is {-age_s:+.0f} s from now; set its clock right"
        )
        raise MessageError(Reason.CLOCK, msg)
    return age_s
