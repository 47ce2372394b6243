"""Several widths as one test: the combination is exact, monotone, and one width changes nothing."""

import math
import re
import time

import numpy as np
import pytest
from scipy import stats

from engines.errors import ParameterError, SampleSizeError
from engines.nplm.min_p import WidthNulls
from engines.nplm.null import NullDistribution, Tail, z_score
from engines.types import Float64Array


def correlated(n: int, n_widths: int, rng: np.random.Generator) -> Float64Array:
    """Draw t of n windows: widths share half of their terms and differ in size."""
    shared = rng.chisquare(10, size=(n, 1))
    t: Float64Array = (shared + rng.chisquare(10, size=(n, n_widths))) * np.arange(1, n_widths + 1)
    return t


NULLS = WidthNulls(correlated(99, 3, np.random.default_rng(0)))


def naive_p(toys: Float64Array, t: Float64Array) -> float:
    """Rank the window among the toys, width by width, as the definition says."""
    joined = np.vstack([toys, t])
    p = [[np.mean(joined[:, w] >= row[w]) for w in range(len(t))] for row in joined]
    smallest = np.min(p, axis=1)
    return float(np.mean(smallest <= smallest[-1] + 1e-12))


@pytest.mark.parametrize("n_widths", [1, 2, 5])
def test_combined_p_is_the_definitions(n_widths: int) -> None:
    rng = np.random.default_rng(n_widths)
    toys = np.round(correlated(30, n_widths, rng))  # ties between toys and with the window
    for t in np.round(correlated(20, n_widths, rng)):
        assert WidthNulls(toys).judge(t).p_value == pytest.approx(naive_p(toys, t))


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize("n_toys", [3, 7, 20])
def test_p_is_exact_over_every_role_of_the_same_windows(n_toys: int, decimals: int) -> None:
    """Exchangeability by enumeration: each of n + 1 windows plays the observed one.

    The share of roles with p at or below any p that occurs is that p: exact, not only safe.
    """
    windows = np.round(correlated(n_toys + 1, 3, np.random.default_rng(5)), decimals)
    p = np.array(
        [
            WidthNulls(np.delete(windows, i, axis=0)).judge(windows[i]).p_value
            for i in range(n_toys + 1)
        ]
    )
    for value in p:
        assert np.mean(p <= value + 1e-12) == pytest.approx(value)


def test_p_is_uniform_over_experiments_with_correlated_widths() -> None:
    """Each experiment has toys of its own; a smallest p taken as it is would be far off."""
    rng = np.random.default_rng(7)
    combined, smallest = [], []
    for _ in range(2000):
        drawn = correlated(100, 4, rng)
        judged = WidthNulls(drawn[1:]).judge(drawn[0])
        combined.append(judged.p_value)
        smallest.append(min(judged.p_by_width))
    # A p is a whole number of steps: spread evenly over its step, it is continuous.
    smooth = np.array(combined) - rng.random(len(combined)) / 100
    assert stats.kstest(smooth, "uniform").pvalue > 0.01
    assert stats.kstest(smallest, "uniform").pvalue < 1e-20
    assert 0.02 < np.mean(np.array(combined) <= 0.05) < 0.05 + 3 * 0.005  # ties only raise p


@pytest.mark.parametrize("t", [-math.inf, -5.0, 20.0, 30.5, 60.0, 1e4, math.inf])
def test_one_width_changes_nothing(t: float) -> None:
    null = NullDistribution(NULLS.t[:, 0].copy())
    alone = WidthNulls(NULLS.t[:, :1])
    judged = alone.judge(np.array([t]))
    assert judged.p_value == null.p_value(t)
    assert judged.p_by_width == (null.p_value(t),)
    assert judged.p_interval == null.p_interval(t)
    assert judged.z_score == null.z_score(t)
    assert (judged.p_chi2, judged.p_gamma) == (null.chi2_p_value(t), null.gamma_p_value(t))
    assert (judged.width, judged.is_below) == (0, null.is_below(t))
    tails: tuple[Tail, ...] = ("chi2", "gamma", "toys")
    for tail in tails:
        assert alone.tail_p_value(tail, np.array([t])) == null.tail_p_value(tail, t)
        shift = alone.z_shift(tail, np.array([t]), 0.2)
        assert shift == pytest.approx(null.z_shift(tail, t, 0.2 * null.std))
    assert alone.ks_p("chi2") == null.chi2_ks_p
    assert alone.ks_p("gamma") == null.gamma_ks_p


def test_p_never_rises_as_any_t_grows() -> None:
    rng = np.random.default_rng(2)
    for t in correlated(100, 3, rng):
        raised = t + rng.exponential(10.0, size=3) * (rng.random(3) < 0.5)
        before, after = NULLS.judge(t), NULLS.judge(raised)
        assert after.p_value <= before.p_value
        assert after.p_chi2 <= before.p_chi2
        assert after.p_gamma <= before.p_gamma


@pytest.mark.parametrize("size", [-math.inf, -1e300, -1.0, 0.0, 50.0, 1e300, math.inf])
def test_nothing_is_zero_or_nan(size: float) -> None:
    for t in (np.full(3, size), np.array([size, 20.0, 40.0])):
        judged = NULLS.judge(t)
        for p in (judged.p_value, judged.p_chi2, judged.p_gamma, *judged.p_by_width):
            assert 0 < p <= 1
        assert judged.p_interval[0] <= judged.p_value <= judged.p_interval[1]
        tails: tuple[Tail, ...] = ("chi2", "gamma", "toys")
        for tail in tails:
            assert math.isfinite(NULLS.z_shift(tail, t, 0.3))
        assert math.isfinite(judged.z_score)


def test_toys_all_alike_still_judge() -> None:
    judged = WidthNulls(np.full((9, 2), 5.0)).judge(np.array([5.0, 6.0]))
    assert judged.p_value == 0.1
    assert judged.width == 1
    assert 0 < judged.p_gamma <= 1


def test_tails_are_sidaks() -> None:
    t = np.array([60.0, 80.0, 100.0])
    by_width = [null.chi2_p_value(value) for null, value in zip(NULLS.nulls, t, strict=True)]
    assert NULLS.judge(t).p_chi2 == pytest.approx(1 - (1 - min(by_width)) ** 3, rel=1e-9)
    assert NULLS.judge(t).p_chi2 == NULLS.tail_p_value("chi2", t)
    assert NULLS.judge(t).p_gamma == NULLS.tail_p_value("gamma", t)
    assert NULLS.judge(t).p_value == NULLS.tail_p_value("toys", t)
    assert NULLS.judge(np.zeros(3)).p_chi2 == pytest.approx(1.0)
    assert NULLS.ks_p("gamma") == pytest.approx(
        min(1.0, 3 * min(null.gamma_ks_p for null in NULLS.nulls))
    )
    assert NULLS.ks_p("toys") == 1.0


def test_width_is_that_of_the_smallest_p_and_ties_go_to_the_tail_then_the_excess() -> None:
    middle = np.median(NULLS.t, axis=0)
    highest = NULLS.t.max(axis=0)
    assert NULLS.judge(np.array([middle[0], highest[1] + 1, middle[2]])).width == 1
    # All exceed every toy. The first lies 10 spreads out, the last 8, but its law is narrower.
    out = NULLS.t.mean(axis=0) + np.array([10.0, 6.0, 8.0]) * NULLS.t.std(axis=0, ddof=1)
    assert NULLS.judge(out).width == 2
    assert NULLS.judge(np.array([1e5, 1e6, 2e5])).width == 1  # every tail is 1e-300 there


def test_any_width_far_below_its_null_tells() -> None:
    middle = np.median(NULLS.t, axis=0)
    assert not NULLS.judge(middle).is_below
    middle[1] = NULLS.nulls[1].mean - 7 * NULLS.nulls[1].std
    assert NULLS.judge(middle).is_below


def test_one_leading_width_ties_with_the_toys_that_lead_the_others() -> None:
    toys = np.array([[1.0, 9.0], [9.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert WidthNulls(toys).judge(np.array([10.0, 0.0])).p_value == 0.4
    assert WidthNulls(toys).judge(np.array([10.0, 10.0])).p_value == WidthNulls(toys).resolution


@pytest.mark.parametrize("tail", ["chi2", "gamma", "toys"])
def test_widths_move_together_under_the_offset(tail: Tail) -> None:
    t = NULLS.t.mean(axis=0) + NULLS.t.std(axis=0, ddof=1)
    offset = 0.25 * NULLS.t.std(axis=0, ddof=1)
    above, below = (z_score(NULLS.tail_p_value(tail, t + sign * offset)) for sign in (1, -1))
    assert NULLS.z_shift(tail, t, 0.25) == pytest.approx(0.5 * (above - below))
    assert NULLS.z_shift(tail, t, 0.5) > NULLS.z_shift(tail, t, 0.25) > 0


def test_judging_takes_less_than_a_millisecond() -> None:
    nulls = WidthNulls(correlated(1000, 5, np.random.default_rng(1)))
    t = nulls.t[0] + 1.0
    nulls.judge(t)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        nulls.judge(t)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1e-3


@pytest.mark.parametrize("t", [[1.0, 2.0], [1.0, 2.0, math.nan], [[1.0, 2.0, 3.0]]])
def test_t_of_another_shape_or_nan_is_refused(t: list[float]) -> None:
    with pytest.raises(ParameterError, match=re.escape(f"3 kernel widths; got {t}; test the")):
        NULLS.judge(np.array(t))
    with pytest.raises(ParameterError, match="one number for each"):
        NULLS.tail_p_value("toys", np.array(t))


@pytest.mark.parametrize(
    "t", [np.ones(5), np.ones((5, 0)), np.ones((1, 2)), np.full((5, 2), math.nan)]
)
def test_toys_that_cannot_calibrate_are_refused(t: Float64Array) -> None:
    with pytest.raises(SampleSizeError):
        WidthNulls(t)
