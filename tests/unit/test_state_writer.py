"""The thread that writes the state, on disks that are slow, full or gone."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import ArtifactError
from stream.sparse_log import SparseLog
from stream.state.store import StateStore, StoredMessage
from stream.state.writer import StateWriter

PAYLOAD = bytes(10_000)


class Disk(StateStore):
    """A store whose disk can fail and be slow."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {})
        self.fails: Exception | None = None
        self.takes_s = 0.0
        self.n_tries = 0

    def write(self, *words: Any, **options: Any) -> None:  # noqa: ANN401
        self.n_tries += 1
        time.sleep(self.takes_s)
        if self.fails is not None:
            raise self.fails
        super().write(*words, **options)


FULL = sqlite3.OperationalError("database or disk is full")
Open = Callable[..., StateWriter]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def stopped() -> threading.Event:
    return threading.Event()


@pytest.fixture
def told() -> list[dict[str, int]]:
    return []


@pytest.fixture
def writer(
    disk: Disk, stopped: threading.Event, told: list[dict[str, int]]
) -> Iterator[StateWriter]:
    def written(sources: Any, _seconds: float, _n_failed: int) -> None:  # noqa: ANN401
        told.append(dict(sources))

    made = StateWriter(disk, SparseLog(), written, stopped.is_set, max_bytes=100_000)
    yield made
    disk.fails, disk.takes_s = None, 0.0
    made.close()


def put(writer: StateWriter, seq: int) -> None:
    writer.put("a", seq + 1, StoredMessage(seq, 0, b"header", PAYLOAD))


def numbers(folder: Path) -> list[int]:
    store = StateStore(folder, {})
    found = [one.number for one in store.messages()]
    store.close()
    return found


def test_nothing_is_told_before_it_is_there(
    disk: Disk, writer: StateWriter, told: list[dict[str, int]], tmp_path: Path
) -> None:
    disk.fails = FULL
    for seq in range(5):
        put(writer, seq)
    time.sleep(0.4)
    assert disk.n_tries >= 2
    assert not any(told)
    assert writer.n_bytes > 5 * len(PAYLOAD)
    disk.fails = None
    writer.settle({"x": 1}, 0)
    assert writer.n_bytes == 0
    assert {"a": 5} in told
    writer.close()
    assert numbers(tmp_path) == list(range(5))


def test_slow_disk_holds_the_stream_back(disk: Disk, writer: StateWriter, tmp_path: Path) -> None:
    disk.takes_s = 0.02
    most = 0
    for seq in range(100):
        put(writer, seq)
        most = max(most, writer.n_bytes)
    assert 50_000 < most <= writer.max_bytes
    assert writer.close()
    assert numbers(tmp_path) == list(range(100))


def test_guard_looks_while_the_stream_waits_for_the_disk(disk: Disk, writer: StateWriter) -> None:
    """On the stream's thread alone, and others may come in meanwhile."""
    looked: list[int] = []

    def look() -> None:
        looked.append(threading.get_ident())
        other = threading.Thread(target=writer.note, args=({"x": 1},))
        other.start()
        other.join(10.0)
        assert not other.is_alive()

    writer.on_wait = look
    disk.takes_s = 0.5
    tester = threading.Thread(target=writer.settle, args=({"y": 1}, 0))
    tester.start()
    for seq in range(20):
        put(writer, seq)
    tester.join()
    assert len(looked) >= 3
    assert set(looked) == {threading.get_ident()}


def test_messages_without_events_are_not_for_nothing(disk: Disk, writer: StateWriter) -> None:
    """A source may send end upon end: they take memory too."""
    disk.takes_s = 0.5
    started = time.monotonic()
    for seq in range(150):
        writer.put("a", seq + 1, StoredMessage(seq, 0, b"header", b""))
    assert time.monotonic() - started > 0.2
    assert writer.n_bytes <= writer.max_bytes


def test_stop_on_a_slow_disk_is_no_failure(
    disk: Disk, writer: StateWriter, stopped: threading.Event, tmp_path: Path
) -> None:
    disk.takes_s = 0.3
    stopped.set()
    for seq in range(30):
        put(writer, seq)
    writer.settle({"x": 1}, 0)
    assert writer.close()
    assert numbers(tmp_path) == list(range(30))


@pytest.mark.parametrize("waits", ["settle", "put"])
def test_stop_while_the_disk_fails_ends_soon(
    disk: Disk, writer: StateWriter, stopped: threading.Event, waits: str
) -> None:
    disk.fails = FULL
    threading.Timer(0.2, stopped.set).start()
    started = time.monotonic()

    def work() -> None:
        if waits == "settle":
            writer.settle({"x": 1}, 0)
        for seq in range(50):
            put(writer, seq)

    with pytest.raises(ArtifactError, match=r"could not be written .* start again"):
        work()
    assert time.monotonic() - started < 6.0
    # What is decided after it must not be written over it.
    for _ in range(2):
        with pytest.raises(ArtifactError):
            writer.settle({"x": 2}, 0)
    assert not writer.close()


def test_disk_that_hangs_is_told_and_left_at_a_stop(
    disk: Disk,
    writer: StateWriter,
    stopped: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One of a network that is gone neither takes data nor fails."""
    monkeypatch.setattr("stream.state.writer._HANGS_S", 0.3)
    monkeypatch.setattr("stream.state.writer._LAST_TRIES_S", 0.3)
    comes_back = threading.Event()
    monkeypatch.setattr(disk, "write", lambda *_: comes_back.wait())
    threading.Timer(1.0, stopped.set).start()
    with pytest.raises(ArtifactError, match=r"could not be written .* start again"):
        writer.settle({"x": 1}, 0)
    assert caplog.text.count("its disk hangs") == 1
    assert not writer.close()
    assert "gave up writing" in caplog.text
    comes_back.set()


def test_without_a_stop_the_disk_is_waited_for(disk: Disk, writer: StateWriter) -> None:
    disk.fails = FULL
    mend = threading.Timer(4.5, lambda: setattr(disk, "fails", None))
    mend.start()
    writer.settle({"x": 1}, 0)
    mend.join()
    assert disk.read("x") == 1


def test_close_gives_up_on_a_disk_that_fails(disk: Disk, writer: StateWriter) -> None:
    disk.fails = FULL
    put(writer, 0)
    started = time.monotonic()
    assert not writer.close()
    assert 2.0 < time.monotonic() - started < 6.0


def test_fault_of_the_thread_is_raised_where_it_is_waited_for(
    disk: Disk, writer: StateWriter
) -> None:
    assert writer.is_alive
    disk.fails = OverflowError("Python int too large to convert to SQLite INTEGER")
    with pytest.raises(ArtifactError, match="could not be written"):
        writer.settle({"x": 1}, 0)
    with pytest.raises(ArtifactError, match="could not be written"):
        put(writer, 1)
    writer._thread.join(20.0)
    assert not writer.is_alive
    assert not writer.close()
