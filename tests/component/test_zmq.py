"""Sockets: what is sent arrives, and what cannot be opened is explained in one sentence."""

import contextlib
import logging
import socket as unix
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from engines.errors import EndpointError, MessageError
from engines.types import FloatArray
from stream.endpoints import (
    Context,
    Socket,
    bound_endpoint,
    open_publisher,
    open_receiver,
    open_sender,
)
from stream.message import decode_message
from stream.sender import Sender
from stream.sequence import SequenceTracker

MakeEvents: TypeAlias = Callable[..., FloatArray]
Track: TypeAlias = Callable[[Socket], Socket]
Receive: TypeAlias = Callable[[Socket], list[bytes]]

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture(params=["tcp", "ipc"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ANY_PORT if request.param == "tcp" else f"ipc://{tmp_path}/events.sock"


def test_pushed_events_arrive_in_order(
    context: Context, track: Track, receive: Receive, endpoint: str, make_events: MakeEvents
) -> None:
    pull = track(open_receiver(context, endpoint, "pull"))
    push = track(open_sender(context, bound_endpoint(pull), "push"))
    sender = Sender(push, endpoint, "me")
    particles = make_events(50)
    assert [sender.send(block) for block in np.split(particles, 10)] == list(range(10))
    sender.send_end()
    tracker = SequenceTracker()
    messages = [decode_message(receive(pull)) for _ in range(11)]
    assert sum(tracker.check(m.header.source, m.header.seq) for m in messages) == 0
    assert [m.header.end for m in messages] == [False] * 10 + [True]
    np.testing.assert_array_equal(np.concatenate([m.particles for m in messages]), particles)


def test_received_frames_can_be_viewed(
    context: Context, track: Track, endpoint: str, make_events: MakeEvents
) -> None:
    pull = track(open_receiver(context, endpoint))
    sender = Sender(track(open_sender(context, bound_endpoint(pull))), endpoint, "me", dtype="<f2")
    sender.send(make_events(300))
    assert pull.poll(20_000)
    frames = pull.recv_multipart(copy=False)
    assert len(decode_message([frame.buffer for frame in frames])) == 300


def test_published_events_reach_a_subscriber(
    context: Context, track: Track, receive: Receive, endpoint: str, make_events: MakeEvents
) -> None:
    pub = track(open_sender(context, endpoint, "pub"))
    sub = track(open_receiver(context, bound_endpoint(pub), "sub"))
    sender = Sender(pub, endpoint, "me")
    sender.wait_for_subscriber(20.0)
    sender.send(make_events(3))
    assert len(decode_message(receive(sub))) == 3


def test_pub_goes_on_without_a_subscriber(
    context: Context, track: Track, make_events: MakeEvents, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender(track(open_sender(context, ANY_PORT, "pub")), ANY_PORT, "me")
    with caplog.at_level(logging.WARNING):
        sender.wait_for_subscriber(0.0)
    assert "nobody listens" in caplog.text
    assert sender.send(make_events(3)) == 0


def test_results_reach_a_subscriber(
    context: Context, track: Track, receive: Receive, endpoint: str
) -> None:
    pub = track(open_publisher(context, endpoint))
    sub = track(open_receiver(context, bound_endpoint(pub), "sub"))
    # A subscription takes a moment to arrive; what is published before it is lost by design.
    while not sub.poll(10):
        pub.send_multipart([b"result"])
    assert receive(sub) == [b"result"]


def test_push_waits_for_a_consumer_then_gives_up(
    context: Context, track: Track, make_events: MakeEvents, tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/nobody.sock"
    sender = Sender(track(open_sender(context, endpoint)), endpoint, "me", timeout_s=0.05)
    with pytest.raises(EndpointError, match=r"no consumer took a message at ipc://.* within 0.05"):
        sender.send(make_events(2))


def test_push_stops_waiting_when_asked(
    context: Context, track: Track, make_events: MakeEvents, tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/nobody.sock"
    sender = Sender(track(open_sender(context, endpoint)), endpoint, "me", stopped=lambda: True)
    assert sender.send(make_events(2)) is None
    assert sender.wait() is False


def test_push_holds_back_when_the_consumer_is_busy(
    context: Context, track: Track, receive: Receive, tmp_path: Path, make_events: MakeEvents
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/busy.sock"))
    push = track(open_sender(context, bound_endpoint(pull)))
    sender = Sender(push, "busy", "me", timeout_s=0.5)
    particles = make_events(1000)
    sent = 0
    with contextlib.suppress(EndpointError):
        while sent < 5000:
            sender.send(particles)
            sent += 1
    assert 0 < sent < 5000
    sequence = [decode_message(receive(pull)).header.seq for _ in range(sent)]
    assert sequence == list(range(sent))


def test_wrong_source_name_is_refused_at_once(context: Context, track: Track) -> None:
    push = track(open_sender(context, "tcp://127.0.0.1:9"))
    with pytest.raises(MessageError, match="'source'"):
        Sender(push, "tcp://127.0.0.1:9", "a\nb")


@pytest.mark.parametrize("open_second", [open_receiver, open_publisher])
def test_second_binder_is_refused_and_the_first_lives_on(
    context: Context,
    track: Track,
    receive: Receive,
    endpoint: str,
    make_events: MakeEvents,
    open_second: Callable[[Context, str], Socket],
) -> None:
    pull = track(open_receiver(context, endpoint))
    taken = bound_endpoint(pull)
    with pytest.raises(EndpointError, match=r"second consumer.* choose another endpoint"):
        open_second(context, taken)
    Sender(track(open_sender(context, taken)), taken, "me").send(make_events(2))
    assert len(decode_message(receive(pull))) == 2


def test_endpoint_left_by_a_dead_consumer_is_taken_over(
    context: Context, track: Track, tmp_path: Path
) -> None:
    place = tmp_path / "stale.sock"
    with unix.socket(unix.AF_UNIX) as dead:
        dead.bind(str(place))
    assert place.is_socket()
    track(open_receiver(context, f"ipc://{place}"))


def test_file_at_the_endpoint_is_kept(context: Context, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("keep me")
    with pytest.raises(EndpointError, match="a file is there"):
        open_receiver(context, f"ipc://{place}")
    assert place.read_text() == "keep me"
