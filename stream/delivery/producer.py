"""A producer that loses nothing: for any Python process that has events.

    connect = lambda: open_sender(context, "tcp://consumer:5555", "dealer")
    with ReliableProducer(connect, "daq-1", spool=Path("spool")) as producer:
        producer.send(particles)

`send` hands a message over and returns; a thread sends it, sends it again where the connection or
the consumer was lost, and lets go of it when the consumer has it on its disk.
"""

import logging
import math
import os
import platform
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from engines.errors import ArtifactError, EndpointError, MessageError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray
from stream.delivery.link import Link
from stream.delivery.spool import Spool
from stream.endpoints import Socket
from stream.header import Reason
from stream.message import encode_message, too_large
from stream.sparse_log import SparseLog

__all__ = ["ReliableProducer", "unique_name"]

_LOG = logging.getLogger(__name__)
_POLL_S = 0.1
#: What a disk may say that has room or works again later.
_PASSING = (sqlite3.OperationalError, OSError)
_LOG_EVERY_S = 10.0
#: A spool that fails is tried again so much later.
_RETRY_S = 0.25
_BUFFER_BYTES = 64 << 20
_NO_EVENTS = np.empty((0, N_OBJECTS, N_FEATURES), dtype=np.float32)


def unique_name() -> str:
    """Return a source's name that no other run has had."""
    return f"{platform.node()}-{os.getpid()}-{time.time_ns()}"


class ReliableProducer:
    """Sends one source's messages until each is acknowledged. Not to be shared between threads.

    A message that the consumer refuses for good is gone: it is logged as an error, once in ten
    seconds at most, and counted. A process that runs on looks at `n_refused` after `send` and
    raises its own alarm when it grows; `flush`, at the end, raises.

    Args:
        connect: opens a new DEALER socket that connects to the consumer; called by the thread.
        source: the source's name; empty takes the spool's, or one of its own. One producer at a
            time may use it, and for ever the same (source, seq) is the same message.
        spool: a folder that keeps messages until they are acknowledged, so that this process may be
            killed; None keeps them in memory only.
        dtype: of the payload, "<f4" or "<f2".
        buffer_bytes: payload that may wait for its acknowledgement; `send` waits beyond it.
        stopped: asked while waiting; true ends a wait.
        now_ns: unix nanoseconds.

    Attributes:
        source: its name.
        stopped: as given.

    Raises:
        ArtifactError: if the spool cannot be used.
        MessageError: if the wire does not allow such a source name or dtype.
    """

    def __init__(
        self,
        connect: Callable[[], Socket],
        source: str = "",
        *,
        spool: Path | None = None,
        dtype: str = "<f4",
        buffer_bytes: int = _BUFFER_BYTES,
        stopped: Callable[[], bool] = lambda: False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take up what the spool holds, and start the thread."""
        self._spool = None if spool is None else Spool(spool, source)
        self.source = source or (self._spool.source if self._spool else "") or unique_name()
        encode_message(self.source, 0, 0, _NO_EVENTS, dtype=dtype, end=True)  # refuses a bad name
        pending: OrderedDict[int, list[bytes]] = OrderedDict()
        if self._spool is not None:
            self._spool.claim(self.source)
            pending.update(self._spool.messages())
        self._seq = self._spool.following if self._spool else 0
        self._dtype, self._buffer_bytes = dtype, buffer_bytes
        self.stopped, self._now_ns = stopped, now_ns
        self._changed = threading.Condition()
        self._sparse_log = SparseLog(every_s=_LOG_EVERY_S)
        self._link = Link(
            connect, self.source, self._seq, pending, self._changed, self._spool, self._sparse_log
        )

    def __enter__(self) -> Self:
        """Return the producer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for the acknowledgements that are due, unless something went wrong; then close."""
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    @property
    def following(self) -> int:
        """The `seq` of the next message."""
        return self._seq

    @property
    def n_unacknowledged(self) -> int:
        """Messages that no consumer has on its disk, as far as is known here."""
        return self._link.n_pending

    @property
    def n_refused(self) -> int:
        """Messages that the consumer has refused for good, as far as it has told."""
        return self._link.n_refused

    def resume(self, timeout_s: float | None = None) -> int:
        """Ask the consumer where this source stands, and go on from there.

        For sources that can make their messages again, such as a replay of a file: those below the
        returned `seq` need not be made. Only before the first message.

        Returns:
            The `seq` of the next message.

        Raises:
            EndpointError: if no consumer answers in time.
        """
        self._wait(lambda: self._link.durable is not None, timeout_s, "answered")
        if self._link.durable is not None and not self.stopped():
            # What has only arrived there may still be lost with the consumer.
            self._seq = max(self._seq, self._link.durable)
            self._link.begin(self._seq)
        return self._seq

    def send(
        self,
        particles: FloatArray,
        *,
        t_ns: int | None = None,
        end: bool = False,
        timeout_s: float | None = None,
    ) -> int | None:
        """Hand a message over; with a spool it is on this disk on return.

        Where that disk is full or fails it is tried four times a second.

        Args:
            particles: (n, 19, 3), pT in GeV.
            t_ns: production time, unix nanoseconds; now if None.
            end: say that the source is done.
            timeout_s: how long to wait for room, and for the disk; None waits for ever.

        Returns:
            The message's `seq`; None if asked to stop.

        Raises:
            ArtifactError: if the spool could not be written in time.
            EndpointError: if no room came in time, or a message that was handed over before the
                consumer's first word is larger than it takes.
            MessageError: if the events break a rule of the wire, or are more than the consumer
                takes in one message.
        """
        until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        time_ns = self._now_ns() if t_ns is None else t_ns
        frames = encode_message(
            self.source, self._seq, time_ns, particles, dtype=self._dtype, end=end
        )
        seq = self._seq
        self._wait(lambda: self._has_room(len(frames[1])), timeout_s, "acknowledged messages")
        if self.stopped():
            return None
        with self._changed:
            self._link.check()
            if msg := too_large(seq, frames, self._link.max_bytes):
                raise MessageError(Reason.TOO_MANY_EVENTS, msg)
            if not self._keep(seq, frames, until_s):
                return None
            self._link.add(seq, frames)
        self._seq += 1
        return seq

    def send_end(self) -> int | None:
        """Say that the source is done."""
        return self.send(_NO_EVENTS, end=True)

    def drain(self, seconds: float) -> int:
        """Wait some seconds for what is due, also when asked to stop; return how much is left."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._link.n_pending and time.monotonic() < until:
                self._link.check()
                self._changed.wait(_POLL_S)
        return self._link.n_pending

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is acknowledged; return whether it is, False if asked to stop.

        Raises:
            EndpointError: if that did not come in time, or messages were refused for good.
        """
        self._wait(lambda: not self._link.n_pending, timeout_s, "acknowledged everything")
        if n := self._link.n_refused:
            seq, text = self._link.last_refused
            msg = f"the consumer refused {n} messages of {self.source!r}, last {seq}: {text}"
            raise EndpointError(msg)
        return not self._link.n_pending

    def close(self) -> None:
        """End the thread; what is not acknowledged stays in the spool, if there is one."""
        self._link.close()
        if self._spool is not None:
            self._spool.close()

    def _keep(self, seq: int, frames: list[bytes], until_s: float) -> bool:
        """Write to the spool, if there is one; return False if asked to stop before it could be.

        Raises:
            ArtifactError: if it cannot be until `until_s`, by the monotonic clock, or ever.
        """
        while self._spool is not None:
            try:
                self._spool.add(seq, frames)
            except ArtifactError as exc:
                if time.monotonic() > until_s or not isinstance(exc.__cause__, _PASSING):
                    raise
                self._sparse_log.log("message not kept", f"{exc}; trying again, sending waits")
            else:
                return True
            if self._changed.wait_for(self.stopped, _RETRY_S):
                return False
            self._link.check()
        return True

    def _has_room(self, n_bytes: int) -> bool:
        waiting = self._link.n_bytes
        return not waiting or waiting + n_bytes <= self._buffer_bytes

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None, what: str) -> None:
        since = told = time.monotonic()
        with self._changed:
            while not ready() and not self.stopped():
                self._link.check()
                self._changed.wait(_POLL_S)
                now = time.monotonic()
                if timeout_s is not None and now - since > timeout_s:
                    msg = (
                        f"no consumer {what} within {timeout_s:g} s for {self.source!r}"
                        f"{self._link.trouble}; start stream-consumer --reliable there, or wait "
                        "longer"
                    )
                    raise EndpointError(msg)
                if now - told > 10.0:
                    told = now
                    trouble = self._link.trouble or "; it must run with --reliable too"
                    _LOG.warning("waiting: no consumer has %s yet%s", what, trouble)
