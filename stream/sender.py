"""The producer's side of the wire: one source's messages in sequence."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import zmq

from engines.errors import EndpointError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray
from stream.delivery.producer import ReliableProducer
from stream.endpoints import Socket
from stream.message import encode_message

__all__ = ["ReliableSender", "Sender", "SendsEvents"]

_LOGGER = logging.getLogger(__name__)
_POLL_MS = 100
_SUBSCRIBER_WAIT_S = 2.0
_DRAIN_MS = 60_000
_LAST_ACKS_S = 5.0
_NOTICE_AFTER_S = 1.0
_END_WAIT_MS = 1000
_NO_EVENTS = np.empty((0, N_OBJECTS, N_FEATURES), dtype=np.float32)


class SendsEvents(Protocol):
    """What a replay needs of the wire."""

    source: str
    stopped: Callable[[], bool]

    @property
    def following(self) -> int:
        """The `seq` of the next message."""

    def begin(self) -> int:
        """Wait until messages can go; return how many of the source's need not go any more."""

    def send(self, particles: FloatArray) -> int | None:
        """Send events; return the message's `seq`, None if asked to stop before it could go."""

    def send_end(self) -> object:
        """Say that the source is done."""

    def finish(self) -> None:
        """Let what is on its way arrive."""


class Sender:
    """Sends one source's messages in sequence, waiting where no consumer takes them.

    Args:
        socket: from `open_sender`.
        endpoint: its endpoint, for the log.
        source: the source's name, new for each run.
        dtype: of the payload, "<f4" or "<f2".
        timeout_s: seconds to wait for a consumer before giving up; None waits for ever.
        stopped: asked every tenth of a second; true ends a wait.

    Raises:
        MessageError: if the wire does not allow such a source name or dtype.
    """

    def __init__(
        self,
        socket: Socket,
        endpoint: str,
        source: str,
        *,
        dtype: str = "<f4",
        timeout_s: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Stand before message 0, under a name that the wire allows."""
        self.source, self.stopped = source, stopped
        self._socket, self._endpoint, self._dtype = socket, endpoint, dtype
        self._timeout_s, self._seq = timeout_s, 0
        encode_message(source, 0, 0, _NO_EVENTS, dtype=dtype, end=True)  # refuses a bad name now

    @property
    def following(self) -> int:
        """The `seq` of the next message."""
        return self._seq

    def begin(self) -> int:
        """Let a subscriber in, or wait for a consumer; nothing was sent before.

        Raises:
            EndpointError: if no consumer came in time.
        """
        if self._socket.type == zmq.XPUB:
            self.wait_for_subscriber(_SUBSCRIBER_WAIT_S)
        self.wait()
        return 0

    def finish(self) -> None:
        """Leave what a slower consumer has yet to take to ZeroMQ; a stop cuts it short."""
        if not self.stopped():
            self._socket.setsockopt(zmq.LINGER, _DRAIN_MS)

    def wait_for_subscriber(self, seconds: float) -> None:
        """Let a first subscriber of a pub stream in before it starts, for some seconds at most."""
        until = time.monotonic() + seconds
        while not self.stopped() and not self._socket.poll(_POLL_MS):
            if time.monotonic() > until:
                _LOGGER.warning("nobody listens at %s yet; sending anyway", self._endpoint)
                return

    def wait(self) -> bool:
        """Wait until a message can go; false if asked to stop before that.

        Raises:
            EndpointError: if no consumer took a message in time.
        """
        since, told = time.monotonic(), False
        while not self.stopped():
            if self._socket.poll(_POLL_MS, zmq.POLLOUT):
                if told:
                    _LOGGER.info("the consumer at %s takes messages", self._endpoint)
                return True
            waited_s = time.monotonic() - since
            if self._timeout_s is not None and waited_s > self._timeout_s:
                msg = (
                    f"no consumer took a message at {self._endpoint} within {self._timeout_s:g} s; "
                    "start stream-consumer there, or wait longer"
                )
                raise EndpointError(msg)
            if waited_s > _NOTICE_AFTER_S and not told:
                told = True
                _LOGGER.warning(
                    "waiting for a consumer at %s: none is connected, or it takes no more for now",
                    self._endpoint,
                )
        return False

    def send(self, particles: FloatArray) -> int | None:
        """Send events, (n, 19, 3), stamped with the time they leave.

        Returns:
            The message's sequence number; None if asked to stop before it could go.

        Raises:
            EndpointError: if no consumer took the message in time.
            MessageError: if the events break a rule of the wire.
        """
        while self.wait():
            # The consumer may leave between the poll and the send: then wait again.
            with contextlib.suppress(zmq.Again):
                return self._send_now(particles, end=False)
        return None

    def send_end(self) -> None:
        """Say that the source is done, if a consumer takes it within a second."""
        self._socket.poll(_END_WAIT_MS, zmq.POLLOUT)
        try:
            self._send_now(_NO_EVENTS, end=True)
        except zmq.Again:
            _LOGGER.warning("no consumer at %s took the end marker", self._endpoint)

    def _send_now(self, particles: FloatArray, *, end: bool) -> int:
        seq = self._seq
        frames = encode_message(
            self.source, seq, time.time_ns(), particles, dtype=self._dtype, end=end
        )
        self._socket.send_multipart(frames, zmq.DONTWAIT)
        self._seq += 1
        return seq


class ReliableSender:
    """Sends one source's messages until each is acknowledged; takes up what was sent before.

    Args:
        producer: what sends.
        timeout_s: seconds to wait for a consumer before giving up; None waits for ever.
    """

    def __init__(self, producer: ReliableProducer, timeout_s: float | None = None) -> None:
        """Take the producer over."""
        self._producer, self._timeout_s = producer, timeout_s
        self.source, self.stopped = producer.source, producer.stopped

    @property
    def following(self) -> int:
        """The `seq` of the next message."""
        return self._producer.following

    def begin(self) -> int:
        """Ask the consumer what it has; return how many messages need not go any more.

        Raises:
            EndpointError: if no consumer answered in time.
        """
        n_done = self._producer.resume(self._timeout_s)
        if n_done:
            _LOGGER.info("source %s goes on with message %d", self.source, n_done)
        return n_done

    def send(self, particles: FloatArray) -> int | None:
        """Hand a message over; return its `seq`, None if asked to stop before there was room.

        Raises:
            ArtifactError: if the spool could not be written in time.
            EndpointError: if no room came in time.
            MessageError: if the events break a rule of the wire, or the consumer takes fewer.
        """
        return self._producer.send(particles, timeout_s=self._timeout_s)

    def send_end(self) -> int | None:
        """Say that the source is done, once."""
        return None if self.stopped() else self._producer.send_end()

    def finish(self) -> None:
        """Wait for the acknowledgements.

        Raises:
            EndpointError: if they did not come in time, or messages were refused.
        """
        if not self.stopped():
            self._producer.flush(self._timeout_s)
        n_left = self._producer.drain(_LAST_ACKS_S)
        if n_left:
            msg = (
                f"{n_left} messages of {self.source!r} must be acknowledged, and were not before "
                "the stop; start it again with the same options to send them"
            )
            raise EndpointError(msg)
