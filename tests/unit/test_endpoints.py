"""Endpoints: the limits every socket has, and one sentence for each way to name a wrong one."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
import zmq

from engines.errors import EndpointError, ParameterError
from stream.endpoints import (
    Context,
    Socket,
    bound_endpoint,
    is_local,
    open_publisher,
    open_receiver,
    open_sender,
)
from stream.header import DEFAULT_MAX_EVENTS, frame_limit
from stream.security.curve import EVENTS, CurveServer, KeyPair

Track: TypeAlias = Callable[[Socket], Socket]

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("", "malformed"),
        ("5555", "malformed"),
        ("tcp://", "malformed"),
        ("tcp://127.0.0.1", "malformed"),
        ("tcp://127.0.0.1:99999", "malformed"),
        ("tcp://127.0.0.1:port", "malformed"),
        ("http://127.0.0.1:80", "no such transport"),
        ("ipc:///absent/folder/x.sock", "folder does not exist"),
        ("ipc:///tmp/" + "x" * 200, "too long"),
        ("tcp://192.0.2.1:5555", "no such address"),
        ("ipc:///tmp/a\0b", "malformed"),
    ],
)
def test_endpoint_that_cannot_be_bound(context: Context, endpoint: str, text: str) -> None:
    for open_it in (open_receiver, open_publisher):
        with pytest.raises(EndpointError, match=text):
            open_it(context, endpoint)


@pytest.mark.parametrize("endpoint", ["", "tcp://", "tcp://127.0.0.1:99999", "nope://x"])
def test_endpoint_that_cannot_be_connected(context: Context, endpoint: str) -> None:
    with pytest.raises(EndpointError, match="cannot connect to"):
        open_sender(context, endpoint, "push")


def test_unknown_patterns_are_refused(context: Context) -> None:
    with pytest.raises(ParameterError, match="one of pull, router, sub; got 'push'"):
        open_receiver(context, ANY_PORT, "push")
    with pytest.raises(ParameterError, match="one of push, dealer, pub; got 'pull'"):
        open_sender(context, ANY_PORT, "pull")


def test_every_queue_and_frame_is_bounded(context: Context, track: Track) -> None:
    pull = track(open_receiver(context, ANY_PORT))
    router = track(open_receiver(context, ANY_PORT, "router"))
    largest = frame_limit(DEFAULT_MAX_EVENTS)
    keys = CurveServer(KeyPair(*zmq.curve_keypair()), EVENTS)
    assert largest == 16_384 * 19 * 3 * 4
    for socket, most in (
        (pull, largest),
        (router, largest),
        (track(open_receiver(context, ANY_PORT, max_events=300)), 300 * 228),
        (track(open_sender(context, bound_endpoint(pull))), largest),
        (track(open_sender(context, bound_endpoint(router), "dealer")), largest),
        (track(open_publisher(context, ANY_PORT)), 512),
        (track(open_receiver(context, ANY_PORT, curve=keys, max_events=300)), 300 * 228 + 33),
    ):
        assert socket.getsockopt(zmq.MAXMSGSIZE) == most
        assert 0 < int(socket.getsockopt(zmq.HANDSHAKE_IVL)) <= 10_000
        assert 0 < int(socket.getsockopt(zmq.SNDHWM)) <= 1000
        assert 0 < int(socket.getsockopt(zmq.RCVHWM)) <= 1000
        assert 0 <= int(socket.getsockopt(zmq.LINGER)) <= 10_000


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.1.2.3:*", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://lo:5555", True),
        ("ipc:///run/nplm.sock", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://10.1.2.3:5555", False),
        ("tcp://eth0:5555", False),
    ],
)
def test_what_is_local(endpoint: str, local: bool) -> None:
    assert is_local(endpoint) is local
