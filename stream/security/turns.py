"""Whose password is hashed next: who guesses costs next to nothing and keeps nobody out."""

import threading
import time
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

__all__ = ["Turns"]

#: A quarter of the connections that the HTTP port answers at once.
_MOST_WAITING = 8
#: Less than a connection may last.
_PATIENCE_S = 8.0
_MOST_KNOWN = 1000


class Turns:
    """A small waiting room before something costly, of which one in a while may go wrong.

    Whoever was wrong least often goes first. Where the room is full, whoever was wrong most often
    is sent away: so one guesser, however fast, delays another address by a turn.

    Args:
        every_s: seconds that must pass after one was wrong.
    """

    def __init__(self, every_s: float = 1.0) -> None:
        """Let the first in at once."""
        self._every_s, self._next_s = every_s, 0.0
        self._changed = threading.Condition()
        self._arrivals, self._waiting = count(), list[tuple[int, int]]()
        self._n_wrong = Counter[str]()

    @contextmanager
    def turn(self, who: str) -> Iterator[bool]:
        """Wait for a turn; give whether it came. Nobody else has one meanwhile.

        Args:
            who: the address that asks.
        """
        with self._changed:
            mine = (self._n_wrong[who], next(self._arrivals))
            insort(self._waiting, mine)
            if self._waiting[_MOST_WAITING:]:
                self._waiting.pop()
                self._changed.notify_all()
            came = self._wait(mine)
            try:
                yield came
            finally:
                self._changed.notify_all()

    def was_wrong(self, who: str) -> None:
        """Let the next wait; to be called within a turn."""
        if len(self._n_wrong) >= _MOST_KNOWN:
            self._n_wrong.clear()
        self._n_wrong[who] += 1
        self._next_s = time.monotonic() + self._every_s

    def _wait(self, mine: tuple[int, int]) -> bool:
        until_s = time.monotonic() + _PATIENCE_S
        while mine in self._waiting:
            now_s = time.monotonic()
            is_next = self._waiting[0] == mine
            if (is_next and now_s >= self._next_s) or now_s >= until_s:
                self._waiting.remove(mine)
                return is_next and now_s >= self._next_s
            self._changed.wait((min(self._next_s, until_s) if is_next else until_s) - now_s)
        return False
