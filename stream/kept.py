"""Answers that cost something to make: made now and then, however many ask and for whatever."""

import math
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Kept"]

_MOST = 4
_T = TypeVar("_T")


class Kept:
    """Gives an answer again for a while; one is made at a time. Safe on any thread.

    Of the many variants of one thing that clients could ask for a few are made, for others the
    plain one, so that asking for ever new ones costs no more.

    Args:
        fresh_s: how old an answer may be.
        clock: seconds.
    """

    def __init__(self, fresh_s: float, clock: Callable[[], float]) -> None:
        """Keep nothing yet."""
        self._fresh_s, self._clock = fresh_s, clock
        self._lock, self._since_s = threading.Lock(), -math.inf
        self._made: dict[Hashable, dict[str, Any]] = {}

    def get(self, what: Hashable, make: Callable[[str], _T], asked: str = "") -> _T:
        """Return what was made of what is asked, or make it.

        Args:
            what: the thing.
            make: makes a variant of it.
            asked: the variant; empty for the plain one.
        """
        with self._lock:
            now_s = self._clock()
            if now_s - self._since_s >= self._fresh_s:
                self._made, self._since_s = {}, now_s
            made: dict[str, _T] = self._made.setdefault(what, {})
            asked = asked if asked in made or len(made) < _MOST else ""
            if asked not in made:
                made[asked] = make(asked)
            return made[asked]
