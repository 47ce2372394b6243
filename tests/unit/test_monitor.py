"""What is said of each window, and the accounts of a run."""

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
import pytest

from engines.nplm import (
    CachedReference,
    NullDistribution,
    Relabelling,
    Tail,
    WidthNulls,
    WindowTest,
    z_score,
)
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import Float64Array, FloatArray
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.monitor import Monitor
from stream.window import ClosedWindow
from stream.window_result import WindowResult
from tests.support import FINGERPRINT, gaussians, small_artifact, window_spec
from tests.support_stream import closed_window

S = 10**9
FAR = FalseAlarmRate.parse("1/hour")
HOURLY = Rules(FAR)


@dataclass
class ScriptedReference:
    """Gives, of each width, the t that the window's first event says."""

    sigmas: tuple[float, ...] = (2.0,)
    gradient_squared: float = 1e-6
    relabelled: list[tuple[int, float]] = field(default_factory=list)

    @property
    def basis(self) -> "ScriptedReference":
        return self

    def test_features(self, pieces: list[FloatArray]) -> WindowTest:
        t = np.asarray(pieces[0][0], np.float64)
        f = np.stack([np.full(sum(map(len, pieces)), sigma) for sigma in self.sigmas])
        return WindowTest(t, lambda: f, self.gradient_squared, 5)

    def sums(self, pieces: list[FloatArray]) -> Float64Array:
        return np.asarray(np.concatenate(pieces).sum(axis=0), np.float64)

    def test_sums(self, sums: Float64Array, *, scale: int) -> Float64Array:
        return sums / (3 * scale)

    def relabel(
        self,
        pieces: list[FloatArray],
        *,
        n_relabellings: int,
        rng: np.random.Generator,
    ) -> Relabelling:
        t = np.asarray(pieces[0][0], np.float64)
        self.relabelled.append((n_relabellings, float(rng.random())))
        others = np.linspace(0.0, 100.0, n_relabellings)
        return Relabelling(t, np.repeat(others[:, None], len(t), axis=1))


def scripted(
    *, widths: int = 1, scales: tuple[int, ...] = (1,), mode: Literal["count", "time"] = "count"
) -> ReferenceArtifact:
    """Return an artifact whose toys are t = 1 to 99, so that p = 0.01 at t = 100."""
    window = window_spec(mode, 3)
    shares = dict.fromkeys(scales, 0.1)
    facts = ReferenceFacts(
        FINGERPRINT, window, (), 10, 10, 100, 99, "cross-entropy", "float32", shares
    )
    reference = ScriptedReference(tuple(2.0 + width for width in range(widths)))
    toys = np.repeat(np.arange(1.0, 100.0)[:, None], widths, axis=1)
    nulls = {scale: WidthNulls(toys) for scale in scales}
    return ReferenceArtifact(cast("CachedReference", reference), nulls, facts)


def null_of(artifact: ReferenceArtifact) -> NullDistribution:
    return artifact.nulls[1].nulls[0]


def window(
    t: float | list[float], index: int = 0, start_s: float = 0.0, end_s: float = 1.0
) -> ClosedWindow:
    embeddings = np.repeat(np.atleast_1d(t)[None], 3, axis=0).astype(np.float32)
    return closed_window(
        embeddings, index=index, t_start_ns=round(start_s * S), t_end_ns=round(end_s * S)
    )


def test_result_carries_what_it_rests_on() -> None:
    ticks = itertools.count(10.0, 0.5)
    monitor = Monitor(scripted(), HOURLY, run="r1", clock=lambda: next(ticks))
    result, f = monitor.examine(window(50.0, index=4))
    assert (result.run, result.window, result.mode) == ("r1", 4, "count")
    assert (result.n_events, result.n_expected) == (3, 3.0)
    assert (result.t, result.sigma, f.tolist()) == (50.0, 2.0, [2.0] * 3)
    assert (result.t_by_width, result.sigmas, result.p_by_width) == ((50.0,), (2.0,), (result.p,))
    assert result.p_interval[0] < result.p < result.p_interval[1]
    assert (result.scale, result.overlap, result.loss) == (1, 0.0, "cross-entropy")
    assert (result.p_alarm, result.z_alarm) == (result.p_chi2, result.z_chi2)
    assert (result.p_relabelled, result.n_relabellings, result.relabel_s) == (None, 0, 0.0)
    assert result.p == pytest.approx(0.51)
    assert result.p_chi2 == pytest.approx(null_of(scripted()).chi2_p_value(50.0))
    assert result.test_s == 0.5
    assert result.converged
    assert result.engine == FINGERPRINT
    assert "99 toys of 3 events" in result.calibrated_on
    assert not result.alarm
    assert not result.extrapolated
    assert json.loads(json.dumps(result.record(), allow_nan=False))["spans"][0]["source"] == "test"


def test_chi2_alarms_beyond_the_toys_and_says_so() -> None:
    result, _ = Monitor(scripted(), HOURLY).examine(window(1000.0))
    assert result.p == 0.01
    assert result.p_chi2 < 1e-100
    assert result.extrapolated
    assert result.alarm
    assert result.threshold_p == pytest.approx(1 / 3600)
    assert result.inverse_far_s == pytest.approx(1.0 / result.p_chi2)


def test_t_far_below_the_null_alarms_though_its_p_is_one() -> None:
    null = null_of(scripted())
    monitor = Monitor(scripted(), HOURLY)
    near, _ = monitor.examine(window(null.mean - 5.9 * null.std))
    assert not near.below_null
    assert not near.alarm
    far, _ = monitor.examine(window(null.mean - 6.1 * null.std, index=1))
    assert far.p == 1.0
    assert far.below_null
    assert far.alarm


def test_window_in_one_narrow_spot_does_not_pass_as_null() -> None:
    artifact = small_artifact(window_spec("count", 2000), n_pool=40_000)
    spot = np.random.default_rng(3).normal(size=(2000, 4)) * 0.01 + np.array([0.3, 0.2, 0.1, 0])
    spotted = closed_window(spot.astype(np.float32), artifact.reference)
    result, _ = Monitor(artifact, HOURLY).examine(spotted)
    assert result.alarm


def test_time_window_with_missing_messages_is_no_alarm_and_no_trial() -> None:
    count, time = scripted(), scripted(mode="time")
    holed = replace(window(1000.0), n_missing_after=2)
    result, _ = Monitor(count, HOURLY).examine(holed)
    assert (result.complete, result.alarm, result.trials, result.n_missing) == (True, True, 1, 2)
    result, _ = Monitor(time, HOURLY).examine(holed)
    assert (result.complete, result.alarm, result.trials) == (False, False, 0)
    assert result.p_global == 1.0
    assert result.z_global < 0
    whole, _ = Monitor(time, HOURLY).examine(window(1000.0))
    assert (whole.complete, whole.alarm) == (True, True)


def test_z_carries_the_offset_of_the_finite_pool() -> None:
    artifact = scripted()
    null = null_of(artifact)
    offset = artifact.facts.offset_shares[1] * null.std
    result, _ = Monitor(artifact, HOURLY).examine(window(80.0))
    up, down = (z_score(null.chi2_p_value(80.0 + s * offset)) for s in (1, -1))
    assert result.z_systematic == pytest.approx((up - down) / 2)
    assert 0.1 < result.z_systematic < 1


def test_toys_alone_alarm_only_where_their_resolution_allows() -> None:
    monitor = Monitor(scripted(), Rules(FAR, "toys"))
    result, _ = monitor.examine(window(1000.0, start_s=0, end_s=30))
    assert result.threshold_p < result.p
    assert not result.alarm
    result, _ = monitor.examine(window(1000.0, start_s=30, end_s=70))
    assert result.threshold_p == 0.01 == result.p  # 40 s an hour, capped
    assert result.alarm
    assert result.inverse_far_s == pytest.approx(40.0 / 0.01)


@pytest.mark.parametrize("alarm_on", ["chi2", "gamma", "toys"])
@pytest.mark.parametrize("t", [-1e6, 0.0, 1e6])
def test_every_figure_is_finite(t: float, alarm_on: Tail) -> None:
    monitor = Monitor(scripted(), Rules(FAR, alarm_on), n_relabellings=9)
    result, _ = monitor.examine(window(t))
    json.dumps(result.record(), allow_nan=False)


@pytest.mark.parametrize("t", [np.nan, np.inf, -np.inf])
def test_t_that_is_not_finite_gives_no_result(t: float) -> None:
    monitor = Monitor(scripted(), HOURLY)
    with pytest.raises(FloatingPointError, match="t must be finite"):
        monitor.examine(window(t))
    assert monitor.examine(window(50.0))[0].trials == 1


@pytest.mark.parametrize("alarm_on", ["chi2", "gamma", "toys"])
def test_line_says_which_p_decided(alarm_on: Tail) -> None:
    artifact = scripted()
    result, _ = Monitor(artifact, Rules(FAR, alarm_on)).examine(window(90.0))
    assert result.alarm_on == alarm_on
    assert result.p_alarm == artifact.nulls[1].tail_p_value(alarm_on, np.array([90.0]))
    assert result.inverse_far_s == pytest.approx(1.0 / result.p_alarm)
    assert len({result.p, result.p_chi2, result.p_gamma}) == 3


def test_gamma_sees_the_spread_that_the_chi_square_does_not() -> None:
    """The toys are wider than a chi-square of their mean: its tail alarms, the gamma's does not."""
    chi2, _ = Monitor(scripted(), HOURLY).examine(window(110.0))
    gamma, _ = Monitor(scripted(), Rules(FAR, "gamma")).examine(window(110.0))
    assert (chi2.alarm, gamma.alarm) == (True, False)
    assert (chi2.extrapolated, gamma.extrapolated) == (True, False)
    assert chi2.p_chi2 == gamma.p_chi2 < chi2.p_gamma == gamma.p_gamma


def test_width_with_the_smallest_p_decides() -> None:
    result, f = Monitor(scripted(widths=3), HOURLY).examine(window([50.0, 90.0, 60.0]))
    assert (result.t, result.sigma) == (90.0, 3.0)
    assert f.tolist() == [3.0] * 3
    assert result.t_by_width == (50.0, 90.0, 60.0)
    assert result.sigmas == (2.0, 3.0, 4.0)
    assert min(result.p_by_width) == result.p_by_width[1] == pytest.approx(0.11)


def test_width_that_broke_down_decides_where_one_did() -> None:
    result, _ = Monitor(scripted(widths=3), HOURLY).examine(window([90.0, -500.0, -400.0]))
    assert (result.below_null, result.alarm) == (True, True)
    assert (result.t, result.sigma) == (-500.0, 3.0)


def relabelled(artifact: ReferenceArtifact) -> list[tuple[int, float]]:
    return cast("ScriptedReference", artifact.reference).relabelled


def test_alarm_is_confirmed_and_nothing_else_is() -> None:
    artifact = scripted(widths=2)
    ticks = itertools.count(0.0, 0.5)
    monitor = Monitor(artifact, HOURLY, n_relabellings=9, clock=lambda: next(ticks))
    quiet, _ = monitor.examine(window([50.0, 50.0]))
    alarm, _ = monitor.examine(window([50.0, 1000.0], index=1, end_s=2))
    assert (quiet.p_relabelled, quiet.n_relabellings) == (None, 0)
    # It leads in one width, and ties with the labelling that leads in the other.
    assert (alarm.p_relabelled, alarm.n_relabellings, alarm.relabel_s) == (0.2, 9, 0.5)
    assert [n for n, _ in relabelled(artifact)] == [9]


def test_alarm_below_the_null_is_confirmed_from_below() -> None:
    monitor = Monitor(scripted(), HOURLY, n_relabellings=9)
    result, _ = monitor.examine(window(-1000.0))
    assert result.below_null
    assert result.p_relabelled == 0.1


def test_alarm_is_not_confirmed_where_it_may_not_take_the_time() -> None:
    artifact = scripted()
    busy, _ = Monitor(artifact, HOURLY, n_relabellings=9).examine(window(1000.0), confirm=False)
    off, _ = Monitor(artifact, HOURLY).examine(window(1000.0))
    assert busy.alarm
    assert off.alarm
    assert (busy.n_relabellings, off.n_relabellings, relabelled(artifact)) == (0, 0, [])


def test_alarm_stands_where_its_confirmation_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "no memory for the labels"
        raise MemoryError(msg)

    monkeypatch.setattr(ScriptedReference, "relabel", fail)
    result, _ = Monitor(scripted(), HOURLY, n_relabellings=9).examine(window(1000.0))
    assert (result.alarm, result.p_relabelled, result.n_relabellings) == (True, None, 0)
    assert "could not be confirmed" in caplog.text


def test_relabellings_repeat_in_a_replay_and_differ_between_windows() -> None:
    draws = []
    for _ in range(2):
        artifact = scripted()
        monitor = Monitor(artifact, HOURLY, n_relabellings=9)
        for index in (3, 7):
            monitor.examine(window(1000.0, index=index, end_s=index + 1))
        draws.append([draw for _, draw in relabelled(artifact)])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 2


def run(monitor: Monitor, windows: list[ClosedWindow]) -> list[WindowResult]:
    """Examine windows; return what they complete of longer scales."""
    merged: list[WindowResult] = []
    for closed in windows:
        monitor.examine(closed)
        merged += monitor.merge(closed)
    return merged


def sequence(n: int, t: float = 50.0) -> list[ClosedWindow]:
    return [window(t, index=i, start_s=i, end_s=i + 1) for i in range(n)]


def test_longer_scale_has_its_own_line_and_accounts() -> None:
    monitor = Monitor(scripted(scales=(1, 2, 4)), HOURLY)
    merged = run(monitor, sequence(5))
    assert [(r.scale, r.window, r.trials) for r in merged] == [(2, 0, 1), (2, 1, 2), (4, 0, 1)]
    whole = merged[-1]
    assert (whole.n_events, whole.n_expected, whole.t) == (12, 12.0, 50.0)
    assert (whole.t_start_ns, whole.t_end_ns, whole.spacing_s) == (0, 4 * S, 4.0)
    assert (whole.loss, whole.converged, whole.n_relabellings) == ("likelihood", None, 0)
    assert "toys of 4 windows of 3 events" in whole.calibrated_on
    assert monitor.n_broken == {2: 0, 4: 0}


def test_scales_share_the_false_alarm_rate() -> None:
    monitor = Monitor(scripted(scales=(1, 2, 4)), HOURLY)
    single, _ = monitor.examine(window(50.0))
    merged = run(monitor, sequence(4))
    assert single.threshold_p == pytest.approx(1 / 3600 / 3)
    assert [r.threshold_p for r in merged] == pytest.approx([2 / 3600 / 3] * 2 + [4 / 3600 / 3])
    expected_alarms = 4 * single.threshold_p + sum(r.threshold_p for r in merged)
    assert expected_alarms == pytest.approx(4 / 3600)
    for result in (single, *merged):
        at_threshold = result.p_alarm / result.threshold_p
        assert result.inverse_far_s * at_threshold == pytest.approx(3600)


def test_weak_signal_that_lasts_alarms_on_the_longer_scale() -> None:
    merged = run(Monitor(scripted(scales=(1, 2)), HOURLY), sequence(2, t=1000.0))
    assert [(r.scale, r.alarm) for r in merged] == [(2, True)]


def test_window_with_missing_messages_breaks_the_longer_scale_in_time_mode() -> None:
    windows = sequence(5)
    windows[1] = replace(windows[1], n_missing_after=1)
    cases: tuple[tuple[Literal["count", "time"], list[int]], ...]
    cases = (("count", [2, 2]), ("time", [2]))
    for mode, scales in cases:
        monitor = Monitor(scripted(scales=(1, 2), mode=mode), HOURLY)
        merged = run(monitor, windows)
        assert [r.scale for r in merged] == scales
        assert monitor.n_broken == {2: int(mode == "time")}
    assert merged[0].t_start_ns == 2 * S


def test_overlapping_windows_are_charged_for_their_step() -> None:
    sliding = [
        replace(window(50.0, index=i, start_s=i, end_s=i + 4), overlap=0.75) for i in range(9)
    ]
    monitor = Monitor(scripted(scales=(1, 2)), HOURLY, n_panes=4)
    results = [monitor.examine(closed)[0] for closed in sliding]
    assert [r.spacing_s for r in results] == [4.0] + [1.0] * 8
    assert {r.overlap for r in results} == {0.75}
    assert results[-1].trials == 9
    monitor = Monitor(scripted(scales=(1, 2)), HOURLY, n_panes=4)
    (merged,) = run(monitor, sliding)
    assert (merged.t_start_ns, merged.t_end_ns, merged.overlap) == (0, 8 * S, 0.0)


def test_spacing_is_end_to_end_and_never_negative() -> None:
    monitor = Monitor(scripted(), HOURLY)
    spacings = [
        monitor.examine(window(50.0, start_s=start, end_s=end))[0].spacing_s
        for start, end in ((100, 101), (103, 105), (50, 60), (60, 106), (106, 108))
    ]
    assert spacings == [1.0, 4.0, 0.0, 1.0, 2.0]


def test_spacings_add_up_to_the_time_that_passed() -> None:
    monitor = Monitor(scripted(), HOURLY)
    rng = np.random.default_rng(0)
    ends = rng.uniform(1, 60, size=50)
    spacings = [monitor.examine(window(50.0, end_s=end))[0].spacing_s for end in ends]
    assert sum(spacings) == pytest.approx(ends.max(), abs=1e-6)


def test_clock_set_back_is_counted_and_charging_goes_on() -> None:
    """Or no window would alarm until the clock is where it was."""
    monitor = Monitor(scripted(), HOURLY)
    bounds = ((7200, 7201), (3600, 3601), (3602, 3603), (3603, 3604))
    results = [monitor.examine(window(50.0, start_s=a, end_s=b))[0] for a, b in bounds]
    assert [result.spacing_s for result in results] == [1.0, 1.0, 2.0, 1.0]
    assert monitor.spacing.n_clock_jumps == 1


def charged(monitor: Monitor, *bounds_s: tuple[float, float]) -> list[float]:
    results = [monitor.examine(window(50.0, start_s=a, end_s=b))[0] for a, b in bounds_s]
    return [result.spacing_s for result in results]


def test_no_clock_of_a_producer_charges_for_more_than_has_passed() -> None:
    """Two sources an hour apart, whose windows alternate, a window a second."""
    now = itertools.count(50.0)
    monitor = Monitor(scripted(), Rules(FAR, clock_s=lambda: next(now)))
    bounds = [(t + hour, t + hour + 1.0) for t in range(0, 400, 2) for hour in (0.0, 3600.0)]
    assert sum(charged(monitor, *bounds)) <= 400 + 5


def test_a_live_stream_is_charged_by_its_time_of_production() -> None:
    now = itertools.count(50.0, 2.0)
    monitor = Monitor(scripted(), Rules(FAR, clock_s=lambda: next(now)))
    bounds = [(2.0 * i, 2.0 * i + 2.0) for i in range(50)]
    assert charged(monitor, *bounds) == [2.0] * 50


def test_late_windows_are_lent_time_and_alarm() -> None:
    """An embedder was away: its events fill windows of a time that others were charged for."""
    now = itertools.count(50.0)
    monitor = Monitor(scripted(), Rules(FAR, clock_s=lambda: next(now)))
    assert charged(monitor, *((t, t + 1.0) for t in range(20))) == [1.0] * 20
    late = [monitor.examine(window(1000.0, start_s=10, end_s=15))[0] for _ in range(6)]
    assert [(one.alarm, one.spacing_s) for one in late] == [(True, 0.5)] * 6
    after = charged(monitor, *((t, t + 1.0) for t in range(20, 30)))
    assert after == [0.5] * 6 + [1.0] * 4
    assert monitor.spacing.n_uncharged == 0


def test_no_more_is_lent_than_a_hundredth_of_a_false_alarm() -> None:
    monitor = Monitor(scripted(), Rules(FAR, clock_s=itertools.count(50.0).__next__))
    charged(monitor, *((t, t + 1.0) for t in range(20)))
    late = charged(monitor, *([(10, 15)] * 100))
    assert late == [0.5] * 72 + [0.0] * 28
    assert FAR.per_s * sum(late) == pytest.approx(0.01)
    assert monitor.spacing.n_uncharged == 28
    paid = charged(monitor, *((t, t + 1.0) for t in range(20, 120)))
    assert sum(late) + sum(paid) == 100.0


def test_window_without_a_time_of_its_own_is_counted_and_keeps_its_inverse_far() -> None:
    """As when one message fills two windows: the second cannot alarm."""
    monitor = Monitor(scripted(), HOURLY)
    first, second = (
        monitor.examine(window(1000.0, index, start_s=0, end_s=1))[0] for index in (0, 1)
    )
    assert (first.alarm, second.alarm, second.spacing_s) == (True, False, 0.0)
    assert second.inverse_far_s == first.inverse_far_s > 0
    assert monitor.spacing.n_uncharged == 1


def run_of(monitor: Monitor, *alarming: bool) -> list[WindowResult]:
    """Return the results of windows of one second each."""
    return [
        monitor.examine(window(1000.0 if alarms else 50.0, i, start_s=i, end_s=i + 1))[0]
        for i, alarms in enumerate(alarming)
    ]


def test_windows_that_follow_one_another_are_one_alarm() -> None:
    results = run_of(Monitor(scripted(), HOURLY), False, True, True, False, True)
    assert [result.alarm for result in results] == [False, True, True, False, True]
    assert [result.onset for result in results] == [False, True, False, False, True]
    assert [result.alarm_window for result in results] == [None, 1, 1, None, 4]


def test_an_alarm_is_confirmed_by_its_first_window() -> None:
    artifact = scripted()
    results = run_of(Monitor(artifact, HOURLY, n_relabellings=9), True, True)
    assert [result.relabelling for result in results] == ["done", "same alarm"]


def test_windows_within_the_refractory_period_are_one_alarm() -> None:
    monitor = Monitor(scripted(), Rules(FAR, refractory_s=3.0))
    results = run_of(monitor, True, False, False, True, False, False, False, True)
    assert [r.alarm_window for r in results] == [0, None, None, 0, None, None, None, 7]


def test_discoveries_are_decided_beside_alarms() -> None:
    assert run_of(Monitor(scripted(), HOURLY), True)[0].discovery is None
    results = run_of(Monitor(scripted(), Rules(FAR, fdr=0.1)), False, True, False)
    assert [result.discovery for result in results] == [False, True, False]


def test_global_p_counts_the_trials() -> None:
    monitor = Monitor(scripted(), Rules(FAR, "toys"))
    results = [monitor.examine(window(t))[0] for t in (50.0, 1000.0, 60.0)]
    assert [result.trials for result in results] == [1, 2, 3]
    assert results[-1].p_global == pytest.approx(1 - 0.99**3)
    assert results[0].p_global == pytest.approx(results[0].p)


def test_fit_that_did_not_converge_is_marked() -> None:
    artifact = scripted()
    cast("ScriptedReference", artifact.reference).gradient_squared = 1.0
    result, _ = Monitor(artifact, HOURLY).examine(window(50.0))
    assert result.converged is False


def test_real_reference_passes_the_null_and_alarms_on_a_signal() -> None:
    artifact = small_artifact(scales=(2,), sigma_quantiles=(0.3, 0.9))
    monitor = Monitor(artifact, HOURLY, n_relabellings=19)
    rng = np.random.default_rng(3)
    events = gaussians(200, rng)
    quiet = closed_window(events, artifact.reference, t_end_ns=S)
    null, _ = monitor.examine(quiet)
    events = gaussians(200, rng)
    events[:60] += 2.5
    loud = closed_window(events, artifact.reference, index=1, t_end_ns=2 * S)
    signal, f = monitor.examine(loud)
    assert not null.alarm
    assert signal.alarm
    assert signal.t > null.t + 50
    assert signal.p_relabelled == 0.05
    assert f[:60].mean() > f[60:].mean()
    (merged,) = [r for closed in (quiet, loud) for r in monitor.merge(closed)]
    assert (merged.scale, merged.n_events, merged.alarm) == (2, 400, True)


@pytest.mark.parametrize("n_data", [1, 20, 4000])
def test_time_window_far_from_the_expected_count_is_judged(n_data: int) -> None:
    artifact = small_artifact(window_spec("time", 200))
    monitor = Monitor(artifact, HOURLY, n_relabellings=9)
    events = gaussians(n_data, np.random.default_rng(1))
    result, _ = monitor.examine(closed_window(events, artifact.reference))
    json.dumps(result.record(), allow_nan=False)
    assert result.alarm
    assert result.p == result.p_resolution
