"""What an embedder passes on between producers and the tester, and what it says itself."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from engines.errors import MessageError
from stream.delivery import protocol
from stream.delivery.protocol import Control, decode_control
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.header import decode_header
from stream.message import encode_message
from stream.metrics import Metrics
from stream.roles.relay import Relay
from stream.sparse_log import SparseLog
from tests.conftest import Track
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


def welcomed(line: Line, source: str = "daq") -> tuple[Socket, Control]:
    """Return a producer's socket, and the welcome that reached it."""
    peer = line.connect()
    peer.send(protocol.hello(source, 0))
    name, frame = line.tester.recv_multipart()
    assert decode_control(frame).source == source
    line.tester.send_multipart([name, protocol.welcome(source, 0, 0, 10**6, 10**6)])
    return peer, hear(peer, "welcome")


def test_welcome_says_what_the_embedder_itself_takes(line: Line) -> None:
    _, welcome = welcomed(line)
    assert (welcome.credit, welcome.max_bytes) == (10**6, 20 * 228)


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
