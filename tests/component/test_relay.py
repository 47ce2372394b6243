"""What an embedder passes on between producers and the tester, and what it says itself."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import zmq

from engines.errors import MessageError
from engines.types import FloatArray
from stream.delivery import protocol
from stream.delivery.plain import PlainAdmission
from stream.delivery.protocol import Control, decode_control
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.header import Header, decode_header
from stream.message import encode_message
from stream.metrics import Metrics
from stream.roles.embedder import Embedder
from stream.roles.forward import PushForward
from stream.roles.relay import Relay
from stream.sequence import SequenceTracker
from stream.service import Limits
from stream.sparse_log import SparseLog
from stream.wire import EventWire
from tests.conftest import Track
from tests.support import LinearEngine
from tests.support_reliable import WAIT_S, hear, marked, talk


@dataclass
class Line:
    """A relay with its tester, a socket of the test, and a way to connect producers."""

    tester: Socket
    connect: Callable[[], Socket]

    def heard(self, n: int) -> list[tuple[str, str, int]]:
        """Return op (or events), source and seq of the next messages that reach the tester."""
        found = []
        for _ in range(n):
            assert self.tester.poll(int(1000 * WAIT_S))
            frames = self.tester.recv_multipart()[1:]
            if len(frames) == 2:
                header = decode_header(frames, (4,))
                found.append(("events", header.source, header.seq))
            else:
                control = decode_control(frames[0])
                found.append((control.op, control.source, control.seq))
        return found


@pytest.fixture
def line(context: Context, track: Track) -> Iterator[Line]:
    tester = track(open_receiver(context, "tcp://127.0.0.1:*", "router"))
    router = track(open_receiver(context, "tcp://127.0.0.1:*", "router", max_events=20))
    dealer = track(open_sender(context, bound_endpoint(tester), "dealer"))
    endpoint = bound_endpoint(router)
    relay = Relay(dealer, "ab", Metrics(), SparseLog())
    relay.socket = router
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            frames = relay.receive(20)
            if frames is None:
                continue
            header = None
            try:
                header = decode_header(frames)
                relay.admits(header)
                relay.accept(header, frames)
                relay.send(header, np.ones((header.n, 4), np.float32))
            except MessageError as exc:
                relay.refuse(header, exc)

    thread = threading.Thread(target=work)
    thread.start()
    yield Line(tester, lambda: track(open_sender(context, endpoint, "dealer")))
    stopped.set()
    thread.join()


def good(seq: int, source: str = "daq") -> list[bytes]:
    return encode_message(source, seq, time.time_ns(), marked(seq))


def welcomed(line: Line, source: str = "daq", max_bytes: int = 10**6) -> tuple[Socket, Control]:
    """Return a producer's socket, and the welcome that reached it."""
    peer = line.connect()
    peer.send(protocol.hello(source, 0))
    name, frame = line.tester.recv_multipart()
    assert decode_control(frame).source == source
    line.tester.send_multipart([name, protocol.welcome(source, 0, 0, 10**6, max_bytes)])
    return peer, hear(peer, "welcome")


@pytest.mark.parametrize(("there", "said"), [(10**6, 20 * 228), (0, 20 * 228), (1000, 1000)])
def test_welcome_says_what_both_embedder_and_tester_take(line: Line, there: int, said: int) -> None:
    _, welcome = welcomed(line, max_bytes=there)
    assert (welcome.credit, welcome.max_bytes) == (10**6, said)


def test_message_with_a_broken_header_is_told_to_the_tester(line: Line) -> None:
    peer, _ = welcomed(line)
    header, payload = good(1)
    for frames in (good(0), [header, payload[:-1]], good(2)):
        peer.send_multipart(frames)
    wanted = [("events", "daq", 0), ("refused", "daq", 1), ("events", "daq", 2)]
    assert line.heard(3) == wanted


def test_message_without_a_header_is_told_to_the_tester_by_the_next(line: Line) -> None:
    peer, _ = welcomed(line)
    for frames in (good(0), [b"\xc1", b""], [b"\xc1", b""], good(3)):
        peer.send_multipart(frames)
    refused = [("refused", "daq", 1), ("refused", "daq", 2)]
    assert line.heard(4) == [("events", "daq", 0), *refused, ("events", "daq", 3)]
    assert hear(peer, "refused").seq == -1


def test_nobody_makes_the_source_of_another_skip(line: Line) -> None:
    peer, _ = welcomed(line)
    vandal, _ = welcomed(line, "vandal")
    header, payload = good(0)
    assert talk(vandal, [header, payload[:-1]], "who").source == "daq"
    for frames in ([b"\xc1", b""], [b"\xc1", b""], good(2)):
        vandal.send_multipart(frames)
    assert line.heard(1) == [("events", "daq", 2)]
    peer.send_multipart(good(0))
    assert line.heard(1) == [("events", "daq", 0)]


def test_invented_sources_do_not_push_out_one_that_sends(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.roles.relay._MOST_SOURCES", 3)
    peer, _ = welcomed(line)
    name, vandal = b"", line.connect()
    for number in range(6):
        peer.send_multipart(good(number))
        assert line.heard(1) == [("events", "daq", number)]
        vandal.send(protocol.hello(f"invented {number}", 0))
        name, *_ = line.tester.recv_multipart()
    line.tester.send_multipart([name, protocol.ack("daq", 6, 10**6)])
    assert hear(peer, "ack").next == 6


def test_flood_of_greetings_does_not_hold_the_stream_up(
    context: Context, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(track(context.socket(zmq.DEALER)), "ab", Metrics(), SparseLog())
    relay.socket = track(context.socket(zmq.ROUTER))
    until, n_greetings = time.monotonic() + 5.0, 0

    def flood(_: Socket) -> list[bytes] | None:
        nonlocal n_greetings
        n_greetings += 1
        return [b"vandal", protocol.hello("vandal", 0)] if time.monotonic() < until else None

    monkeypatch.setattr("stream.roles.relay.receive_parts", flood)
    assert relay.receive(50) is None
    assert time.monotonic() < until
    assert n_greetings > 10


@pytest.mark.parametrize("pattern", ["push", "dealer"])
def test_guard_looks_while_the_tester_takes_no_more(
    context: Context, track: Track, pattern: str
) -> None:
    socket = track(open_sender(context, "tcp://127.0.0.1:1", pattern))
    count, until = Counter[str](), time.monotonic() + 0.5
    forward = (
        PushForward(socket, "ab", lambda: time.monotonic() > until)
        if pattern == "push"
        else Relay(socket, "ab", Metrics(), SparseLog())
    )
    forward.on_wait = lambda: count.update(["looked"])
    header, embeddings = Header("daq", 0, 1, "<f4", 0, end=False), np.ones((1, 4), np.float32)
    while forward.send(header, embeddings):
        count["sent"] += 1
    assert count["sent"] < 300
    assert 3 <= count["looked"] <= 20


def test_embedder_takes_messages_of_as_many_events_as_it_is_told() -> None:
    metrics, sent = Metrics(), list[int]()

    class Way:
        is_done = True

        def send(self, header: Header, embeddings: FloatArray) -> bool:
            sent.append(len(embeddings))
            return header.n > 0

    admission = PlainAdmission(SequenceTracker())
    embedder = Embedder(LinearEngine(), admission, Way(), metrics, Limits(), EventWire(20))
    for seq, n in enumerate((20, 21)):
        embedder.intake.take(encode_message("daq", seq, time.time_ns(), marked(1, n), dtype="<f2"))
    embedder.intake.close_batch()
    assert sent == [20]
    assert metrics.rejected["too-many-events"] == 1


def test_micro_batch_waits_once_for_a_tester_that_is_gone(
    context: Context, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 messages that wait a second each would keep a stop waiting for minutes."""
    monkeypatch.setattr("stream.roles.relay._TESTER_WAIT_S", 0.2)
    gone = track(context.socket(zmq.DEALER))
    gone.setsockopt(zmq.SNDHWM, 1)
    gone.connect("inproc://nobody-is-there")
    relay = Relay(gone, "ab", Metrics(), SparseLog())
    n_looked = 0

    def look() -> None:
        nonlocal n_looked
        n_looked += 1

    relay.on_wait = look
    header = Header("daq", 0, 1, "<f4", 0, False)
    sent = [relay.send(header, np.zeros((1, 4), np.float32)) for _ in range(50)]
    assert sent.index(False) < 5
    assert not any(sent[5:])
    assert relay.n_dropped == sent.count(False)
    assert 1 <= n_looked <= 10


def test_plain_embedder_that_is_to_stop_waits_once_for_a_tester_that_is_gone(
    context: Context, track: Track
) -> None:
    gone = track(context.socket(zmq.PUSH))
    gone.connect("inproc://nobody-is-there")
    gone.setsockopt(zmq.SNDHWM, 1)
    forward = PushForward(gone, "ab", lambda: True)
    header = Header("daq", 0, 1, "<f4", 0, False)
    started = time.monotonic()
    sent = [forward.send(header, np.zeros((1, 4), np.float32)) for _ in range(2000)]
    assert not sent[-1]
    assert time.monotonic() - started < 5.0
