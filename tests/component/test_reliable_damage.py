"""Messages with broken headers, reliably: each costs itself alone, and only its own source."""

import time
from collections.abc import Callable

import msgpack
import numpy as np
import pytest

from stream.delivery import protocol
from stream.endpoints import Context, open_sender
from stream.header import decode_header
from stream.message import encode_message
from tests.conftest import Track
from tests.support_reliable import (
    WAIT_S,
    Proxy,
    Server,
    hear,
    marked,
    once,
    producing,
    stored,
    talk,
    wait_for,
)


def broken(seq: int, how: str, source: str = "daq") -> list[bytes]:
    """Return a message that no consumer takes."""
    header, payload = encode_message(source, seq, time.time_ns(), marked(seq))
    if how == "payload":
        return [header, payload[:-4]]
    if how == "version":
        return [msgpack.packb({**msgpack.unpackb(header), "v": 2}), payload]
    if how == "frames":
        return [header, payload, b"more"]
    return [b"\xc1", payload]


@pytest.mark.parametrize("how", ["payload", "version", "frames", "unreadable"])
@pytest.mark.parametrize("bad", [(0,), (1,), (0, 1, 2), (2, 3, 6)])
def test_source_goes_on_after_a_broken_header(
    context: Context, track: Track, serve: Callable[..., Server], how: str, bad: tuple[int, ...]
) -> None:
    """Its producer is told which message it was and why."""
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    for seq in range(8):
        good = encode_message("daq", seq, time.time_ns(), marked(seq))
        peer.send_multipart(broken(seq, how) if seq in bad else good)
    told: dict[int, str] = {}
    while len(told) < len(bad):
        refusal = hear(peer, "refused")
        assert refusal.source == "daq"
        assert refusal.text
        if refusal.seq >= 0:
            told[refusal.seq] = refusal.text
    assert tuple(told) == bad
    wait_for(lambda: server.accepted == 8 - len(bad), "the others")
    server.stop()
    found = stored(server.folder)
    assert [seq for _, seq, _, _ in found] == [seq for seq in range(8) if seq not in bad]
    assert sum(n_missing for _, _, n_missing, _ in found) == len(bad)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_headers_cost_their_own_messages_alone(
    context: Context, proxy: tuple[Proxy, Server], seed: int
) -> None:
    """Also where a producer that is started again sends some of them twice."""
    between, server = proxy
    rng = np.random.default_rng(seed)
    bad = set(rng.permutation(98)[:30].tolist())

    def damage(frames: list[bytes]) -> bool:
        if len(frames) == 2 and (seq := decode_header(frames).seq) in bad:
            frames[:] = broken(seq, str(rng.choice(["payload", "unreadable"])))
        return False

    between.drops_up = damage
    first = 0
    for stop in (40, 100):
        with producing(context, between.endpoint) as producer:
            first = producer.resume(WAIT_S)
            for seq in range(first, stop):
                producer.send(marked(seq))
            if stop == 100:
                wait_for(lambda: not producer.n_unacknowledged, "the answers")
            else:
                wait_for(lambda: server.accepted > 10, "some messages")
    server.stop()
    found = stored(server.folder)
    assert [seq for _, seq, _, _ in found] == [seq for seq in range(100) if seq not in bad]
    assert sum(n_missing for _, _, n_missing, _ in found) == len(bad)


def test_nobody_makes_the_source_of_another_skip(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    peer, vandal = (track(open_sender(context, server.endpoint, "dealer")) for _ in range(2))
    talk(peer, protocol.hello("daq", 0), "welcome")
    talk(peer, encode_message("daq", 0, time.time_ns(), marked(0)), "ack")
    talk(vandal, protocol.hello("vandal", 0), "welcome")
    assert talk(vandal, broken(1, "payload"), "who").source == "daq"
    vandal.send(protocol.refused("daq", 1, "shape", "no"))
    for _ in range(3):
        vandal.send_multipart(broken(1, "unreadable"))
    vandal.send_multipart(encode_message("daq", 4, time.time_ns(), marked(4)))
    assert hear(vandal, "welcome").expected == 1
    for seq in (1, 2):
        peer.send_multipart(encode_message("daq", seq, time.time_ns(), marked(seq)))
    wait_for(lambda: server.accepted == 3, "the messages")
    server.stop()
    assert stored(server.folder) == once("daq", 3)


def test_embeddings_of_another_engine_wait_for_a_right_embedder(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    """A wrong one that is deployed for a while costs no event."""
    server = serve(engine="right")

    def sent(seq: int, engine: str) -> list[bytes]:
        header, payload = encode_message("daq", seq, time.time_ns(), marked(seq))
        return [msgpack.packb({**msgpack.unpackb(header), "engine": engine}), payload]

    wrong, right = (track(open_sender(context, server.endpoint, "dealer")) for _ in range(2))
    talk(wrong, protocol.hello("daq", 0), "welcome")
    for seq in range(3):
        wrong.send_multipart(sent(seq, "wrong"))
        refusal = hear(wrong, "refused")
        assert (refusal.source, refusal.seq) == ("daq", -1)
        assert "must be of the engine right" in refusal.text
    assert talk(right, protocol.hello("daq", 0), "welcome").expected == 0
    for seq in range(3):
        right.send_multipart(sent(seq, "right"))
    wait_for(lambda: server.accepted == 3, "the messages")
    server.stop()
    assert stored(server.folder) == once("daq", 3)


def test_unreadable_headers_that_were_saved_up_are_passed_over_some_at_a_time(
    context: Context, track: Track, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them must not hold the stream up; the rest are asked for again."""
    monkeypatch.setattr("stream.delivery.consumer.MOST_UNREAD", 3)
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    first = 0
    for expected in (3, 6):
        for seq in range(first, 8):
            peer.send_multipart(broken(seq, "unreadable"))
        peer.send_multipart(encode_message("daq", 8, time.time_ns(), marked(8)))
        first = hear(peer, "welcome").expected
        assert first == expected
    for seq in range(first, 8):
        peer.send_multipart(broken(seq, "unreadable"))
    peer.send_multipart(encode_message("daq", 8, time.time_ns(), marked(8)))
    wait_for(lambda: server.accepted == 1, "the good one")
    server.stop()
    assert [(seq, n_missing) for _, seq, n_missing, _ in stored(server.folder)] == [(8, 8)]


def test_gap_that_damaged_headers_cannot_explain_is_asked_for(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    for frames in (broken(0, "unreadable"), encode_message("daq", 2, time.time_ns(), marked(2))):
        peer.send_multipart(frames)
    assert hear(peer, "welcome").expected == 0
    for seq in range(3):
        peer.send_multipart(encode_message("daq", seq, time.time_ns(), marked(seq)))
    wait_for(lambda: server.accepted == 3, "the messages")
    server.stop()
    assert stored(server.folder) == once("daq", 3)
