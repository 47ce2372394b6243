"""What a run keeps of one time scale: when its last window ended, and its trials."""

from engines.nplm import Tail
from stream.alarms import FalseAlarmRate, Trials
from stream.window_result import Decision

__all__ = ["Account"]


class Account:
    """Decides about the windows of one scale, one after the other.

    Args:
        far: the operator's false-alarm rate, of all scales together.
        alarm_on: which p decides.
        n_scales: how many scales share the rate, equally.
    """

    def __init__(self, far: FalseAlarmRate, alarm_on: Tail, n_scales: int = 1) -> None:
        """Start with no trials."""
        self._far, self._alarm_on = far.shared(n_scales), alarm_on
        self._trials = Trials()
        self._last_end_ns: int | None = None

    def decide(
        self, p: float, z: float, *, bounds_ns: tuple[int, int], complete: bool, below_null: bool
    ) -> Decision:
        """Account for a window.

        Args:
            p: of the tail that decides.
            z: its Z.
            bounds_ns: its production time.
            complete: whether it counts at all.
            below_null: whether it alarms whatever its p.
        """
        spacing_s = self._spacing_s(*bounds_ns)
        threshold_p = self._far.threshold_p(spacing_s)
        if complete:
            self._trials = self._trials.add(p)
        return Decision(
            alarm=complete and (below_null or p <= threshold_p),
            alarm_on=self._alarm_on,
            p_alarm=p,
            z_alarm=z,
            threshold_p=threshold_p,
            spacing_s=spacing_s,
            inverse_far_s=self._far.inverse_s(p, spacing_s),
            trials=self._trials.n,
            p_global=self._trials.global_p,
            z_global=self._trials.global_z,
        )

    def _spacing_s(self, start_ns: int, end_ns: int) -> float:
        """Production time since the last window; never negative, also when a clock jumps back."""
        start_ns = start_ns if self._last_end_ns is None else self._last_end_ns
        self._last_end_ns = max(end_ns, start_ns)
        return (self._last_end_ns - start_ns) / 1e9
