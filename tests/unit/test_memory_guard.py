"""The guard's judgement: when a socket is reset, when it is not, and what is believed its own."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from engines.errors import EndpointError
from engines.windows import WindowSpec
from stream.assemble import _guarded, _Line
from stream.delivery.plain import PlainAdmission, SocketReceiver
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.header import Frame
from stream.memory_guard import (
    GuardedReceiver,
    MemoryGuard,
    cgroup_limit_bytes,
    default_limit_bytes,
    read_rss_bytes,
)
from stream.metrics import Metrics
from stream.security.options import parse_size_bytes
from stream.sequence import SequenceTracker
from stream.sliding import held_bytes
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import StateStore

Track: TypeAlias = Callable[[Socket], Socket]
GIB, MIB = 2**30, 2**20


class Machine:
    """What the guard sees: time, memory, descriptors."""

    def __init__(self) -> None:
        self.now_s, self.rss, self.descriptors = 0.0, GIB, 10
        self.freed_to = self.filled_to = GIB
        self.n_reads = 0
        self.socket: Socket | None = None

    def read_rss(self) -> int:
        """A closed socket's memory is free at the second look, and peers fill that of a new one."""
        self.n_reads += 1
        rss = self.rss
        if self.socket is not None and self.socket.closed:
            self.rss = self.freed_to
        return rss


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def guard(context: Context, machine: Machine) -> Iterator[MemoryGuard]:
    def open_socket(endpoint: str) -> Socket:
        if machine.n_reads:
            machine.rss = max(machine.rss, machine.filled_to)
        machine.socket = open_receiver(context, endpoint)
        return machine.socket

    made = MemoryGuard(
        open_socket,
        "tcp://127.0.0.1:*",
        2 * GIB,
        read_rss=machine.read_rss,
        count_descriptors=lambda: (machine.descriptors, 100),
        clock=lambda: machine.now_s,
    )
    yield made
    made.close()


def test_nothing_happens_below_the_limit(guard: MemoryGuard, machine: Machine) -> None:
    socket = guard.socket
    for step in range(100):
        machine.now_s = step * 0.01
        assert guard.check(socket) is socket
    assert guard.n_resets == 0
    assert machine.n_reads <= 21


def test_socket_is_replaced_at_its_endpoint(
    guard: MemoryGuard, machine: Machine, context: Context, track: Track
) -> None:
    endpoint = bound_endpoint(guard.socket)
    push = track(open_sender(context, endpoint))
    before, machine.rss = guard.socket, 3 * GIB
    machine.now_s = 1.0
    after = guard.check(before)
    assert after is guard.socket is not before
    assert before.closed
    assert bound_endpoint(after) == endpoint
    assert guard.n_resets == 1
    assert push.poll(10_000, 2)  # the producer connects again by itself
    push.send(b"x")
    assert after.poll(10_000)
    machine.now_s = 2.0
    assert guard.check(after) is after


def test_memory_that_stays_is_the_consumers_own_and_resets_do_not_repeat(
    guard: MemoryGuard, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.rss = machine.freed_to = 3 * GIB
    for step in range(1, 50):
        machine.now_s = float(step)
        guard.check(guard.socket)
    assert guard.n_resets == 1
    assert "give it more by --max-memory" in caplog.text
    machine.rss = 3 * GIB + 300 * MIB  # but what comes on top is not
    machine.now_s = 60.0
    guard.check(guard.socket)
    assert guard.n_resets == 2


def test_peers_that_fill_the_new_socket_do_not_raise_the_limit(
    guard: MemoryGuard, machine: Machine
) -> None:
    machine.rss, machine.filled_to = 4 * GIB, 3 * GIB
    for step in range(1, 4):
        machine.now_s = float(step)
        guard.check(guard.socket)
        assert guard.n_resets == step


def test_limit_comes_back_when_the_memory_is_gone(guard: MemoryGuard, machine: Machine) -> None:
    machine.rss = machine.freed_to = 3 * GIB
    machine.now_s = 1.0
    guard.check(guard.socket)
    machine.rss = machine.freed_to = GIB
    machine.now_s = 3.0
    guard.check(guard.socket)
    machine.rss = 2 * GIB + MIB
    machine.now_s = 4.0
    guard.check(guard.socket)
    assert guard.n_resets == 2


def test_descriptors_are_guarded_too(guard: MemoryGuard, machine: Machine) -> None:
    machine.descriptors, machine.now_s = 81, 1.0
    guard.check(guard.socket)
    assert guard.n_resets == 1


def test_endpoint_taken_meanwhile_is_an_error(
    context: Context, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_socket(endpoint: str) -> Socket:
        if machine.n_reads:
            raise EndpointError(endpoint)
        return open_receiver(context, endpoint)

    monkeypatch.setattr("stream.memory_guard._OPEN_WITHIN_S", 0.05)
    guard = MemoryGuard(
        open_socket,
        "tcp://127.0.0.1:*",
        GIB // 2,
        read_rss=machine.read_rss,
        clock=lambda: machine.now_s,
    )
    machine.now_s = 1.0
    with pytest.raises(EndpointError):
        guard.check(guard.socket)
    guard.close()


def test_receiver_is_given_each_new_socket(guard: MemoryGuard, machine: Machine) -> None:
    class Receiver:
        def __init__(self) -> None:
            self.socket: Socket | None = None

        def receive(self, wait_ms: int) -> list[Frame] | None:
            assert self.socket is not None
            assert not self.socket.closed
            return [b"%d" % wait_ms]

    receiver = Receiver()
    guarded = GuardedReceiver(receiver, guard)
    assert receiver.socket is guard.socket
    assert guarded.receive(3) == [b"3"]
    machine.rss, machine.now_s = 3 * GIB, 1.0
    assert guarded.receive(4) == [b"4"]
    assert guard.n_resets == 1
    assert receiver.socket is guard.socket
    machine.rss, machine.now_s = 3 * GIB, 2.0
    guarded.look()
    assert guard.n_resets == 2
    assert receiver.socket is guard.socket


def test_guard_looks_while_the_disk_holds_the_stream_up(
    guard: MemoryGuard, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(tmp_path, {}, Metrics(), SparseLog(), name="r")
    monkeypatch.setattr(state._writer, "max_bytes", 1)
    monkeypatch.setattr(StateStore, "write", lambda *_: time.sleep(0.3))
    line = _Line(SocketReceiver(), PlainAdmission(SequenceTracker(), state))
    _guarded(line, guard, state)
    machine.rss, machine.now_s = 3 * GIB, 1.0
    for seq in range(2):
        state.accept("daq", seq, 0, (b"header", b"payload"))
    assert guard.n_resets == 1
    assert line.receiver.socket is guard.socket
    state.close(clean=True)


def test_resident_memory_is_this_process() -> None:
    before = read_rss_bytes()
    held = bytearray(b"\1" * (64 * MIB))
    assert read_rss_bytes() - before > 32 * MIB
    assert len(held) == 64 * MIB


@pytest.mark.parametrize(("span_s", "n_windows"), [(0.0, 16 + 2), (10.0, 2 * 16 + 2 * 10)])
def test_default_limit_holds_the_windows_full_ones_of_time_too(
    span_s: float, n_windows: int
) -> None:
    window = WindowSpec("time" if span_s else "count", 10_000.0, span_s)
    held = held_bytes(window, 16, 1000)
    assert held == n_windows * 10_000_000
    assert default_limit_bytes(GIB, held, lambda: math.inf) == 2 * GIB + held


def test_default_limit_fits_in_the_cgroup(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/a/b\n0::/system.slice/stream.service\n")

    def limit() -> int:
        return default_limit_bytes(GIB, 0, lambda: cgroup_limit_bytes(tmp_path, own))

    assert limit() == 2 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert limit() == 2 * GIB
    (tmp_path / "memory.max").write_text("2000000000\n")
    assert limit() == 1_800_000_000
    service = tmp_path / "system.slice" / "stream.service"
    service.mkdir(parents=True)
    (service / "memory.max").write_text("1000000000\n")
    assert limit() == 900_000_000
    (service / "memory.high").write_text("800000000\n")
    assert limit() == 720_000_000
    own.unlink()
    assert limit() == 1_800_000_000


@pytest.mark.parametrize("text", ["", "0", "4GB", "-1GiB", "GiB", "1 GiB", "nan", "1e9"])
def test_what_is_no_size(text: str) -> None:
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="512MiB"):
        parse_size_bytes(text)
