"""What a run keeps of one time scale: its spacing, its trials, and the alarm that may be going on.

Windows over the threshold that follow one another, or come within the refractory period of the last
one, are one alarm: the first opens it. Merging can only lower the number of alarms, so the
false-alarm rate stays a limit on what is expected.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engines.nplm import Tail
from stream.alarms import FalseAlarmRate, Trials
from stream.discoveries import Discoveries, FdrMethod
from stream.spacing import Spacing
from stream.window_result import Decision

__all__ = ["Account", "Rules"]


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


#: False alarms that the time lent to late windows may cost.
_LENT_ALARMS = 0.01


class Account:
    """Decides about the windows of one scale, one after the other.

    Args:
        rules: when a window alarms.
        scale: which one.
        n_scales: how many scales share the false-alarm rate, equally.

    Raises:
        ParameterError: if the false-discovery rate is out of range.

    Attributes:
        spacing: the time that windows are charged for; one charged for none cannot alarm.
    """

    def __init__(self, rules: Rules, scale: int = 1, n_scales: int = 1) -> None:
        """Start with no trials."""
        self._far, self._alarm_on = rules.far.shared(n_scales), rules.alarm_on
        controls = rules.fdr > 0 and scale == 1
        self._discoveries = Discoveries(rules.fdr, rules.fdr_method) if controls else None
        self._trials = Trials()
        self._alarm = _OngoingAlarm(rules.refractory_s)
        live = rules.clock_s is not None
        self.spacing = Spacing(rules.clock_s, _LENT_ALARMS / rules.far.per_s if live else 0.0)

    def state(self) -> dict[str, Any]:
        """Return what later decisions depend on, which JSON can hold."""
        return {
            "trials": [self._trials.n, self._trials.smallest_p],
            "alarm": self._alarm.state(),
            "spacing": self.spacing.state(),
            "discoveries": self._discoveries and self._discoveries.state(),
        }

    def restore(self, state: Mapping[str, Any], away_s: float = 0.0) -> None:
        """Go on from a state that is `away_s` seconds old; a run's trials are all its windows."""
        self._trials = Trials(*state["trials"])
        self._alarm.restore(state["alarm"])
        self.spacing.restore(state["spacing"], away_s)
        if self._discoveries is not None:
            self._discoveries.restore(state["discoveries"])

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
        spacing_s = self.spacing.charge(*bounds_ns)
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
            inverse_far_s=self._far.inverse_s(p, spacing_s or self.spacing.mean_s),
            trials=self._trials.n,
            p_global=self._trials.global_p,
            z_global=self._trials.global_z,
            discovery=discovery,
        )


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

    def state(self) -> list[Any]:
        return [self._opened_by, self._last_window, self._since_s]

    def restore(self, state: list[Any]) -> None:
        self._opened_by, self._last_window, self._since_s = state

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
