"""ZeroMQ sockets with every limit set: queues, message sizes, how long closing may take.

push --> pull   the stream itself: the producer connects, the consumer binds; at the high-water
                mark the producer waits, so nothing is dropped
pub  --> sub    a tap: the producer binds, consumers connect; a slow consumer loses messages
"""

import errno
import socket as unix
from pathlib import Path
from typing import TypeAlias

import zmq

from engines.errors import EndpointError, ParameterError
from stream.message import MAX_FRAME_BYTES

__all__ = [
    "RECEIVER_PATTERNS",
    "SENDER_PATTERNS",
    "Context",
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

#: Messages queued per peer and side: about 15 MB and 3 s at 256 events a message, 20,000 a second.
_HIGH_WATER_MARK = 256
_LINGER_MS = 2000
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
