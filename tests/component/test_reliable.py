"""The reliable exchange over real sockets: each message counts once, whatever is lost or dies."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import numpy as np
import pytest
import zmq

from engines.errors import ArtifactError, EndpointError, MessageError
from engines.types import FloatArray
from stream.delivery import protocol
from stream.delivery.consumer import ReliableDelivery
from stream.delivery.producer import ReliableProducer
from stream.delivery.protocol import decode_control
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.message import Reason, decode_header, decode_message, encode_message
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import StateStore

MakeEvents: TypeAlias = Callable[..., FloatArray]
Track: TypeAlias = Callable[[Socket], Socket]
Drops: TypeAlias = Callable[[list[bytes]], bool]
WAIT_S = 20.0
#: Mark of events that no encoder can embed.
BAD = 666


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.01)


def check(particles: FloatArray) -> None:
    if particles[:1, 0, 0].tolist() == [BAD]:
        msg = "the encoder cannot embed\nsuch an event"
        raise MessageError(Reason.EMBEDDING, msg)


class Server:
    """A consumer that keeps every message and tests none."""

    def __init__(self, folder: Path, context: Context, endpoint: str, **options: Any) -> None:  # noqa: ANN401
        self.folder, self.metrics, self.accepted = folder, Metrics(), 0
        self.state = RunState(folder, {}, self.metrics, SparseLog(), name="r")
        self.delivery = ReliableDelivery(self.state, self.metrics, SparseLog(), **options)
        self.socket = open_receiver(context, endpoint, "router")
        self.endpoint = bound_endpoint(self.socket)
        self.delivery.socket = self.socket
        self.paused, self.stopped = threading.Event(), threading.Event()
        self._patch = pytest.MonkeyPatch()
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            while not self.stopped.is_set():
                if self.paused.is_set():
                    time.sleep(0.01)
                elif (frames := self.delivery.receive(20)) is not None:
                    self._take(frames)
        except BaseException as exc:
            self.fault = exc
            raise

    def _take(self, frames: list[Any]) -> None:
        header = None
        try:
            header = decode_header(frames)
            if not self.delivery.admits(header):
                return
            check(decode_message(frames).particles)
            self.delivery.accept(header, frames)
            self.accepted += 1
        except MessageError as exc:
            self.delivery.refuse(header, exc)

    def stop(self) -> None:
        """End in order."""
        self._halt()
        self.state.close(clean=True)
        self.delivery.finish()
        self.socket.close()

    def kill(self) -> None:
        """End with what is on the disk, and not another word."""

        def write(*_words: object) -> None:
            msg = "killed"
            raise sqlite3.OperationalError(msg)

        self._halt()
        writer = self.state._writer
        writer._gave_up = True
        self._patch.setattr(writer._store, "write", write)
        self.socket.close(linger=0)
        self.state.close(clean=False)
        self.delivery._wake.close()

    def _halt(self) -> None:
        self.stopped.set()
        self.thread.join()
        assert self.fault is None


@pytest.fixture
def serve(context: Context, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(endpoint: str = "tcp://127.0.0.1:*", **options: Any) -> Server:  # noqa: ANN401
        servers.append(Server(tmp_path / "state", context, endpoint, **options))
        return servers[-1]

    yield start
    for server in servers:
        if not server.stopped.is_set():
            server.stop()


@contextmanager
def producing(
    context: Context,
    endpoint: str,
    source: str = "daq",
    **options: Any,  # noqa: ANN401
) -> Iterator[ReliableProducer]:
    """A producer that is closed without waiting for anything."""
    producer = ReliableProducer(lambda: open_sender(context, endpoint, "dealer"), source, **options)
    try:
        yield producer
    finally:
        producer.close()


def stored(folder: Path) -> list[tuple[str, int, int, float]]:
    """Return source, seq, messages missing before and the mark of what is kept, in order."""
    store = StateStore(folder, {})
    found = []
    for one in store.messages():
        message = decode_message([one.header, one.payload])
        mark = float(message.particles[0, 0, 0]) if len(message) else -1.0
        found.append((message.header.source, message.header.seq, one.n_missing, mark))
    store.close()
    return found


def marked(mark: int, n: int = 10) -> FloatArray:
    particles = np.zeros((n, 19, 3), np.float32)
    particles[:, 0, 0] = mark
    return particles


def once(source: str, n: int, first: int = 0) -> list[tuple[str, int, int, float]]:
    return [(source, seq, 0, float(seq)) for seq in range(first, n)]


class Proxy:
    """Stands between producers and a consumer and drops what it is told to."""

    def __init__(self, context: Context, target: str) -> None:
        self._context, self._target = context, target
        self.drops_up: Drops = lambda _: False
        self.drops_down: Drops = lambda _: False
        self._front = context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.endpoint = bound_endpoint(self._front)
        self._backs: dict[bytes, Socket] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._stopped.is_set():
            ready = dict(poller.poll(20))
            if self._front in ready:
                name, *frames = self._front.recv_multipart()
                if name not in self._backs:
                    self._backs[name] = open_sender(self._context, self._target, "dealer")
                    poller.register(self._backs[name], zmq.POLLIN)
                if not self.drops_up(frames):
                    self._backs[name].send_multipart(frames)
            for name, back in self._backs.items():
                if back in ready:
                    frames = back.recv_multipart()
                    if not self.drops_down(frames):
                        self._front.send_multipart([name, *frames])

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        for socket in (self._front, *self._backs.values()):
            socket.close(linger=0)


@pytest.fixture
def proxy(context: Context, serve: Callable[..., Server]) -> Iterator[tuple[Proxy, Server]]:
    server = serve()
    made = Proxy(context, server.endpoint)
    yield made, server
    made.close()


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


def talk(peer: Socket, text: bytes | list[bytes], op: str) -> protocol.Control:
    """Send something; return the first answer of a kind."""
    peer.send_multipart([text] if isinstance(text, bytes) else text)
    return hear(peer, op)


def hear(peer: Socket, op: str) -> protocol.Control:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if peer.poll(100):
            control = decode_control(peer.recv())
            if control.op == op:
                return control
    pytest.fail(f"no {op!r} came")


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
            producer.send(marked(1))
        spool._file.execute("PRAGMA query_only = 0")
        assert producer.send(marked(1)) == 1
        assert producer.flush(WAIT_S)
    server.stop()
    assert stored(server.folder) == once("daq", 2)
