"""ZeroMQ sockets with every limit set: queues, message sizes, how long closing may take.

push   --> pull     the stream itself: the producer connects, the consumer binds; at the high-water
                    mark the producer waits, so nothing is dropped
dealer <-> router   the same with answers: the consumer acknowledges
pub    --> sub      a tap: the producer binds, consumers connect; a slow consumer loses messages

Each may be encrypted and authenticated (`stream.security.curve`); who binds is then the server.
"""

import errno
import socket as unix
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import zmq

from engines.errors import EndpointError, ParameterError
from stream.header import DEFAULT_MAX_EVENTS, frame_limit
from stream.security.curve import CURVE_BYTES, CurveEnd, CurveServer

__all__ = [
    "RECEIVER_PATTERNS",
    "SENDER_PATTERNS",
    "Context",
    "Socket",
    "bound_endpoint",
    "is_local",
    "open_publisher",
    "open_receiver",
    "open_sender",
]

RECEIVER_PATTERNS = ("pull", "router", "sub")
SENDER_PATTERNS = ("push", "dealer", "pub")
_RECEIVERS = {"pull": zmq.PULL, "router": zmq.ROUTER, "sub": zmq.SUB}
# XPUB is PUB on the wire; it also tells the sender of subscriptions.
_SENDERS = {"push": zmq.PUSH, "dealer": zmq.DEALER, "pub": zmq.XPUB}
Socket: TypeAlias = zmq.Socket[bytes]
Context: TypeAlias = zmq.Context[Socket]

#: Messages queued per peer and side: about 15 MB and 3 s at 256 events a message, 20,000 a second.
_HIGH_WATER_MARK = 256
_LINGER_MS = 2000
#: Subscribers send nothing else, and it is kept while they stay; CURVE's handshake needs 300.
_SUBSCRIPTION_BYTES = 512
#: A peer that has connected and says nothing is let go after it; libzmq's own limit is 30 s.
_HANDSHAKE_MS = 5000
_LOCAL_HOSTS = ("localhost", "[::1]", "::1", "lo")
_FORMS = "tcp://HOST:PORT or ipc:///PATH"


def open_receiver(
    context: Context,
    endpoint: str,
    pattern: str = "pull",
    *,
    curve: CurveEnd | None = None,
    max_events: int = DEFAULT_MAX_EVENTS,
    prepare: Callable[[Socket], None] | None = None,
) -> Socket:
    """Open the consumer's end of the stream.

    A router leaves routing ids to libzmq, and never hands one over to a second connection: a client
    that took another's id would get its acknowledgements. Sending to a peer that does not read
    raises `zmq.Again`, to one that has gone another `zmq.ZMQError`.

    Args:
        context: the ZeroMQ context to open it in.
        endpoint: such as `tcp://127.0.0.1:5555` or `ipc:///run/nplm.sock`.
        pattern: "pull" binds and takes its share of all events; "router" also answers; "sub"
            connects and taps them.
        curve: the keys; None for a stream that anybody may read and write.
        max_events: of a message; a peer that sends a longer frame is disconnected.
        prepare: called with the socket before it is bound or connected.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
        ParameterError: if there is no such pattern, or the keys are the other end's.
    """
    if pattern not in RECEIVER_PATTERNS:
        msg = f"a receiver's pattern must be one of {', '.join(RECEIVER_PATTERNS)}; got {pattern!r}"
        raise ParameterError(msg)
    bind = pattern != "sub"
    _check_end(curve, endpoint, bind=bind)
    socket = context.socket(_RECEIVERS[pattern])
    socket.setsockopt(zmq.LINGER, 0)
    if pattern == "sub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    if pattern == "router":
        # Else an answer to a peer that is slow to read would be dropped without a word.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, frame_limit(max_events) + (CURVE_BYTES if curve else 0))
    _equip(socket, curve, prepare)
    return _attach(socket, endpoint, bind=bind)


def open_sender(
    context: Context,
    endpoint: str,
    pattern: str = "push",
    *,
    curve: CurveEnd | None = None,
    prepare: Callable[[Socket], None] | None = None,
) -> Socket:
    """Open the producer's end of the stream.

    Args:
        context: the ZeroMQ context to open it in.
        endpoint: such as `tcp://127.0.0.1:5555` or `ipc:///run/nplm.sock`.
        pattern: "push" connects, and is writable only while a consumer is connected and takes
            messages; "dealer" connects, queues for a consumer that is still to come, and is
            readable when it has answered; "pub" binds, and is readable when a consumer has
            subscribed.
        curve: the keys; None for a stream that anybody may read and write.
        prepare: called with the socket before it is bound or connected.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
        ParameterError: if there is no such pattern, or the keys are the other end's.
    """
    if pattern not in SENDER_PATTERNS:
        msg = f"a sender's pattern must be one of {', '.join(SENDER_PATTERNS)}; got {pattern!r}"
        raise ParameterError(msg)
    bind = pattern == "pub"
    _check_end(curve, endpoint, bind=bind)
    socket = context.socket(_SENDERS[pattern])
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    # Without it, events would queue for a consumer that may never come. A dealer's would be dropped
    # with it: the answers of a consumer that ends, which wait to be read here.
    socket.setsockopt(zmq.IMMEDIATE, pattern != "dealer")
    socket.setsockopt(zmq.MAXMSGSIZE, frame_limit(DEFAULT_MAX_EVENTS))
    _equip(socket, curve, prepare)
    return _attach(socket, endpoint, bind=bind)


def open_publisher(
    context: Context,
    endpoint: str,
    *,
    curve: CurveServer | None = None,
    prepare: Callable[[Socket], None] | None = None,
) -> Socket:
    """Open a PUB socket for results; subscribers connect, and slow ones lose messages.

    Args:
        context: the ZeroMQ context to open it in.
        endpoint: where subscribers connect.
        curve: the keys; None for results that anybody may read.
        prepare: called with the socket before it is bound.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
    """
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, _SUBSCRIPTION_BYTES)
    _equip(socket, curve, prepare)
    return _attach(socket, endpoint, bind=True)


def is_local(endpoint: str) -> bool:
    """Return whether an endpoint can be reached from this machine alone.

    >>> is_local("tcp://127.0.0.1:5555"), is_local("tcp://*:5555"), is_local("ipc:///run/x.sock")
    (True, False, True)
    """
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return not endpoint.startswith("tcp://") or host in _LOCAL_HOSTS or host.startswith("127.")


def bound_endpoint(socket: Socket) -> str:
    """Return the endpoint a socket stands at, with the port that `tcp://127.0.0.1:*` got."""
    return socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _check_end(curve: CurveEnd | None, endpoint: str, *, bind: bool) -> None:
    if curve is not None and isinstance(curve, CurveServer) != bind:
        wanted = "an allow-list of clients" if bind else "the server's public key"
        verb = "binds" if bind else "connects"
        msg = f"the end of {endpoint} that {verb} must have {wanted} beside its own key; it has not"
        raise ParameterError(msg)


def _equip(
    socket: Socket, curve: CurveEnd | None, prepare: Callable[[Socket], None] | None
) -> None:
    if curve is not None:
        curve.apply(socket)
    if prepare is not None:
        prepare(socket)


def _attach(socket: Socket, endpoint: str, *, bind: bool) -> Socket:
    socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
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
