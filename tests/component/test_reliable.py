"""The reliable exchange over real sockets: each message counts once, whatever is lost or dies."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.errors import EndpointError
from stream.delivery import protocol
from stream.endpoints import Context, open_sender
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


def test_messages_arrive_once_and_in_order(context: Context, serve: Callable[..., Server]) -> None:
    server = serve()
    with producing(context, server.endpoint) as producer:
        assert [producer.send(marked(seq)) for seq in range(200)] == list(range(200))
        assert producer.send_end() == 200
        assert producer.flush(WAIT_S)
        assert producer.n_unacknowledged == 0
    server.stop()
    assert stored(server.folder) == [*once("daq", 200), ("daq", 200, 0, -1.0)]
    assert server.metrics.n_duplicates == 0


def test_two_sources_do_not_mix(context: Context, serve: Callable[..., Server]) -> None:
    server = serve()
    with (
        producing(context, server.endpoint, "a") as a,
        producing(context, server.endpoint, "b") as b,
    ):
        for seq in range(50):
            a.send(marked(seq))
            b.send(marked(seq))
        assert a.flush(WAIT_S)
        assert b.flush(WAIT_S)
    server.stop()
    found = stored(server.folder)
    for source in "ab":
        assert [one for one in found if one[0] == source] == once(source, 50)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_what_the_network_drops_comes_again(
    context: Context, proxy: tuple[Proxy, Server], direction: str
) -> None:
    between, server = proxy
    rng = np.random.default_rng(1)

    def drops(_frames: list[bytes]) -> bool:
        return bool(rng.random() < 0.1)

    if direction in ("up", "both"):
        between.drops_up = drops
    if direction in ("down", "both"):
        between.drops_down = drops
    with producing(context, between.endpoint) as producer:
        for seq in range(100):
            producer.send(marked(seq))
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 100)


def test_message_that_comes_twice_counts_once(
    context: Context, track: Track, serve: Callable[..., Server]
) -> None:
    server = serve()
    peer = track(open_sender(context, server.endpoint, "dealer"))
    talk(peer, protocol.hello("daq", 0), "welcome")
    for seq in (0, 1, 1, 0, 2):
        peer.send_multipart(encode_message("daq", seq, time.time_ns(), marked(seq)))
    wait_for(lambda: server.accepted == 3, "the messages")
    server.stop()
    assert stored(server.folder) == once("daq", 3)
    assert server.metrics.n_duplicates == 2


def test_consumer_that_is_killed_again_and_again(
    context: Context, serve: Callable[..., Server]
) -> None:
    server = serve()
    endpoint = server.endpoint
    with producing(context, endpoint) as producer:
        for seq in range(300):
            producer.send(marked(seq))
            if seq % 60 == 30:
                server.kill()
                server = serve(endpoint)
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 300)


def test_producer_with_a_spool_is_killed(
    context: Context, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    server.paused.set()
    with producing(context, server.endpoint, spool=tmp_path / "spool") as producer:
        for seq in range(20):
            producer.send(marked(seq))
    server.paused.clear()
    with producing(context, server.endpoint, "", spool=tmp_path / "spool") as producer:
        assert producer.source == "daq"
        assert producer.following == 20
        for seq in range(20, 40):
            producer.send(marked(seq))
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 40)
    with producing(context, server.endpoint, "", spool=tmp_path / "spool") as producer:
        assert producer.n_unacknowledged == 0  # dropped from the spool, or nearly all
        assert producer.following == 40


def test_producer_that_makes_its_messages_again_resumes(
    context: Context, serve: Callable[..., Server]
) -> None:
    server = serve()
    first = 0
    for stop in (17, 40, 60):
        with producing(context, server.endpoint) as producer:
            first = producer.resume(WAIT_S)
            for seq in range(first, stop):
                producer.send(marked(seq))
            if stop == 60:
                assert producer.flush(WAIT_S)
            else:
                time.sleep(0.1)
    assert first > 0
    server.stop()
    assert stored(server.folder) == once("daq", 60)


def test_other_messages_under_known_numbers_are_an_error(
    context: Context, serve: Callable[..., Server]
) -> None:
    """A DAQ that begins anew under its old name must hear of it: nothing may vanish silently."""
    server = serve()
    with producing(context, server.endpoint) as producer:
        for seq in range(20):
            producer.send(marked(seq))
        assert producer.flush(WAIT_S)
    with producing(context, server.endpoint) as producer:

        def go_on() -> None:
            for seq in range(5):
                producer.send(marked(1000 + seq))
            producer.flush(WAIT_S)

        with pytest.raises(EndpointError, match=r"has messages of source 'daq' up to 19"):
            go_on()
        with pytest.raises(EndpointError, match="is new here"):
            producer.send(marked(1005))
    server.stop()
    assert stored(server.folder) == once("daq", 20)


def test_spool_that_was_lost_is_noticed_in_the_account(
    context: Context, serve: Callable[..., Server]
) -> None:
    """Its source goes on with later messages: those between are missing."""
    server = serve()
    with producing(context, server.endpoint) as producer:
        for seq in range(5):
            producer.send(marked(seq))
        assert producer.flush(WAIT_S)
    peer = open_sender(context, server.endpoint, "dealer")
    assert talk(peer, protocol.hello("daq", 9), "welcome").expected == 9
    peer.send_multipart(encode_message("daq", 9, time.time_ns(), marked(9)))
    assert hear(peer, "ack").next == 10
    peer.close(linger=0)
    server.stop()
    assert stored(server.folder) == [*once("daq", 5), ("daq", 9, 4, 9.0)]
