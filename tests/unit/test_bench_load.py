"""The load's schedule by a clock that only tests move: open loop, nothing left out."""

import itertools

import msgpack
import numpy as np
import pytest
import zmq

from bench.hdr import Recording
from bench.load import Messages
from bench.schedule import Schedule, drive
from engines.errors import SampleSizeError
from stream.endpoints import Context, bound_endpoint, open_receiver, open_sender
from stream.header import decode_header
from tests.conftest import MakeEvents, Track

NS = 10**9


class FakeClock:
    """Time that passes in sleeps and where told."""

    def __init__(self, start_ns: int = 1_700_000_000 * NS) -> None:
        self.now = start_ns

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * NS)


def test_messages_leave_when_they_are_due() -> None:
    clock = FakeClock()
    sent: list[tuple[int, int, int]] = []
    start_ns = clock.now
    report = drive(
        lambda index, due: sent.append((index, due - start_ns, clock.now - start_ns)),
        Schedule(1000.0, 250, 2.0),
        clock,
    )
    assert sent == [(k, k * NS // 4, k * NS // 4) for k in range(8)]
    assert (report.events, report.messages) == (2000, 8)
    assert report.rate_hz == pytest.approx(1000.0)
    assert report.late_max_s == 0


def test_a_rate_does_not_drift_over_a_long_run() -> None:
    schedule = Schedule(3.0e5, 256, 1.0)
    n = 10_000_000
    assert schedule.due_ns(n, 0) == pytest.approx(n * 256 / 3.0e5 * NS, abs=1)


def test_a_stall_shows_in_the_latency_and_omits_nothing() -> None:
    """One message blocks for a second; a closed loop would count one slow message in 10,000."""
    clock = FakeClock()
    open_loop: list[int] = []
    closed_loop: list[int] = []

    def send(index: int, due_ns: int) -> None:
        asked_ns = clock.now
        clock.now += NS if index == 4000 else 10_000
        open_loop.append(clock.now - due_ns)
        closed_loop.append(clock.now - asked_ns)

    report = drive(send, Schedule(1000.0, 1, 10.0), clock)
    assert report.messages == 10_000
    latency = Recording({ns: open_loop.count(ns) for ns in set(open_loop)})
    naive = Recording({ns: closed_loop.count(ns) for ns in set(closed_loop)})
    # A tenth of all messages fell due during the stall and waited half a second on average.
    assert latency.quantile_s(0.99) == pytest.approx(0.9, abs=0.02)
    assert latency.quantile_s(0.95) == pytest.approx(0.5, abs=0.02)
    assert naive.quantile_s(0.99) == 1e-5
    assert report.late_p99_s == pytest.approx(latency.quantile_s(0.99), abs=0.01)


def test_late_messages_go_at_once_and_keep_their_due_time() -> None:
    clock = FakeClock()
    dues: list[int] = []
    start_ns = clock.now

    def send(index: int, due_ns: int) -> None:
        dues.append(due_ns - start_ns)
        if index == 0:
            clock.now += 3 * NS

    report = drive(send, Schedule(100.0, 100, 5.0), clock)
    assert dues == [k * NS for k in range(5)]
    assert report.seconds == 4
    assert report.late_max_s == 3


def test_without_a_rate_messages_go_until_the_time_is_over() -> None:
    clock = FakeClock()

    def send(_index: int, due_ns: int) -> None:
        assert due_ns == clock.now
        clock.now += NS // 10

    report = drive(send, Schedule(0.0, 10, 2.0), clock, warm_up_s=1.0)
    assert report.messages == 20
    assert report.rate_hz == pytest.approx(100.0)


def test_the_warm_up_counts_neither_for_rate_nor_lateness() -> None:
    clock = FakeClock()

    def send(index: int, _due_ns: int) -> None:
        clock.now += NS // 2 if index < 2 else 0

    report = drive(send, Schedule(10.0, 1, 4.0), clock, warm_up_s=2.0)
    assert report.messages == 40
    assert report.late_max_s == 0
    assert report.rate_hz == pytest.approx(10.0)


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_messages_keep_the_wire_and_loop_over_the_events(
    context: Context, track: Track, make_events: MakeEvents, dtype: str
) -> None:
    particles = make_events(10)
    receiver = track(open_receiver(context, "tcp://127.0.0.1:*"))
    sender = track(open_sender(context, bound_endpoint(receiver)))
    messages = Messages(sender, particles, per_message=4, dtype=dtype, source="me")
    assert sender.poll(5000, zmq.POLLOUT)
    for index in range(5):
        messages.send(index, 1000 + index)
    messages.send_end(2000)
    received = [receiver.recv_multipart() for _ in range(6)]
    for index, frames in zip(itertools.count(), received[:5], strict=False):
        header = decode_header(frames)
        assert (header.source, header.seq, header.t_ns, header.n) == ("me", index, 1000 + index, 4)
        first = 4 * (index % 2)
        events = np.frombuffer(frames[1], dtype).reshape(4, 19, 3)
        np.testing.assert_array_equal(events, particles[first : first + 4].astype(dtype))
    assert msgpack.unpackb(received[5][0])["end"] is True
    assert msgpack.unpackb(received[5][0])["seq"] == 5


def test_a_message_holds_no_more_events_than_there_are(
    context: Context, track: Track, make_events: MakeEvents
) -> None:
    sender = track(open_sender(context, "tcp://127.0.0.1:9"))
    with pytest.raises(SampleSizeError, match="at most 10 events"):
        Messages(sender, make_events(10), per_message=11, dtype="<f4", source="me")
