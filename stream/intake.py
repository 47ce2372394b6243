"""Messages from the socket: accepted into a micro-batch, or refused, counted and forgotten."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from engines.errors import MessageError
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.delivery.admission import Admission, Receiver
from stream.header import Frame, Header, Reason, pack_header
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.stages import Arrival
from stream.wire import EventWire, Wire

__all__ = ["Emit", "Intake"]

#: Takes the events of a micro-batch, (n, *row), all its messages, those that hold none as well, and
#: when it closed.
Emit: TypeAlias = Callable[[FloatArray, Sequence[Arrival], float], None]

_MAX_CLOCK_AHEAD_S = 5.0
_MAX_AHEAD_NS = round(_MAX_CLOCK_AHEAD_S * 1e9)
_MAX_SOURCES = 500


class Intake:
    """Fills micro-batches; one closes when it is full or its deadline passes.

    Args:
        batch: what is filled.
        emit: called with each micro-batch.
        admission: says which messages count.
        metrics: what Prometheus sees.
        sparse_log: for trouble that may repeat.
        now_ns: the wall clock, unix ns.
        wire: reads the messages; events if None.
    """

    def __init__(
        self,
        batch: MicroBatch,
        emit: Emit,
        admission: Admission,
        metrics: Metrics,
        sparse_log: SparseLog,
        now_ns: Callable[[], int],
        wire: Wire | None = None,
    ) -> None:
        """Start without a source."""
        self._batch, self._emit, self._admission = batch, emit, admission
        self._wire = wire or EventWire()
        self._metrics, self._sparse_log, self._now_ns = metrics, sparse_log, now_ns
        self._open_sources: set[str] = set()
        self._any_ended = False

    @property
    def all_ended(self) -> bool:
        """Whether a source has ended and none is open."""
        return self._any_ended and not self._open_sources

    def gather(self, receiver: Receiver, max_delay_s: float, *, idle_ms: int = 0) -> bool:
        """Take messages until the micro-batch is full or its deadline passes, and close it.

        Args:
            receiver: where they come from.
            max_delay_s: how long the first may wait for others.
            idle_ms: how long to wait for the first.

        Returns:
            Whether there was a message at all.
        """
        frames = receiver.receive(idle_ms)
        if frames is None:
            return False
        closes_s = time.perf_counter() + max_delay_s
        while frames is not None:
            self.take(frames)
            if self._batch.is_full or time.perf_counter() >= closes_s:
                break
            frames = _next(receiver, closes_s)
        self.close_batch()
        return True

    def take(self, frames: Sequence[Frame]) -> None:
        """Add a message to the micro-batch, or refuse it."""
        received_s, received_ns = time.perf_counter(), self._now_ns()
        header = None
        try:
            header = self._wire.header(frames)
            if not self._admission.admits(header):
                return
            if self._admission.lasts and header.t_ns > received_ns + _MAX_AHEAD_NS:
                header, frames = self._set_right(header, frames, received_ns)
            if not self._batch.fits(header.n):
                self.close_batch()
                received_s, received_ns = time.perf_counter(), self._now_ns()
            self._wire.read(frames[1], header, self._batch.rows(header.n))
            wire_s = _age_s(header, received_ns, self._admission.max_age_s)
            n_missing, number = self._admission.accept(header, frames)
        except MessageError as exc:
            self.reject(exc)
            self._admission.refuse(header, exc)
            return
        if n_missing:
            self._metrics.n_missing += n_missing
            text = f"{n_missing} messages of source {header.source!r} before {header.seq}"
            self._sparse_log.log("missing messages", text)
        decoded_s = time.perf_counter()
        self._batch.add(Arrival(header, n_missing, wire_s, received_s, decoded_s, number))

    def _set_right(
        self, header: Header, frames: Sequence[Frame], now_ns: int
    ) -> tuple[Header, list[Frame]]:
        """Take the time of arrival for one of production that lies ahead, here and where kept.

        A message that will not come again must not be lost over a clock that is set wrong.
        """
        self._metrics.n_restamped += 1
        text = f"t_ns of source {header.source!r} lies ahead; taken as now; set its clock right"
        self._sparse_log.log("clock ahead", text)
        header = header._replace(t_ns=now_ns)
        # Made anew: other keys that are packed again may be larger than a header may be.
        return header, [pack_header(header, self._wire.row), *frames[1:]]

    def close_batch(self) -> None:
        """Emit the events of the micro-batch, and begin another."""
        closed_s = time.perf_counter()
        particles, messages = self._batch.take()
        if messages:
            self._emit(particles, messages, closed_s)
            self._metrics.observe_messages(messages, self._now_ns() / 1e9)
        for message in messages:
            self.follow(message.header)

    def reject(self, exc: MessageError) -> None:
        """Count and log a refused message."""
        self._metrics.rejected[exc.reason] += 1
        self._sparse_log.log(f"message refused ({exc.reason})", str(exc))

    def follow(self, header: Header) -> None:
        """Note that a source sends, or has ended."""
        if header.end:
            self._open_sources.discard(header.source)
            self._any_ended = True
            self._sparse_log.log("source ended", header.source, logging.INFO)
        elif header.source not in self._open_sources and len(self._open_sources) < _MAX_SOURCES:
            self._open_sources.add(header.source)
            self._sparse_log.log("source started", header.source, logging.INFO)


def _next(receiver: Receiver, closes_s: float) -> list[Frame] | None:
    """Wait for a message until the micro-batch closes; ZeroMQ waits whole milliseconds."""
    frames = receiver.receive(max(0, int(1e3 * (closes_s - time.perf_counter()))))
    if frames is None and (left_s := closes_s - time.perf_counter()) > 0:
        time.sleep(left_s)
        frames = receiver.receive(0)
    return frames


def _age_s(header: Header, now_ns: int, most_s: float) -> float:
    """Return the seconds since production.

    Raises:
        MessageError: if the time of production cannot be; it would misplace the windows' bounds.
    """
    age_s = (now_ns - header.t_ns) / 1e9
    if not -_MAX_CLOCK_AHEAD_S <= age_s <= most_s:
        msg = (
            f"t_ns of source {header.source!r} must be the time of production, at most a day "
            f"ago; it is {-age_s:+.0f} s from now; set its clock right"
        )
        raise MessageError(Reason.CLOCK, msg)
    return age_s
