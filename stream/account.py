"""What a run keeps of one time scale: its spacing, its trials, and the alarm that may be going on.

Windows over the threshold that follow one another, or come within the refractory period of the last
one, are one alarm: the first opens it. Merging can only lower the number of alarms, so the
false-alarm rate stays a limit on what is expected.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from engines.nplm import Tail
from stream.alarms import FalseAlarmRate, Trials
from stream.discoveries import Discoveries, FdrMethod
from stream.window import CLOCK_JUMP_NS
from stream.window_result import Decision

__all__ = ["Account", "Rules"]

#: Windows may be charged for so much more than has passed since the first: tests take their time.
_ALLOWANCE_S = 5.0


@dataclass(frozen=True)
class Rules:
    """When a window alarms, and what else is decided of it.

    Attributes:
        far: the operator's false-alarm rate, of all scales together.
        alarm_on: which p decides: `chi2` and `gamma` extrapolate beyond the toys; `toys` cannot go
            below their resolution.
        refractory_s: a window over the threshold so soon after another belongs to the same alarm.
        fdr: a false-discovery rate to control beside it, over windows of scale 1; 0 for none.
        fdr_method: how.
        clock_s: seconds that pass while the stream is live: no clock of a producer can charge for
            more than these. None for stored windows, whose time of production is all there is.
    """

    far: FalseAlarmRate
    alarm_on: Tail = "chi2"
    refractory_s: float = 0.0
    fdr: float = 0.0
    fdr_method: FdrMethod = "lond-dependent"
    clock_s: Callable[[], float] | None = None


class Account:
    """Decides about the windows of one scale, one after the other.

    Args:
        rules: when a window alarms.
        scale: which one.
        n_scales: how many scales share the false-alarm rate, equally.

    Raises:
        ParameterError: if the false-discovery rate is out of range.

    Attributes:
        n_clock_jumps: how often production time was set back.
        n_uncharged: windows since whose predecessor no production time has passed; they cannot
            alarm.
    """

    def __init__(self, rules: Rules, scale: int = 1, n_scales: int = 1) -> None:
        """Start with no trials."""
        self._far, self._alarm_on = rules.far.shared(n_scales), rules.alarm_on
        controls = rules.fdr > 0 and scale == 1
        self._discoveries = Discoveries(rules.fdr, rules.fdr_method) if controls else None
        self._trials = Trials()
        self._last_end_ns: int | None = None
        self._alarm = _OngoingAlarm(rules.refractory_s)
        self._charged_s, self._n_charged = 0.0, 0
        self._clock_s, self._began_s, self._first_s = rules.clock_s, 0.0, 0.0
        self.n_clock_jumps = self.n_uncharged = 0

    def decide(
        self,
        p: float,
        z: float,
        *,
        window: int,
        bounds_ns: tuple[int, int],
        complete: bool,
        below_null: bool,
    ) -> Decision:
        """Account for a window.

        Args:
            p: of the tail that decides.
            z: its Z.
            window: its index within the scale.
            bounds_ns: its production time.
            complete: whether it counts at all.
            below_null: whether it alarms whatever its p.
        """
        spacing_s = self._spacing_s(*bounds_ns)
        threshold_p = self._far.threshold_p(spacing_s)
        discovery = None if self._discoveries is None else False
        if complete:
            self._trials = self._trials.add(p)
            if self._discoveries is not None:
                discovery = self._discoveries.test(p)
        alarm = complete and (below_null or p <= threshold_p)
        alarm_window = self._alarm.follow(window, spacing_s, alarm=alarm)
        return Decision(
            alarm=alarm,
            onset=alarm_window == window,
            alarm_window=alarm_window,
            alarm_on=self._alarm_on,
            p_alarm=p,
            z_alarm=z,
            threshold_p=threshold_p,
            spacing_s=spacing_s,
            inverse_far_s=self._far.inverse_s(p, spacing_s or self._mean_spacing_s),
            trials=self._trials.n,
            p_global=self._trials.global_p,
            z_global=self._trials.global_z,
            discovery=discovery,
        )

    def _spacing_s(self, start_ns: int, end_ns: int) -> float:
        """Return production time since the last window, which the rate is charged for.

        Windows of sources whose clocks differ may end a little before the last one: that time was
        charged already. Where a clock was set back, charging goes on with the window's own span.
        Never is more charged for than has passed while the stream was live.
        """
        last_ns = start_ns if self._last_end_ns is None else self._last_end_ns
        if end_ns < last_ns - CLOCK_JUMP_NS:
            self.n_clock_jumps += 1
            last_ns = start_ns
        self._last_end_ns = max(end_ns, last_ns)
        spacing_s = min((self._last_end_ns - last_ns) / 1e9, self._credit_s())
        if not self._n_charged:
            self._first_s = spacing_s
        self._charged_s += spacing_s
        self._n_charged += spacing_s > 0
        self.n_uncharged += spacing_s == 0
        return spacing_s

    def _credit_s(self) -> float:
        """Return the time that has passed since the first window and was not charged for yet."""
        if self._clock_s is None:
            return math.inf
        if not self._n_charged:  # the first window is charged for its own span
            self._began_s = self._clock_s()
            return math.inf
        passed_s = self._first_s + self._clock_s() - self._began_s
        return max(0.0, passed_s + _ALLOWANCE_S - self._charged_s)

    @property
    def _mean_spacing_s(self) -> float:
        return self._charged_s / max(1, self._n_charged)


class _OngoingAlarm:
    """Which alarm a window over the threshold belongs to.

    Args:
        refractory_s: after a window over the threshold, by charged production time.
    """

    def __init__(self, refractory_s: float) -> None:
        self._refractory_s = refractory_s
        self._opened_by: int | None = None
        self._last_window = -1
        self._since_s = 0.0

    def follow(self, window: int, spacing_s: float, *, alarm: bool) -> int | None:
        """Return the index of the window that opened this window's alarm; None without one."""
        self._since_s += spacing_s
        if not alarm:
            return None
        goes_on = window == self._last_window + 1 or self._since_s <= self._refractory_s
        if self._opened_by is None or not goes_on:
            self._opened_by = window
        self._last_window, self._since_s = window, 0.0
        return self._opened_by
