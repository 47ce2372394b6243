"""Producers that mean no good, as real processes: memory stays bounded and others are served."""

import contextlib
import logging
import socket as unix
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import numpy as np
import pytest
import zmq

from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.memory_guard import MemoryGuard, read_rss_bytes
from stream.message import decode_message
from stream.security.handshakes import ConnectionWatch
from stream.sender import Sender
from tests.support_security import ENDLESS_FRAMES, hostile, raw_frame, raw_peer

Track: TypeAlias = Callable[[Socket], Socket]
MakeEvents: TypeAlias = Callable[..., np.ndarray]

MIB = 2**20
_PATIENCE_S = 20.0


@pytest.fixture
def guard(context: Context) -> Iterator[MemoryGuard]:
    made = MemoryGuard(
        lambda endpoint: open_receiver(context, endpoint),
        "tcp://127.0.0.1:*",
        read_rss_bytes() + 200 * MIB,
    )
    yield made
    made.close()


def port_of(socket: Socket) -> int:
    return int(bound_endpoint(socket).rpartition(":")[2])


@pytest.fixture
def attack() -> Iterator[Callable[..., None]]:
    with ExitStack() as stack:

        def begin(*arguments: object) -> None:
            process = hostile(ENDLESS_FRAMES, *arguments)
            stack.callback(process.wait)
            stack.callback(process.kill)

        yield begin


@pytest.mark.parametrize("frame_bytes", [0, 1000, 3_000_000])
def test_message_without_an_end_cannot_fill_the_memory(
    context: Context,
    track: Track,
    guard: MemoryGuard,
    attack: Callable[..., None],
    make_events: MakeEvents,
    caplog: pytest.LogCaptureFixture,
    frame_bytes: int,
) -> None:
    caplog.set_level(logging.WARNING)
    endpoint, before, most = bound_endpoint(guard.socket), read_rss_bytes(), 0
    attack(port_of(guard.socket), frame_bytes, "PUSH")
    good = Sender(track(open_sender(context, endpoint)), endpoint, "good", timeout_s=_PATIENCE_S)
    deadline = time.monotonic() + 2 * _PATIENCE_S
    n_received = 0
    while guard.n_resets < 3 or n_received < 20:
        assert time.monotonic() < deadline, (guard.n_resets, n_received)
        socket = guard.check(guard.socket)
        most = max(most, read_rss_bytes())
        if good._socket.poll(0, zmq.POLLOUT):
            good.send(make_events(5))
        while socket.poll(5):
            message = decode_message(socket.recv_multipart())
            assert message.header.source == "good"
            n_received += 1
    # Fifty milliseconds of loopback and the wait for the old socket come on top of the limit.
    assert most - before < 900 * MIB
    assert "what its peers had queued is lost" in caplog.text
    assert "the consumer's own" not in caplog.text


def test_message_of_very_many_frames_ends_and_is_one_message(
    context: Context, track: Track
) -> None:
    pull = track(open_receiver(context, "tcp://127.0.0.1:*"))
    with raw_peer(port_of(pull)) as peer:
        frames = raw_frame(b"", more=True) * 100_000 + raw_frame(b"", more=False)
        peer.sendall(frames)
        assert pull.poll(10_000)
        assert len(pull.recv_multipart()) == 100_001


def test_frame_that_is_too_large_ends_its_connection(context: Context, track: Track) -> None:
    watch = ConnectionWatch(context)
    pull = track(open_receiver(context, "tcp://127.0.0.1:*", max_events=100, prepare=watch.attach))
    with raw_peer(port_of(pull)) as peer:
        peer.sendall(raw_frame(bytes(100 * 228), more=False))
        assert pull.recv() == bytes(100 * 228)
        peer.sendall(raw_frame(bytes(100 * 228 + 1), more=False))
        with contextlib.suppress(ConnectionResetError):
            while peer.recv(4096):  # its greeting, then the end
                pass
    assert not pull.poll(0)


def test_peer_that_says_nothing_is_let_go(
    context: Context, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.endpoints._HANDSHAKE_MS", 300)
    watch = ConnectionWatch(context)
    pull = track(open_receiver(context, "tcp://127.0.0.1:*", prepare=watch.attach))
    peers = [unix.create_connection(("127.0.0.1", port_of(pull))) for _ in range(100)]
    deadline = time.monotonic() + _PATIENCE_S
    while watch.n_denied < 100 or watch.n_open:
        assert time.monotonic() < deadline, (watch.n_denied, watch.n_open)
        time.sleep(0.02)
    for peer in peers:
        peer.close()


def test_connections_are_counted(context: Context, track: Track) -> None:
    watch = ConnectionWatch(context)
    pull = track(open_receiver(context, "tcp://127.0.0.1:*", prepare=watch.attach))
    pushes = [track(open_sender(context, bound_endpoint(pull))) for _ in range(5)]

    def wait_for(n: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while watch.n_open != n:
            assert time.monotonic() < deadline, (watch.n_open, n)
            time.sleep(0.01)

    wait_for(5)
    pushes[0].close(linger=0)
    wait_for(4)
    pull.close()
    wait_for(0)
    assert watch.n_denied == 0
