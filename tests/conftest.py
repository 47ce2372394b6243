"""What tests share: events, and ZeroMQ sockets that cannot outlive their test."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import pytest
import zmq

from engines.types import FloatArray
from stream.endpoints import Context, Socket

MakeEvents: TypeAlias = Callable[..., FloatArray]
Track: TypeAlias = Callable[[Socket], Socket]
Receive: TypeAlias = Callable[[Socket], list[bytes]]

_TIMEOUT_S = 20.0
# Before torch loads: the small products here lose more than they win by waiting for a second
# thread, tenfold on a busy machine. Commands set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts background jobs with SIGINT ignored, which the commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make_events() -> MakeEvents:
    """Return a maker of valid events: `make_events(n, seed=0)` is (n, 19, 3) float32."""

    def make(n: int, seed: int = 0) -> FloatArray:
        rng = np.random.default_rng(seed)
        particles = rng.normal(size=(n, 19, 3)).astype(np.float32)
        particles[:, :, 0] = rng.exponential(30.0, size=(n, 19))
        particles[:, 0, 1] = 0.0
        particles[rng.random((n, 19)) < 0.4] = 0.0
        return particles

    return make


@pytest.fixture
def keep_logging() -> Iterator[None]:
    """Put the log's handlers back after a command that was run inside the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def context() -> Iterator[Context]:
    """Return a ZeroMQ context; the test fails if its sockets keep it from ending."""
    made: Context = zmq.Context()
    yield made
    ending = threading.Thread(target=made.term, daemon=True)
    ending.start()
    ending.join(timeout=10.0)
    if ending.is_alive():
        pytest.fail("the ZeroMQ context did not end: a socket of this test is still open")


@pytest.fixture
def track(context: Context) -> Iterator[Track]:
    """Return a function that has a socket closed when the test ends."""
    sockets: list[Socket] = []

    def remember(socket: Socket) -> Socket:
        sockets.append(socket)
        return socket

    yield remember
    for socket in sockets:
        socket.close(linger=0)


@pytest.fixture
def receive() -> Receive:
    """Return a receiver of one message that fails where none comes."""

    def take(socket: Socket) -> list[bytes]:
        if not socket.poll(round(_TIMEOUT_S * 1000)):
            pytest.fail(f"no message came within {_TIMEOUT_S:g} s")
        return socket.recv_multipart(zmq.DONTWAIT)

    return take
