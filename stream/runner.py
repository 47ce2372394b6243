"""A thread beside the stream, so that embedding never waits for a test."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from stream.priority import step_back
from stream.window import ClosedWindow

__all__ = ["TestRunner"]

_LOG = logging.getLogger(__name__)


class TestRunner:
    """Runs a function on windows, on one thread, with a bounded queue.

    When windows close faster than they can be tested, the oldest that still waits is given up for
    the newest, and counted.

    Args:
        examine: what to do with a window.
        skipped: called with each window that is given up.
        size: how many windows may wait.
    """

    __test__ = False

    def __init__(
        self,
        examine: Callable[[ClosedWindow], None],
        skipped: Callable[[ClosedWindow], None],
        size: int = 4,
    ) -> None:
        """Start the thread."""
        self._examine, self._skipped, self._size = examine, skipped, size
        self._waiting: deque[ClosedWindow] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="nplm-test", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Windows that wait for their test."""
        return len(self._waiting)

    def submit(self, window: ClosedWindow) -> None:
        """Queue a window; never blocks."""
        with self._changed:
            if len(self._waiting) >= self._size:
                self._skipped(self._waiting.popleft())
            self._waiting.append(window)
            self._changed.notify()

    def close(self) -> None:
        """Finish the windows that wait, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        step_back()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                window = self._waiting.popleft()
            try:
                self._examine(window)
            except Exception:  # noqa: BLE001 - one window's fault must not end the stream
                _LOG.exception("the test of window %d failed", window.index)
