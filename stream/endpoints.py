"""ZeroMQ sockets with every limit set: queues, message sizes, how long closing may take.

push --> pull   the stream itself: the producer connects, the consumer binds; at the high-water
                mark the producer waits, so nothing is dropped
pub  --> sub    a tap: the producer binds, consumers connect; a slow consumer loses messages
"""

import contextlib
import errno
import logging
import socket as unix
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import zmq

from engines.errors import EndpointError, ParameterError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray
from stream.message import MAX_FRAME_BYTES, encode_message

__all__ = [
    "RECEIVER_PATTERNS",
    "SENDER_PATTERNS",
    "Context",
    "Sender",
    "Socket",
    "bound_endpoint",
    "open_publisher",
    "open_receiver",
    "open_sender",
]

RECEIVER_PATTERNS = ("pull", "sub")
SENDER_PATTERNS = ("push", "pub")
Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]

_LOGGER = logging.getLogger(__name__)
_POLL_MS = 100
_NOTICE_AFTER_S = 1.0
_END_WAIT_MS = 1000
#: Messages queued per peer and side: about 15 MB and 3 s at 256 events a message, 20,000 a second.
_HIGH_WATER_MARK = 256
_LINGER_MS = 2000
_NO_EVENTS = np.empty((0, N_OBJECTS, N_FEATURES), dtype=np.float32)
_FORMS = "tcp://HOST:PORT or ipc:///PATH"


def open_receiver(context: Context, endpoint: str, pattern: str = "pull") -> Socket:
    """Open the consumer's end of the stream.

    Args:
        context: the ZeroMQ context to open it in.
        endpoint: such as `tcp://127.0.0.1:5555` or `ipc:///run/nplm.sock`.
        pattern: "pull" binds and takes its share of all events; "sub" connects and taps them.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
        ParameterError: if there is no such pattern.
    """
    if pattern not in RECEIVER_PATTERNS:
        msg = f"a receiver's pattern must be one of {', '.join(RECEIVER_PATTERNS)}; got {pattern!r}"
        raise ParameterError(msg)
    socket = context.socket(zmq.PULL if pattern == "pull" else zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    if pattern == "sub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    return _attach(socket, endpoint, bind=pattern == "pull")


def open_sender(context: Context, endpoint: str, pattern: str = "push") -> Socket:
    """Open the producer's end of the stream.

    Args:
        context: the ZeroMQ context to open it in.
        endpoint: such as `tcp://127.0.0.1:5555` or `ipc:///run/nplm.sock`.
        pattern: "push" connects, and is writable only while a consumer is connected and takes
            messages; "pub" binds, and is readable when a consumer has subscribed.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
        ParameterError: if there is no such pattern.
    """
    if pattern not in SENDER_PATTERNS:
        msg = f"a sender's pattern must be one of {', '.join(SENDER_PATTERNS)}; got {pattern!r}"
        raise ParameterError(msg)
    # XPUB is PUB on the wire; it also tells the sender of subscriptions.
    socket = context.socket(zmq.PUSH if pattern == "push" else zmq.XPUB)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    # Without it, events would queue for a consumer that may never come.
    socket.setsockopt(zmq.IMMEDIATE, 1)
    return _attach(socket, endpoint, bind=pattern == "pub")


def open_publisher(context: Context, endpoint: str) -> Socket:
    """Open a PUB socket for results; subscribers connect, and slow ones lose messages.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
    """
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    return _attach(socket, endpoint, bind=True)


def bound_endpoint(socket: Socket) -> str:
    """Return the endpoint a socket stands at, with the port that `tcp://127.0.0.1:*` got."""
    return socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _attach(socket: Socket, endpoint: str, *, bind: bool) -> Socket:
    socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
    # For each frame; a peer that sends a larger one is disconnected.
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    try:
        _check_form(endpoint)
        if bind:
            _check_ipc_path(endpoint)
            socket.bind(endpoint)
        else:
            socket.connect(endpoint)
    except (zmq.ZMQError, OSError, ValueError) as exc:
        socket.close(linger=0)
        if isinstance(exc, EndpointError):
            raise
        msg = _explain(exc, endpoint, bind=bind)
        raise EndpointError(msg) from exc
    return socket


def _check_form(endpoint: str) -> None:
    """Refuse what ZeroMQ would silently cut: a port beyond 65535, a NUL and what follows it."""
    port = endpoint.rpartition(":")[2]
    too_large = endpoint.startswith("tcp://") and port.isdecimal() and int(port) > 65_535
    if too_large or "\0" in endpoint:
        raise OSError(errno.EINVAL, endpoint)


def _check_ipc_path(endpoint: str) -> None:
    """Refuse an ipc:// path in use: ZeroMQ's bind would unlink whatever stands there."""
    scheme, _, name = endpoint.partition("://")
    if scheme != "ipc" or name.startswith(("@", "*")) or not Path(name).exists():
        return
    if not Path(name).is_socket():
        msg = f"endpoint {endpoint!r} must be a path of its own; a file is there; name another path"
        raise EndpointError(msg)
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except (TimeoutError, BlockingIOError):
            pass  # a listener too busy to answer is still a listener
    raise OSError(errno.EADDRINUSE, endpoint)


def _explain(exc: Exception, endpoint: str, *, bind: bool) -> str:
    verb = "bind" if bind else "connect to"
    reasons = {
        errno.EADDRINUSE: "another process, perhaps a second consumer, holds it; "
        "stop that one or choose another endpoint",
        errno.EACCES: "permission denied; use a port above 1023 or a folder that is yours",
        errno.EPERM: "permission denied; use a port above 1023 or a folder that is yours",
        errno.EADDRNOTAVAIL: "this machine has no such address; use 127.0.0.1, * or one of its own",
        errno.ENODEV: "this machine has no such address; use 127.0.0.1, * or one of its own",
        errno.ENOENT: "its folder does not exist; create it or choose another path",
        errno.ENOTDIR: "its folder does not exist; create it or choose another path",
        errno.ENAMETOOLONG: "the path is too long for a socket; choose a shorter one",
        errno.EINVAL: f"it is malformed; write {_FORMS}",
        errno.EPROTONOSUPPORT: f"ZeroMQ here knows no such transport; write {_FORMS}",
    }
    number = getattr(exc, "errno", None)
    reason = reasons.get(number) if isinstance(number, int) else None
    return f"cannot {verb} endpoint {endpoint!r}: {reason or f'{exc}; write {_FORMS}'}"


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
