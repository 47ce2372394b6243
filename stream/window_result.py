"""What is said of a window: one line of the results.

The fields come in four groups, each made where it is known; a line holds them all.
"""

from dataclasses import asdict, dataclass
from typing import Literal, Self, TypeAlias

from engines.nplm import Loss, Tail
from stream.block import Span

__all__ = [
    "Confirmation",
    "Decision",
    "RelabellingStatus",
    "Significance",
    "Tested",
    "WindowResult",
]

RelabellingStatus: TypeAlias = Literal[
    "done", "no alarm", "same alarm", "off", "skipped", "failed", "no events"
]


@dataclass(frozen=True)
class Tested:
    """What was tested, and how.

    Attributes:
        run: name of this run of the consumer.
        window: index of the window within the run and its scale.
        scale: how many consecutive windows it holds: 1, or more for a longer time scale.
        overlap: share of it that the window before has too. P-values of overlapping windows are
            correlated.
        mode, n_events, n_expected: what was counted and what the null expects.
        t_start_ns, t_end_ns: production time, unix ns.
        spans: which events of which source the window holds.
        n_missing: messages known to be missing from the window, or just after it.
        complete: false for a time window with missing messages, or cut by a clock that was set back
            or by far too many events: its rate means nothing, so it neither alarms nor counts as a
            trial.
        converged: whether every fit reached its tolerance; null for scales above 1, whose fits do
            not say.
        test_s: seconds that the test took.
        loss: what the fits minimised.
        calibrated_on: what every p-value here but `p_relabelled` rests on.
        engine: fingerprint of the encoder.
    """

    run: str
    window: int
    scale: int
    overlap: float
    mode: str
    n_events: int
    n_expected: float
    t_start_ns: int
    t_end_ns: int
    spans: tuple[Span, ...]
    n_missing: int
    complete: bool
    converged: bool | None
    test_s: float
    loss: Loss
    calibrated_on: str
    engine: str


@dataclass(frozen=True)
class Significance:
    """What the toys say of it.

    Attributes:
        t, sigma: test statistic of the kernel width that decided, and that width: the one with the
            smallest p, or where `below_null` the one furthest below its null.
        t_by_width, p_by_width, sigmas: of each width, p empirical and each for itself.
        p, z: empirical, from the toys, all widths together; p is never below p_resolution.
        p_interval: 68 % interval of p, from the number of toys.
        p_resolution: 1 / (n_toys + 1).
        p_chi2, z_chi2: from the chi-squares fitted to the toys, times the number of widths.
        p_gamma, z_gamma: the same from gamma laws.
        chi2_ks_p, gamma_ks_p: how well the toys follow them.
        z_systematic: change of Z (the gamma's if that alarms, else the chi-square's) if t is off
            by the finite pool's expected offset.
        extrapolated: whether that law's p lies beyond the toys' resolution.
        below_null: whether a t lies more than six spreads below its null and below every toy: data
            so unlike the reference that the fit broke down. Such a window alarms whatever its p,
            outside the false-alarm rate.
    """

    t: float
    sigma: float
    t_by_width: tuple[float, ...]
    p_by_width: tuple[float, ...]
    sigmas: tuple[float, ...]
    p: float
    z: float
    p_interval: tuple[float, float]
    p_resolution: float
    p_chi2: float
    z_chi2: float
    p_gamma: float
    z_gamma: float
    chi2_ks_p: float
    gamma_ks_p: float
    z_systematic: float
    extrapolated: bool
    below_null: bool


@dataclass(frozen=True)
class Decision:
    """Whether it alarmed, and the accounts of its scale.

    Attributes:
        alarm: whether it is over the threshold.
        onset: whether it opens an alarm: that counts, and is told. Further windows over the
            threshold, next to it or within the refractory period, belong to the same alarm.
        alarm_window: index of the window that opened its alarm; null if `alarm` is false.
        alarm_on: where the p comes from that decides: `chi2`, `gamma` or `toys`.
        p_alarm, z_alarm: that p, and its Z.
        threshold_p: the p at which this window alarms.
        spacing_s: time since the window before it, which the false-alarm rate is charged for.
        inverse_far_s: one false alarm as extreme as this one is expected in so many seconds, all
            scales together.
        trials: windows of this scale so far; each overlapping window counts.
        p_global, z_global: the smallest `p_alarm` of this scale so far, corrected for the trials.
        discovery: whether it is one at the false-discovery rate asked for (`stream.discoveries`
            says what holds for windows that share a reference); null if none was.
    """

    alarm: bool
    onset: bool
    alarm_window: int | None
    alarm_on: Tail
    p_alarm: float
    z_alarm: float
    threshold_p: float
    spacing_s: float
    inverse_far_s: float
    trials: int
    p_global: float
    z_global: float
    discovery: bool | None


@dataclass(frozen=True)
class Confirmation:
    """The relabelling test of a window that alarmed.

    Attributes:
        p_relabelled: share of relabellings, the true labels with them, whose t is at or above the
            true one (at or below it where `below_null`). It is exact for any finite sample and
            needs no toys, but: windows share the reference, so these p-values are dependent; it is
            conditional on the number of events; and it is no second evidence, being of the same
            events: where it is large, the toys do not fit this window. Null if not tested.
        n_relabellings: how many; 0 if not tested.
        relabel_s: seconds that it took.
        relabelling: `done`; `no alarm`; `same alarm`, of which the first window was confirmed;
            `off`; `skipped`, because windows wait or the run ends; `failed`; or `no events`, which
            longer scales do not keep.
    """

    p_relabelled: float | None
    n_relabellings: int
    relabel_s: float
    relabelling: RelabellingStatus

    @classmethod
    def without(cls, why: RelabellingStatus) -> Self:
        """Return the confirmation of a window that was not tested."""
        return cls(None, 0, 0.0, why)


@dataclass(frozen=True)
class WindowResult(Confirmation, Decision, Significance, Tested):
    """One line of the results; its fields are those of its parts, the last base's first."""

    @classmethod
    def of(
        cls,
        tested: Tested,
        significance: Significance,
        decision: Decision,
        confirmation: Confirmation,
    ) -> "WindowResult":
        """Return the parts as one."""
        return cls(**vars(tested), **vars(significance), **vars(decision), **vars(confirmation))

    def record(self) -> dict[str, object]:
        """Return the result as what JSON can hold."""
        return asdict(self)
