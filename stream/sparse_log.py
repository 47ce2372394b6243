"""A log that a flood of trouble cannot fill."""

import logging
import math
import time
from collections.abc import Callable

__all__ = ["SparseLog"]

_LOG = logging.getLogger(__name__)


class SparseLog:
    """Logs each kind of trouble at most once a minute, with how often it came.

    Args:
        clock: monotonic seconds.
        every_s: seconds between two lines of a kind.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, every_s: float = 60.0) -> None:
        """Start with nothing logged."""
        self._clock, self._every_s = clock, every_s
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def log(self, kind: str, text: str, level: int = logging.WARNING) -> None:
        """Log, or count for the next line of the kind."""
        now = self._clock()
        if now - self._last.get(kind, -math.inf) < self._every_s:
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        held = self._held.pop(kind, 0)
        more = f" (and {held} more since the last such line)" if held else ""
        _LOG.log(level, "%s: %s%s", kind, text, more)
        self._last[kind] = now
