"""What a producer that means no good does, again and again."""

import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import msgpack
import numpy as np
import zmq

from engines.event_files import read_events
from engines.samples import sample_path
from stream.delivery.protocol import hello
from stream.endpoints import Socket
from stream.header import DEFAULT_MAX_EVENTS
from stream.message import encode_message

__all__ = ["KINDS", "NOT_RELIABLE", "Attack", "Target"]

#: Does something once; returns how many messages went.
Attack: TypeAlias = Callable[[], int]
#: ZMTP 3.0, mechanism NULL.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_N_FRAMES, _FRAME = 1000, bytes(100)
_N_CLIENTS = 200
_BUSY_S, _RETRY_S, _CONNECT_S = 0.05, 0.01, 5.0


@dataclass(frozen=True)
class Target:
    """Where the consumer is.

    Attributes:
        open_socket: opens a socket that connects to it as its producers do.
        address: host and port of its events.
        http: host and port of its pages.
        reliable: whether it acknowledges.
    """

    open_socket: Callable[[], Socket]
    address: tuple[str, int]
    http: tuple[str, int]
    reliable: bool


def _sent(to: Socket, frames: list[bytes]) -> int:
    """Send a message, if it goes within the socket's time; read answers away."""
    with contextlib.suppress(zmq.Again):
        to.send_multipart(frames)
        while to.socket_type == zmq.DEALER and to.poll(0):
            to.recv_multipart(zmq.DONTWAIT)
        return 1
    return 0


def _busy(_target: Target) -> Attack:
    def attack() -> int:
        until_s = time.monotonic() + _BUSY_S
        while time.monotonic() < until_s:
            pass
        return 0

    return attack


def _garbage(target: Target) -> Attack:
    to = target.open_socket()
    messages = [[secrets.token_bytes(100), secrets.token_bytes(1000)] for _ in range(100)]
    # One frame is a control message where there are any.
    messages += [[secrets.token_bytes(100)] for _ in range(100)]
    return lambda: sum(_sent(to, frames) for frames in messages)


def _frames(target: Target) -> Attack:
    to = target.open_socket()
    return lambda: _sent(to, [_FRAME] * _N_FRAMES)


def _endless(target: Target) -> Attack:
    """A message of frame after frame, which libzmq's own sockets would not send before its end."""
    frame = b"\x03" + struct.pack(">Q", len(_FRAME)) + _FRAME
    kind = b"DEALER" if target.reliable else b"PUSH"
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    opening = _GREETING + b"\x04" + bytes([len(body)]) + body

    def attack() -> int:
        n_connections = 0
        with (
            contextlib.suppress(OSError),
            socket.create_connection(target.address, timeout=_CONNECT_S) as peer,
        ):
            n_connections += 1
            peer.sendall(opening)
            while True:
                peer.sendall(frame * 4000)
        time.sleep(_RETRY_S)
        return n_connections

    return attack


def _largest(target: Target) -> Attack:
    to, source = target.open_socket(), f"large-{os.getpid()}"
    particles = read_events(sample_path("sm_unseen"))
    largest = np.resize(particles, (DEFAULT_MAX_EVENTS, *particles.shape[1:]))
    header, payload = encode_message(source, 0, time.time_ns(), largest)
    fields, seq = msgpack.unpackb(header), 0
    if target.reliable:
        _sent(to, [hello(source, 0)])

    def attack() -> int:
        nonlocal seq
        fields["seq"], fields["t_ns"] = seq, time.time_ns()
        n_sent = _sent(to, [msgpack.packb(fields), payload])
        seq += n_sent
        return n_sent

    return attack


def _sources(target: Target) -> Attack:
    to, n_named = target.open_socket(), 0
    event = read_events(sample_path("sm_unseen"))[:1]

    def attack() -> int:
        nonlocal n_named
        source = f"new-{os.getpid()}-{n_named}"
        n_named += 1
        if target.reliable:
            _sent(to, [hello(source, 0)])
        return _sent(to, encode_message(source, 0, time.time_ns(), event))

    return attack


def _headers(target: Target) -> Attack:
    to = target.open_socket()
    header = msgpack.packb({"v": 1, "source": "x" * 3_000_000})
    return lambda: _sent(to, [header, b""])


def _slow_http(target: Target) -> Attack:
    clients: list[socket.socket] = []

    def attack() -> int:
        """Keep many requests open, each a byte further, and never read an answer."""
        n_new = 0
        while len(clients) < _N_CLIENTS:
            try:
                client = socket.create_connection(target.http, timeout=_CONNECT_S)
            except OSError:
                break
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            n_new += 1
            clients.append(client)
            with contextlib.suppress(OSError):
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        for client in list(clients):
            try:
                client.sendall(b"a")
            except OSError:
                client.close()
                clients.remove(client)
        time.sleep(_RETRY_S)
        return n_new

    return attack


def _uninvited(target: Target) -> Attack:
    """Right messages from somebody who is not on the list, and who comes again and again."""
    event = read_events(sample_path("sm_unseen"))[:1]

    def attack() -> int:
        try:
            to = target.open_socket()
        except zmq.ZMQError:  # libzmq has not let go of enough of those before
            time.sleep(_CONNECT_S / 10)
            return 0
        # What a socket takes before its handshake has failed goes nowhere: connections count.
        _sent(to, encode_message(f"mallory-{os.getpid()}", 0, time.time_ns(), event))
        time.sleep(_RETRY_S)
        to.close(linger=0)
        return 1

    return attack


#: By name; `busy` sends nothing and takes a core, which the others do too.
KINDS: dict[str, Callable[[Target], Attack]] = {
    "busy": _busy,
    "garbage": _garbage,
    "frames": _frames,
    "endless": _endless,
    "largest": _largest,
    "sources": _sources,
    "headers": _headers,
    "slow-http": _slow_http,
    "uninvited": _uninvited,
}
#: What is the same with --reliable.
NOT_RELIABLE = ("busy", "slow-http")
