"""The reliable consumer's answers to producers of any kind, hostile ones too."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
import zmq

from stream.delivery import protocol
from stream.delivery.consumer import ReliableDelivery
from stream.delivery.protocol import decode_control
from stream.endpoints import Context, bound_endpoint, open_receiver, open_sender
from stream.message import encode_message
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from tests.conftest import MakeEvents, Track
from tests.support_reliable import (
    BAD,
    WAIT_S,
    Server,
    hear,
    marked,
    once,
    producing,
    stored,
    talk,
    wait_for,
)


def test_refused_message_is_missing_after_a_kill_too(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    endpoint = server.endpoint
    peer = track(open_sender(context, endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    bad = encode_message("daq", 0, time.time_ns(), marked(BAD))
    assert talk(peer, bad, "refused").seq == 0
    assert hear(peer, "ack").next == 1
    server.kill()
    server = serve(endpoint)
    again = track(open_sender(context, endpoint, "dealer"))
    again.send_multipart(encode_message("daq", 1, time.time_ns(), marked(1)))
    assert hear(again, "ack").next == 2
    server.stop()
    assert stored(server.folder) == [("daq", 1, 1, 1.0)]


def test_unknown_source_is_asked_who_it_is(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    frames = encode_message("daq", 7, time.time_ns(), marked(7))
    assert talk(peer, frames, "who").source == "daq"
    assert server.accepted == 0
    assert talk(peer, protocol.hello("daq", 7), "welcome").expected == 7
    assert talk(peer, frames, "ack").next == 8


def test_gap_is_told_once(context: Context, track: Track, serve: Callable[..., Server]) -> None:
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    for seq in range(1, 20):
        peer.send_multipart(encode_message("daq", seq, time.time_ns(), marked(seq)))
    assert hear(peer, "welcome").expected == 0
    time.sleep(0.2)
    left = []
    while peer.poll(0):
        left.append(decode_control(peer.recv()))
    assert left == []
    assert server.accepted == 0


def test_more_sources_than_allowed_are_refused(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve(max_sources=2)
    peers = [track(open_sender(context, server.endpoint, "dealer")) for _ in range(3)]
    for name, peer in zip("ab", peers, strict=False):
        talk(peer, protocol.hello(name, 0), "welcome")
    refusal = talk(peers[2], protocol.hello("c", 0), "refused")
    assert "2 sources are connected" in refusal.text
    # One that is done makes room.
    end = encode_message("a", 0, time.time_ns(), marked(0)[:0], end=True)
    assert talk(peers[0], end, "ack").next == 1
    talk(peers[2], protocol.hello("c", 0), "welcome")
    # And whoever is known may come back.
    talk(peers[1], protocol.hello("b", 0), "welcome")


GARBAGE = [
    [b""],
    [b"\xc1"],
    [b"", b""],
    [b"\x81", b"x", b"y"],
    [bytes(5000)],
    [msgpack.packb({"v": 1, "op": "ack", "source": "daq", "next": 2**63, "credit": 5})],
    [msgpack.packb({"v": 1, "op": "hello", "source": "daq", "first": 2**64 - 1})],
    [msgpack.packb({"v": 1, "op": "hello", "source": "a\nb", "first": 1})],
    [msgpack.packb({"v": 1, "op": "welcome", "source": "daq"})],
    [msgpack.packb({"v": 1, "op": "refused", "source": "daq", "reason": "x", "text": "y"})],
    [
        msgpack.packb(
            {"v": 1, "op": "refused", "source": "daq", "seq": -1, "reason": "", "text": ""}
        )
    ],
    [b"x" * 10] * 50,
]


def test_garbage_harms_nobody(context: Context, track: Track, serve: Callable[..., Server]) -> None:
    server = serve()
    vandal = track(open_sender(context, server.endpoint, "dealer"))
    with producing(context, server.endpoint) as producer:
        for seq in range(60):
            producer.send(marked(seq))
            vandal.send_multipart(GARBAGE[seq % len(GARBAGE)])
            vandal.send_multipart(encode_message("other", seq, 0, marked(seq)))
            vandal.poll(0)
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 60)


def test_source_that_begins_at_the_end_of_numbers(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    peer.send_multipart(encode_message("daq", 0, time.time_ns(), marked(0)))
    assert hear(peer, "ack").next == 1
    last = protocol.END - 1
    assert talk(peer, protocol.hello("daq", last), "welcome").expected == last
    peer.send_multipart(encode_message("daq", last, time.time_ns(), marked(1)))
    wait_for(lambda: server.accepted == 2, "the message")
    other = track(open_sender(context, server.endpoint, "dealer"))
    talk(other, protocol.hello("good", 0), "welcome")
    assert talk(other, encode_message("good", 0, time.time_ns(), marked(2)), "ack").next == 1


def test_flood_of_greetings_does_not_hold_the_stream_up(
    context: Context, track: Track, tmp_path: Path
) -> None:
    state = RunState(tmp_path, {}, Metrics(), SparseLog(), name="r")
    delivery = ReliableDelivery(state, Metrics(), SparseLog())
    delivery.socket = track(open_receiver(context, "tcp://127.0.0.1:*", "router"))
    endpoint, stop = bound_endpoint(delivery.socket), threading.Event()

    def flood() -> None:
        peer = open_sender(context, endpoint, "dealer")
        while not stop.is_set():
            if peer.poll(10, zmq.POLLOUT):
                peer.send(protocol.hello("vandal", 0))
            while peer.poll(0):
                peer.recv()
        peer.close(linger=0)

    vandals = [threading.Thread(target=flood) for _ in range(2)]
    for vandal in vandals:
        vandal.start()
    try:
        wait_for(lambda: delivery.socket is not None and bool(delivery.socket.poll(0)), "greetings")
        started = time.monotonic()
        assert delivery.receive(50) is None
        assert time.monotonic() - started < 2.0
    finally:
        stop.set()
        for vandal in vandals:
            vandal.join()
        state.close(clean=True)
        delivery.finish()


def test_wrong_kinds_of_peers(
    context: Context, track: Track, serve: Callable[..., Server], make_events: MakeEvents
) -> None:
    """A plain PUSH and a REQ cannot speak it: nothing of theirs counts, nobody else is harmed."""
    server = serve()
    push, request = context.socket(zmq.PUSH), context.socket(zmq.REQ)
    for socket in (push, request):
        track(socket).connect(server.endpoint)
    request.send_multipart(encode_message("req", 0, time.time_ns(), make_events(5)))
    with contextlib.suppress(zmq.Again):  # it is cut off sooner or later
        push.send_multipart(encode_message("push", 0, time.time_ns(), make_events(5)), zmq.DONTWAIT)
    with producing(context, server.endpoint) as producer:
        producer.send(marked(0))
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 1)


def test_two_producers_under_one_name_are_noticed(
    context: Context,
    serve: Callable[..., Server],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.delivery.sources._BOTH_S", 0.3)
    server = serve()
    both = [producing(context, server.endpoint) for _ in range(2)]
    with both[0] as one, both[1] as other:
        for producer in (one, other):
            producer.resume(WAIT_S)
        for seq in range(20):
            for producer in (one, other):
                producer.send(marked(seq))
            time.sleep(0.05)
        assert one.flush(WAIT_S)
        assert other.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 20)
    assert sum("two producers use one name" in one.getMessage() for one in caplog.records) == 1


def test_who_has_asked_while_the_consumer_ends_is_answered(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    """Windows may be tested for a minute at the end; producers take new connections meanwhile."""
    server = serve()
    old = track(open_sender(context, server.endpoint, "dealer"))
    talk(old, protocol.hello("daq", 0), "welcome")
    old.send_multipart(encode_message("daq", 0, time.time_ns(), marked(0), end=True))
    wait_for(lambda: server.accepted == 1, "the message")
    server._halt()
    old.close(linger=0)
    new = track(open_sender(context, server.endpoint, "dealer"))
    new.send(protocol.hello("daq", 0))
    new.send_multipart(encode_message("daq", 0, time.time_ns(), marked(0), end=True))
    stranger = track(open_sender(context, server.endpoint, "dealer"))
    stranger.send(protocol.hello("another", 0))
    time.sleep(0.2)
    server.state.close(clean=True)
    server.delivery.finish()
    assert hear(new, "welcome").next == 1
    assert not stranger.poll(200)
    server.socket.close()
    assert stored(server.folder) == once("daq", 1)
