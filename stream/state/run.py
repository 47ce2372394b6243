"""A run that outlives its process: what it accepted, what it decided, and what it still needs."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stream.header import Frame
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.store import FORGET, StateStore, StoredMessage
from stream.state.writer import StateWriter
from stream.window import State, Windows

__all__ = ["Decided", "Point", "RunState"]

_NO_WINDOWS: State = {}
#: No more are counted: SQLite's integers end there.
_MOST_MISSING = 2**62


class Point(NamedTuple):
    """Where a run can be taken up.

    Attributes:
        n_closed: windows closed by then.
        number: of the last message placed by then.
        first_needed: of the first message that the windows to come still hold.
        windows: state of the windows; empty before any message.
    """

    n_closed: int = 0
    number: int = -1
    first_needed: int = 0
    windows: State = _NO_WINDOWS


class Decided(NamedTuple):
    """What a run has decided.

    Attributes:
        n_windows: all windows below this index are decided.
        accounts: of the monitor and of the tester, which JSON can hold.
        results: the last lines of the results, and where in which file they belong.
        saved_s: unix time of the decision.
    """

    n_windows: int = 0
    accounts: Mapping[str, Any] | None = None
    results: Mapping[str, Any] | None = None
    saved_s: float = 0.0


class RunState:
    """What is kept of a run.

    The stream's thread calls `accept`, `pass_over` and `mark`, the test's thread `settle`; what is
    on the disk is told by `durable`, to any thread.

    Args:
        folder: where.
        inputs: what the run's decisions depend on, by name.
        metrics: counts writes and failures.
        sparse_log: for a disk that fails.
        name: of a run that begins; one that is taken up keeps its own.
        stopped: whether the consumer is to stop.
        now_s: unix seconds.

    Raises:
        ArtifactError: if the state cannot be kept there.
        MismatchError: if another run's is.

    Attributes:
        name: of the run.
        point: where it was taken up.
        decided: what it had decided by then.
        told: whether the lines of the results that were decided then had been written.
        ahead_s: seconds that the clock then was ahead of the clock now; 0 if it was not.
        sources: for every source, the `seq` that came next then; the one that was silent for
            longest first.
        missing: for some, how many messages had gone missing just before that.
        clean: whether the process before ended in order; None if there was none.
        notified: whether it had told everybody of its alarms.
        on_durable: called on another thread whenever more is on the disk.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        metrics: Metrics,
        sparse_log: SparseLog,
        *,
        name: str,
        stopped: Callable[[], bool] = lambda: False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Open the state, or begin one; note that a process is at it."""
        store = StateStore(folder, inputs)
        self.path, self._metrics, self._now_s = store.path, metrics, now_s
        try:
            self.name: str = store.read("run") or name
            self.clean: bool | None = store.read("clean")
            self.notified = bool(store.read("notified"))
            self.point = Point(*(store.read("point") or ()))
            self.decided = Decided(*(store.read("decided") or ()))
            self.told = store.read("told") == self.decided.n_windows
            self.sources = store.sources()
            self.missing: dict[str, int] = store.read("missing") or {}
            self._stored = list(store.messages())
        except BaseException:
            store.close()
            raise
        self.ahead_s = max(0.0, self.decided.saved_s - now_s())
        self._number = max([self.point.number, *(one.number for one in self._stored[-1:])])
        self._missing = dict(self.missing)
        self._points = deque([self.point])
        self._durable: dict[str, int] = {}
        self._lock = threading.Lock()
        self.on_durable: Callable[[], None] = lambda: None
        self._writer = StateWriter(store, sparse_log, self._written, stopped)
        self._writer.settle({"run": self.name, "clean": False, "notified": False}, 0)

    @property
    def is_new(self) -> bool:
        """Whether no process was at it before."""
        return self.clean is None

    @property
    def n_bytes(self) -> int:
        """Bytes of messages that wait to be on the disk."""
        return self._writer.n_bytes

    @property
    def max_bytes(self) -> int:
        """How many may."""
        return self._writer.max_bytes

    @property
    def is_alive(self) -> bool:
        """Whether what is accepted will be on the disk some time."""
        return self._writer.is_alive

    def while_waiting(self, look: Callable[[], None]) -> None:
        """Call something ten times a second while the disk holds the stream's thread up; on it."""
        self._writer.on_wait = look

    def take_stored(self) -> tuple[list[StoredMessage], list[StoredMessage]]:
        """Return the messages up to the point where the run is taken up, and those after; once."""
        stored, self._stored = self._stored, []
        before = [message for message in stored if message.number <= self.point.number]
        return before, stored[len(before) :]

    def accept(self, source: str, seq: int, n_missing: int, frames: tuple[Frame, Frame]) -> int:
        """Keep an accepted message; return the number that it is stored under.

        Raises:
            ArtifactError: if the disk fails and the consumer is to stop.
        """
        self._number += 1
        message = StoredMessage(self._number, min(n_missing, _MOST_MISSING), *frames)
        about = {"missing": dict(self._missing)} if self._missing.pop(source, 0) else None
        self._writer.put(source, seq + 1, message, about)
        return self._number

    def pass_over(self, source: str, seq: int, n_missing: int) -> None:
        """Keep that a message was refused for good: the source goes on with the next.

        Args:
            source: whose.
            seq: its number.
            n_missing: messages of the source that are missing since its last good one.

        Raises:
            ArtifactError: if the disk fails and the consumer is to stop.
        """
        self._missing[source] = n_missing
        self._writer.put(source, seq + 1, None, {"missing": dict(self._missing)})

    def forget(self, source: str) -> None:
        """Know a source no more."""
        self._missing.pop(source, None)
        self._writer.put(source, FORGET, None)

    def mark(self, windows: Windows, number: int) -> None:
        """Note, after a message closed windows, that the run can be taken up from here."""
        state = windows.state()
        first = min((part[0] for part in _parts(state)), default=number + 1)
        with self._lock:
            self._points.append(Point(windows.n_closed, number, first, state))

    def settle(
        self, n_windows: int, accounts: Mapping[str, Any], results: Mapping[str, Any] | None
    ) -> None:
        """Keep that all windows below an index are decided; on the disk on return.

        Raises:
            ArtifactError: if the disk fails and the consumer is to stop.
        """
        with self._lock:
            while len(self._points) > 1 and self._points[1].n_closed <= n_windows:
                self._points.popleft()
            point = self._points[0]
        decided = Decided(n_windows, accounts, results, self._now_s())
        self._writer.settle({"point": point, "decided": decided}, point.first_needed)

    def tell(self, n_windows: int) -> None:
        """Keep that the results of all windows below an index are written; soon on the disk."""
        self._writer.note({"told": n_windows})

    def durable(self) -> dict[str, int]:
        """Return what is newly on the disk: for each source the `seq` that is not; once."""
        with self._lock:
            durable, self._durable = self._durable, {}
        return durable

    def close(self, *, clean: bool, notified: bool = True) -> None:
        """Write what waits and close.

        Args:
            clean: whether the process ended in order.
            notified: whether everybody was told of its alarms.

        Raises:
            ArtifactError: if it could not be written.
        """
        try:
            if clean:
                self._writer.settle({"clean": True, "notified": notified}, 0)
        finally:
            self._writer.close()

    def _written(self, sources: Mapping[str, int], seconds: float, n_failed: int) -> None:
        if n_failed:
            self._metrics.n_state_failures += n_failed
            return
        self._metrics.state.add([seconds])
        with self._lock:
            self._durable.update({name: seq for name, seq in sources.items() if seq != FORGET})
        self.on_durable()


def _parts(state: object) -> Iterator[list[int]]:
    """Yield the names of all blocks that a state of windows refers to."""
    if isinstance(state, dict):
        for key, value in state.items():
            if key in ("open", "blocks"):
                yield from value
            else:
                yield from _parts(value)
    elif isinstance(state, list):
        for value in state:
            yield from _parts(value)
