"""A thread beside the stream, so that embedding never waits for a test."""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from engines.errors import ArtifactError
from stream.priority import step_back
from stream.window import ClosedWindow

__all__ = ["MOST_WAITING", "GivenUp", "TestRunner"]

_LOG = logging.getLogger(__name__)

#: Windows that wait may hold so many times the events expected in them: a flood fills time windows.
MOST_WAITING = 2.0
_LOOK_EVERY_S = 0.05


class GivenUp(NamedTuple):
    """What was given up so far, of windows before the one at hand."""

    n_windows: int = 0
    n_events: int = 0


class TestRunner:
    """Runs a function on windows, on one thread, with a bounded queue.

    When windows close faster than they can be tested, or hold more events than may wait, the oldest
    that still wait are given up for the newest, and counted.

    Args:
        examine: what to do with a window, told what was given up before it.
        skipped: called with each window that is given up.
        size: how many windows may wait.
        max_events: how many events they may hold together; one window waits all the same.
    """

    __test__ = False

    def __init__(
        self,
        examine: Callable[[ClosedWindow, GivenUp], None],
        skipped: Callable[[ClosedWindow], None],
        size: int = 4,
        max_events: float = math.inf,
    ) -> None:
        """Start the thread."""
        self._examine, self._skipped = examine, skipped
        self._size, self._max_events = size, max_events
        self._waiting: deque[ClosedWindow] = deque()
        self._n_events = 0
        self._changed = threading.Condition()
        self._given_up = GivenUp()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="nplm-test", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Windows that wait for their test."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether windows are tested; once closed it may be done."""
        return self._closing or self._thread.is_alive()

    def submit(self, window: ClosedWindow) -> None:
        """Queue a window; never blocks."""
        with self._changed:
            while not self._has_room(window):
                oldest = self._take()
                n_windows, n_events = self._given_up
                self._given_up = GivenUp(n_windows + 1, n_events + len(oldest))
                self._skipped(oldest)
            self._waiting.append(window)
            self._n_events += len(window)
            self._changed.notify()

    def wait_for_room(self, window: ClosedWindow) -> None:
        """Wait until a window can be queued without giving up another."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(window))

    def close(self, look: Callable[[], None] | None = None) -> None:
        """Finish the windows that wait, then end the thread; `look` is called while they do."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        while self._thread.is_alive():
            self._thread.join(_LOOK_EVERY_S)
            if look is not None:
                look()

    def _has_room(self, window: ClosedWindow) -> bool:
        n_events = self._n_events + len(window)
        fits = len(self._waiting) < self._size and n_events <= self._max_events
        return fits or not self._waiting

    def _take(self) -> ClosedWindow:
        window = self._waiting.popleft()
        self._n_events -= len(window)
        return window

    def _work(self) -> None:
        step_back()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                window, given_up = self._take(), self._given_up
                self._changed.notify_all()
            try:
                self._examine(window, given_up)
            except ArtifactError as exc:
                _LOG.warning("window %d is left to the next start: %s", window.index, exc)
            except Exception:  # noqa: BLE001 - one window's fault must not end the stream
                _LOG.exception("the test of window %d failed", window.index)
