"""The time that windows are charged for: production time, and never more than has passed.

Late windows, as of an embedder that was away, hold events of a time that others were charged for.
Charged for nothing they could not alarm, however strong a signal is in them. They are lent half of
a usual window's time, which later windows pay back; what is lent at a time is limited.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from stream.window import CLOCK_JUMP_NS

__all__ = ["Spacing"]

#: Windows may be charged for so much more than has passed since the first: tests take their time.
_ALLOWANCE_S = 5.0
#: Of a usual window's time, what a late window is lent and what is left to one that pays back.
_SHARE = 0.5
#: Weight of the newest window in what is usual.
_NEWEST = 0.1


class Spacing:
    """Production time between windows, whatever the producers' clocks do.

    Args:
        clock_s: seconds that pass while the stream is live; None for stored windows, whose time of
            production is all there is.
        lends_s: seconds that late windows may be lent, altogether.

    Attributes:
        n_clock_jumps: how often production time was set back.
        n_uncharged: windows charged for nothing.
    """

    def __init__(self, clock_s: Callable[[], float] | None = None, lends_s: float = 0.0) -> None:
        """Start before the first window."""
        self._clock_s, self._lends_s = clock_s, lends_s
        self._lent_s = self._usual_s = 0.0
        self._last_end_ns: int | None = None
        self._began_s = self._first_s = self._charged_s = 0.0
        self._n_charged = 0
        self.n_clock_jumps = self.n_uncharged = 0

    @property
    def mean_s(self) -> float:
        """Seconds charged to a window, on average; 0 before the first."""
        return self._charged_s / max(1, self._n_charged)

    def state(self) -> dict[str, Any]:
        """Return what charging goes on from, which JSON can hold."""
        passed_s = self._clock_s() - self._began_s if self._clock_s and self._n_charged else 0.0
        return {
            "last_end_ns": self._last_end_ns,
            "first_s": self._first_s,
            "passed_s": passed_s,
            "charged_s": self._charged_s,
            "n_charged": self._n_charged,
            "lent_s": self._lent_s,
            "usual_s": self._usual_s,
            "n_clock_jumps": self.n_clock_jumps,
            "n_uncharged": self.n_uncharged,
        }

    def restore(self, state: Mapping[str, Any], away_s: float = 0.0) -> None:
        """Go on from a state.

        Args:
            state: from `state`.
            away_s: seconds that have passed since then; what was produced in them is charged too.
        """
        self._last_end_ns, self._first_s = state["last_end_ns"], state["first_s"]
        self._charged_s, self._n_charged = state["charged_s"], state["n_charged"]
        self._lent_s, self._usual_s = state["lent_s"], state["usual_s"]
        self.n_clock_jumps, self.n_uncharged = state["n_clock_jumps"], state["n_uncharged"]
        if self._clock_s is not None:
            self._began_s = self._clock_s() - state["passed_s"] - max(0.0, away_s)

    def charge(self, start_ns: int, end_ns: int) -> float:
        """Return the seconds that a window is charged for: since the last one, its own the first.

        Windows of sources whose clocks differ may end a little before the last one: that time was
        charged already; they are lent some. Where a clock was set back, charging goes on with the
        window's own span.

        Args:
            start_ns: start of its production time.
            end_ns: its end.
        """
        last_ns = start_ns if self._last_end_ns is None else self._last_end_ns
        if end_ns < last_ns - CLOCK_JUMP_NS:
            self.n_clock_jumps += 1
            last_ns = start_ns
        self._last_end_ns = max(end_ns, last_ns)
        spacing_s = self._levelled(min((self._last_end_ns - last_ns) / 1e9, self._credit_s()))
        if not self._n_charged:
            self._first_s = spacing_s
        self._charged_s += spacing_s
        self._n_charged += spacing_s > 0
        self.n_uncharged += spacing_s == 0
        return spacing_s

    def _levelled(self, spacing_s: float) -> float:
        """Return what to charge for: more than its own where it is late, less to pay that back."""
        lacking_s = _SHARE * self._usual_s - spacing_s
        lent_s = min(max(0.0, self._lent_s + lacking_s), self._lends_s)
        charged_s = spacing_s + (lent_s - self._lent_s)
        self._lent_s = lent_s
        if spacing_s > 0:
            self._usual_s += (_NEWEST if self._usual_s else 1.0) * (spacing_s - self._usual_s)
        return charged_s

    def _credit_s(self) -> float:
        """Return the time that has passed since the first window and was not charged for yet."""
        if self._clock_s is None:
            return math.inf
        if not self._n_charged:
            self._began_s = self._clock_s()
            return math.inf
        passed_s = self._first_s + self._clock_s() - self._began_s
        return max(0.0, passed_s + _ALLOWANCE_S - (self._charged_s - self._lent_s))
