"""What becomes of connections, as libzmq's socket monitors tell it.

libzmq itself says nothing: a producer whose key is refused, or a consumer that refuses, would show
nothing but silence.
"""

import logging
import math
import threading
import time
from itertools import count

import zmq
from zmq.utils.monitor import parse_monitor_message

from engines.errors import EndpointError
from stream.endpoints import Context, Socket
from stream.sparse_log import SparseLog

__all__ = ["ConnectionWatch", "HandshakeWatch"]

_LOG = logging.getLogger(__name__)
_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
#: Handshakes broken off in a row before it is said: one may fall into a consumer's restart.
_TELL_AFTER = 3
_MISMATCH = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_LEFT = zmq.EVENT_DISCONNECTED
_TRIED = zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECTED
#: libzmq tries a lost connection again after 0.1 s.
_AGAIN_WITHIN_S = 2.0
_NUMBERS = count()
_POLL_MS = 100


class HandshakeWatch:
    """Tells the user of a client why its socket stays silent; safe on any thread.

    Args:
        context: of the socket.
        endpoint: where it connects.
        curve: whether it has CURVE keys.
    """

    def __init__(self, context: Context, endpoint: str, *, curve: bool) -> None:
        """Watch nothing yet."""
        self._context, self._endpoint, self._curve = context, endpoint, curve
        self._lock = threading.RLock()
        self._monitor: Socket | None = None
        self._refusal, self._n_broken = "", 0
        self._is_open, self._left_s = False, math.inf

    def attach(self, socket: Socket) -> None:
        """Watch a socket, and no longer the one before; to be called before it is connected."""
        with self._lock:
            self._read()
            self.close()
            self._is_open, self._left_s = False, math.inf
            events = _FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _LEFT | _TRIED
            self._monitor = _monitor(self._context, socket, events)

    def check(self) -> None:
        """Look at what has happened since; costs a microsecond where nothing has.

        Raises:
            EndpointError: if the other end refuses this one for good: libzmq does not try again.
        """
        with self._lock:
            self._read()
            if self._refusal:
                raise EndpointError(self._refusal)
            if time.monotonic() - self._left_s > _AGAIN_WITHIN_S:
                msg = (
                    f"both ends of {self._endpoint} must have --reliable or neither; the other's "
                    "socket is of another kind; give it on both sides, or drop it"
                )
                raise EndpointError(msg)

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            if self._monitor is not None:
                self._monitor.close(linger=0)
                self._monitor = None

    def _read(self) -> None:
        while self._monitor is not None and (event := _next(self._monitor, zmq.DONTWAIT)):
            self._judge(*event)

    def _judge(self, event: int, value: int) -> None:
        if event & _TRIED:
            self._is_open, self._left_s = False, math.inf
        elif event & _LEFT:
            # Sockets that do not fit: libzmq leaves without a word and does not try again.
            self._left_s = math.inf if self._is_open else time.monotonic()
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._refusal, self._n_broken = "", 0
            self._is_open = True
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refusal = (
                f"the other end, {self._endpoint}, refuses this key: its allow-list "
                "(--curve-clients) must hold the public key of --curve-key; copy it there"
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
            here, there = ("with", "without") if self._curve else ("without", "with")
            advice = "drop --curve-key" if self._curve else "give --curve-key and --curve-server"
            self._refusal = (
                f"both ends of {self._endpoint} must use CURVE or neither; this one is {here} "
                f"keys, the other {there}; {advice}"
            )
        else:
            self._tell()

    def _tell(self) -> None:
        self._n_broken += 1
        if self._n_broken == _TELL_AFTER:
            key = "; --curve-server must be its public key" if self._curve else ""
            text = (
                "the other end of %s breaks the handshake off%s; --reliable must be on both sides "
                "or neither; trying again"
            )
            _LOG.warning(text, self._endpoint, key)


class ConnectionWatch:
    """Counts what a server's sockets refuse, on a thread for each socket.

    Args:
        context: of the sockets.

    Attributes:
        n_denied: connections that ended in their handshake: no CURVE, a wrong server key, a key
            that is on no list, or nothing said.
        n_open: connections that are open; those of a socket that closes end with it.
    """

    def __init__(self, context: Context) -> None:
        """Watch nothing yet."""
        self._context, self._log = context, SparseLog()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.n_denied = self.n_open = 0

    def attach(self, socket: Socket) -> None:
        """Watch a socket until it is closed; to be called before it is bound."""
        events = (
            _FAILED
            | zmq.EVENT_ACCEPTED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CLOSED
            | zmq.EVENT_MONITOR_STOPPED
        )
        monitor = _monitor(self._context, socket, events)
        thread = threading.Thread(
            target=self._read, args=(monitor,), name="connections", daemon=True
        )
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def close(self) -> None:
        """Watch no more; the context must not end before, it would close what the threads use."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _read(self, monitor: Socket) -> None:
        """Count until the socket is closed."""
        held: set[int] = set()  # file descriptors
        with monitor:
            while not self._closing.is_set():
                if not _has_news(monitor):
                    continue
                kind, value = _next(monitor) or (zmq.EVENT_MONITOR_STOPPED, 0)
                if kind == zmq.EVENT_MONITOR_STOPPED:
                    break
                before = len(held)
                if kind == zmq.EVENT_ACCEPTED:
                    held.add(value)
                elif not kind & _FAILED:
                    held.discard(value)
                with self._lock:
                    self.n_open += len(held) - before
                    self.n_denied += bool(kind & _FAILED)
                if kind & _FAILED:
                    text = (
                        "its handshake failed: no key, another server's or one not allowed, or "
                        "--reliable on one side only"
                    )
                    self._log.log("connection denied", text)
        with self._lock:
            self.n_open -= len(held)


def _monitor(context: Context, socket: Socket, events: int) -> Socket:
    """Return a socket that receives another's events."""
    address = f"inproc://monitor-{next(_NUMBERS)}"
    socket.monitor(address, events)
    monitor = context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    return monitor


def _next(monitor: Socket, flags: int = 0) -> tuple[int, int] | None:
    """Return the next event and its value; None if there is none, or the context has ended."""
    try:
        event = parse_monitor_message(monitor.recv_multipart(flags))
    except zmq.ZMQError:
        return None
    return int(event["event"]), int(event["value"])


def _has_news(monitor: Socket) -> bool:
    """Wait a little; return whether there is an event, or the context has ended."""
    try:
        return bool(monitor.poll(_POLL_MS))
    except zmq.ZMQError:
        return True
