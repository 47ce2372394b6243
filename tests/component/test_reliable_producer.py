"""The reliable producer: what bounds it, what it waits for, what it says."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from engines.errors import ArtifactError, EndpointError, MessageError
from stream.delivery import protocol
from stream.delivery.answers import Answers
from stream.delivery.protocol import decode_control
from stream.endpoints import Context, bound_endpoint, open_receiver
from stream.header import decode_header
from tests.conftest import MakeEvents, Track
from tests.support_reliable import BAD, WAIT_S, Server, marked, once, producing, stored, wait_for


def test_credit_bounds_what_is_on_its_way(
    context: Context, track: Track, make_events: MakeEvents
) -> None:
    router = track(open_receiver(context, "tcp://127.0.0.1:*", "router"))
    size = 100 * 19 * 3 * 4
    with producing(context, bound_endpoint(router)) as producer:
        for _ in range(30):
            producer.send(make_events(100))
        name, greeting = router.recv_multipart()
        assert decode_control(greeting).first == 0
        router.send_multipart([name, protocol.welcome("daq", 0, 0, 5 * size + 1)])

        def received() -> list[int]:
            found = []
            while router.poll(300):
                frames = router.recv_multipart()[1:]
                found += [decode_header(frames).seq] if len(frames) == 2 else []
            return found

        assert received() == [0, 1, 2, 3, 4]
        router.send_multipart([name, protocol.ack("daq", 2, 5 * size + 1)])
        assert received() == [5, 6]
        router.send_multipart([name, protocol.ack("daq", 7, 1)])  # one always may
        assert received() == [7]
        router.send_multipart([name, protocol.ack("daq", 8, 2 * size)])
        assert received() == [8, 9]
        router.send_multipart([name, protocol.welcome("daq", 8, 8, 2 * size)])  # they got lost
        assert received() == [8, 9]
        assert producer.n_unacknowledged == 22


def test_reliable_producer_at_a_plain_consumer_waits_and_says_so(
    context: Context, track: Track
) -> None:
    pull = track(open_receiver(context, "tcp://127.0.0.1:*", "pull"))
    with producing(context, bound_endpoint(pull)) as producer:
        producer.send(marked(0))
        with pytest.raises(EndpointError, match=r"within 0.5 s .* stream-consumer --reliable"):
            producer.flush(0.5)
        assert producer.n_unacknowledged == 1


def test_silent_consumer_is_left_for_a_new_connection(
    context: Context, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.delivery.link._SILENCE_S", 0.1)
    monkeypatch.setattr("stream.delivery.link._DEAD_S", 0.5)
    router = track(open_receiver(context, "tcp://127.0.0.1:*", "router"))
    names: set[bytes] = set()
    with producing(context, bound_endpoint(router)) as producer:
        producer.send(marked(0))
        until = time.monotonic() + WAIT_S
        while len(names) < 3 and time.monotonic() < until:
            if router.poll(100):
                names.add(router.recv_multipart()[0])
    assert len(names) == 3


def test_close_and_stop_do_not_wait_for_a_consumer(context: Context, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/nobody.sock"
    stopped = threading.Event()
    with producing(context, endpoint, buffer_bytes=3000, stopped=stopped.is_set) as producer:
        assert producer.send(marked(0)) == 0
        with pytest.raises(EndpointError, match=r"no consumer .* within 0.2 s"):
            producer.send(marked(1), timeout_s=0.2)
        with pytest.raises(EndpointError, match="no consumer answered"):
            producer.resume(0.2)
        threading.Timer(0.2, stopped.set).start()
        assert producer.send(marked(1)) is None
        assert producer.flush() is False
        started = time.monotonic()
    assert time.monotonic() - started < 1.0


def test_buffer_bounds_what_waits(context: Context, tmp_path: Path) -> None:
    size = 10 * 19 * 3 * 4
    with producing(context, f"ipc://{tmp_path}/nobody.sock", buffer_bytes=5 * size) as producer:
        for seq in range(5):
            producer.send(marked(seq), timeout_s=0.1)
        with pytest.raises(EndpointError):
            producer.send(marked(5), timeout_s=0.1)
        assert producer.following == 5
        assert producer.n_unacknowledged == 5


def test_spool_that_cannot_be_written_keeps_the_message_with_the_caller(
    context: Context, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    with producing(context, server.endpoint, spool=tmp_path / "spool") as producer:
        producer.send(marked(0))
        assert producer.flush(WAIT_S)
        spool = producer._spool
        assert spool is not None
        spool._file.execute("PRAGMA query_only = 1")
        with pytest.raises(ArtifactError, match="cannot keep messages in"):
            producer.send(marked(1), timeout_s=0.3)
        spool._file.execute("PRAGMA query_only = 0")
        assert producer.send(marked(1)) == 1
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 2)


def test_refused_message_is_reported_and_passed_over(
    context: Context, serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with caplog.at_level(logging.ERROR), producing(context, server.endpoint) as producer:
        producer.send(marked(0))
        producer.send(marked(BAD))
        producer.send(marked(2))
        with pytest.raises(
            EndpointError, match=r"refused 1 messages of 'daq', last 1: .*cannot embed"
        ):
            producer.flush(WAIT_S)
        assert producer.n_unacknowledged == 0
    assert "message 1 was refused" in caplog.text
    server.stop()
    assert stored(server.folder) == [("daq", 0, 0, 0.0), ("daq", 2, 1, 2.0)]


def test_full_disk_of_the_spool_is_waited_for(
    context: Context,
    serve: Callable[..., Server],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, large = serve(), marked(1, 1000)
    with producing(context, server.endpoint, spool=tmp_path / "spool") as producer:
        producer.send(marked(0))
        spool = producer._spool
        assert spool is not None
        n_pages = spool._file.execute("PRAGMA page_count").fetchone()[0]
        spool._file.execute(f"PRAGMA max_page_count = {n_pages}")
        with pytest.raises(ArtifactError, match="full"):
            producer.send(large, timeout_s=0.3)

        def make_room() -> None:
            with producer._changed:
                spool._file.execute("PRAGMA max_page_count = 1000000")

        timer = threading.Timer(0.8, make_room)
        timer.start()
        assert producer.send(large) == 1
        timer.join()
        assert producer.flush(WAIT_S)
    assert sum("message not kept" in line.getMessage() for line in caplog.records) == 1
    server.stop()
    assert stored(server.folder) == once("daq", 2)


def test_stop_ends_the_wait_for_a_disk(context: Context, tmp_path: Path) -> None:
    stopped = threading.Event()
    endpoint, spool = f"ipc://{tmp_path}/nobody.sock", tmp_path / "spool"
    with producing(context, endpoint, spool=spool, stopped=stopped.is_set) as producer:
        assert producer._spool is not None
        producer._spool._file.execute("PRAGMA query_only = 1")
        threading.Timer(0.3, stopped.set).start()
        assert producer.send(marked(0)) is None
        assert producer.following == 0


def test_acknowledged_messages_that_the_spool_cannot_drop_yet_are_dropped_later(
    context: Context, serve: Callable[..., Server], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/later.sock"
    with producing(context, endpoint, spool=tmp_path / "spool") as producer:
        for seq in range(3):
            producer.send(marked(seq))
        spool = producer._spool
        assert spool is not None
        spool._file.execute("PRAGMA query_only = 1")
        server = serve(endpoint)
        assert producer.flush(WAIT_S)

        def n_kept() -> int:
            with producer._changed:
                return len(spool.messages())

        assert n_kept() == 3
        with producer._changed:
            spool._file.execute("PRAGMA query_only = 0")
        wait_for(lambda: n_kept() == 0, "the spool to be emptied")
        assert producer.send(marked(3)) == 3
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 4)


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_message_that_the_consumer_cannot_take_is_refused_here(
    context: Context, serve: Callable[..., Server], dtype: str
) -> None:
    """In float16 it would pass through the socket, and be refused there for good."""
    server = serve(max_events=20)
    with producing(context, server.endpoint, dtype=dtype) as producer:
        producer.resume(WAIT_S)
        message = r"message 0 has 21 events; the consumer takes 20; send smaller"
        with pytest.raises(MessageError, match=message):
            producer.send(marked(0, 21))
        for seq in range(2):  # and it goes on
            assert producer.send(marked(seq, 20)) == seq
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 2)


def test_message_handed_over_before_its_limit_was_known_ends_the_producer(
    context: Context, serve: Callable[..., Server], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/later.sock"
    with producing(context, endpoint) as producer:
        producer.send(marked(0))
        producer.send(marked(1, 21))
        server = serve(endpoint, max_events=20)
        with pytest.raises(EndpointError, match=r"message 1 has 21 .* --max-message-events"):
            producer.flush(WAIT_S)
        with pytest.raises(EndpointError, match="message 1 has 21"):
            producer.send(marked(2))
    server.stop()
    assert stored(server.folder) == once("daq", 1)


@pytest.mark.parametrize("encrypted", [False, True])
def test_largest_message_that_is_said_to_go_does(
    context: Context, track: Track, encrypted: bool
) -> None:
    router, dealer = track(context.socket(zmq.ROUTER)), track(context.socket(zmq.DEALER))
    router.setsockopt(zmq.MAXMSGSIZE, 10_000)
    if encrypted:
        (public, secret), (own_public, own_secret) = zmq.curve_keypair(), zmq.curve_keypair()
        router.curve_server, router.curve_secretkey = True, secret
        dealer.curve_serverkey, dealer.curve_publickey = public, own_public
        dealer.curve_secretkey = own_secret
    router.bind("tcp://127.0.0.1:*")
    dealer.connect(bound_endpoint(router))
    answers = Answers()
    assert answers.max_bytes == 0
    answers.socket = router
    dealer.send(bytes(answers.max_bytes))
    assert router.poll(int(1000 * WAIT_S))
    router.recv_multipart()
    dealer.send(bytes(answers.max_bytes + 1))
    assert not router.poll(300)


def test_every_refusal_is_counted_and_few_are_logged(
    context: Context, serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with producing(context, server.endpoint) as producer:
        for _ in range(150):
            producer.send(marked(BAD))
        wait_for(lambda: not producer.n_unacknowledged, "the answers")
        assert producer.n_refused == 150
        with pytest.raises(EndpointError, match="refused 150 messages of 'daq', last 149"):
            producer.flush(WAIT_S)
    assert sum("was refused" in line.getMessage() for line in caplog.records) == 1
