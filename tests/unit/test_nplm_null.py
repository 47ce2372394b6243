"""p-values and significances of a null distribution."""

import math

import numpy as np
import pytest
from scipy import stats

from engines.errors import SampleSizeError
from engines.nplm.null import NullDistribution, Tail, proportion_interval, z_score
from engines.nplm.tails import fit_chi2, fit_gamma, ks_p_value

NULL = NullDistribution(np.arange(99.0))


@pytest.mark.parametrize(
    ("t", "p"), [(-1.0, 1.0), (0.0, 1.0), (0.5, 0.99), (98.0, 0.02), (98.5, 0.01), (1e9, 0.01)]
)
def test_p_counts_the_toys_at_or_above(t: float, p: float) -> None:
    assert NULL.p_value(t) == pytest.approx(p)


def test_p_is_never_zero_and_ends_at_the_resolution() -> None:
    assert NULL.resolution == 0.01
    assert NULL.p_value(math.inf) == NULL.resolution > 0


def test_ties_count_against_the_data() -> None:
    assert NullDistribution(np.full(9, 5.0)).p_value(5.0) == 1.0
    assert NullDistribution(np.array([1.0, 5.0, 5.0])).p_value(5.0) == 0.75


def test_order_of_toys_does_not_matter() -> None:
    shuffled = NullDistribution(np.random.default_rng(0).permutation(NULL.t))
    assert shuffled.p_value(70.5) == NULL.p_value(70.5)


@pytest.mark.parametrize("t", [-math.inf, -1e9, 0.0, 50.0, 1e9, math.inf])
def test_z_is_finite_everywhere(t: float) -> None:
    assert math.isfinite(NULL.z_score(t))
    assert math.isfinite(z_score(NULL.chi2_p_value(t)))
    assert math.isfinite(z_score(NULL.gamma_p_value(t)))


def test_z_is_that_of_the_empirical_p() -> None:
    assert NULL.z_score(98.5) == pytest.approx(stats.norm.isf(0.01))
    assert NULL.z_score(-1.0) == pytest.approx(stats.norm.isf(0.99))


@pytest.mark.parametrize(
    ("p", "z"),
    [
        (0.5, 0.0),
        (0.15865525393145707, 1.0),
        (2.866515718791939e-07, 5.0),
        (0.8413447460685429, -1.0),
    ],
)
def test_z_of_known_p(p: float, z: float) -> None:
    assert z_score(p) == pytest.approx(z, abs=1e-9)


@pytest.mark.parametrize("p", [0.0, 1e-320, 1e-300, 1.0])
def test_z_of_extreme_p_is_finite(p: float) -> None:
    assert 8 < abs(z_score(p)) < 38


@pytest.mark.parametrize(
    ("mean", "t", "p"),
    [(1.0, 3.841458820694124, 0.05), (2.0, 2 * math.log(100), 0.01), (10.0, 18.307038, 0.05)],
)
def test_chi2_tail_of_known_values(mean: float, t: float, p: float) -> None:
    null = NullDistribution(np.array([mean - 0.5, mean + 0.5]))
    assert null.chi2_dof == mean
    assert null.chi2_p_value(t) == pytest.approx(p, rel=1e-6)


def test_chi2_tail_stays_above_zero() -> None:
    assert 0 < NULL.chi2_p_value(1e6) <= 1e-300


def test_chi2_ks_tells_a_chi2_from_another_shape() -> None:
    rng = np.random.default_rng(0)
    assert NullDistribution(rng.chisquare(40, size=500)).chi2_ks_p > 0.05
    assert NullDistribution(rng.normal(40, 3, size=500)).chi2_ks_p == 0.001


def test_gamma_ks_tells_a_gamma_from_another_shape() -> None:
    rng = np.random.default_rng(0)
    narrow = NullDistribution(rng.gamma(40.0, 0.5, size=500))
    assert narrow.gamma_ks_p > 0.05
    assert narrow.chi2_ks_p == 0.001
    two_humps = np.concatenate([rng.normal(20, 1, 250), rng.normal(60, 1, 250)])
    assert NullDistribution(two_humps).gamma_ks_p == 0.001


def test_ks_p_is_uniform_where_the_law_holds_and_kolmogorovs_own_is_not() -> None:
    rng = np.random.default_rng(3)
    honest, naive = [], []
    for t in rng.gamma(12.0, 2.5, size=(80, 40)):
        shape, scale = fit_gamma(t)
        honest.append(ks_p_value(t, fit_gamma))
        naive.append(stats.kstest(t, stats.gamma(shape, scale=scale).cdf).pvalue)
    assert stats.kstest(honest, "uniform").pvalue > 0.01
    assert stats.kstest(naive, "uniform").pvalue < 1e-6


def test_ks_p_is_the_same_for_the_same_toys() -> None:
    t = np.random.default_rng(1).chisquare(20, size=200)
    assert ks_p_value(t, fit_chi2) == ks_p_value(t[::-1].copy(), fit_chi2)


@pytest.mark.parametrize("t", [[-3.0, -1.0], [5.0, 5.0], [0.0, 0.0], [-1e9, 1e-9]])
def test_odd_toys_still_give_tails(t: list[float]) -> None:
    null = NullDistribution(np.array(t))
    assert 0 < null.chi2_p_value(5.5) < 1
    assert 0 < null.gamma_p_value(5.5) < 1
    assert 0 < null.chi2_ks_p <= 1
    assert 0 < null.gamma_ks_p <= 1


def test_gamma_has_the_toys_mean_and_variance() -> None:
    law = stats.gamma(NULL.gamma_shape, scale=NULL.gamma_scale)
    assert law.mean() == pytest.approx(NULL.mean)
    assert law.std() == pytest.approx(NULL.std)
    assert NULL.gamma_p_value(150.0) == pytest.approx(law.sf(150.0))


def test_gamma_is_the_chi2_where_the_variance_is_twice_the_mean() -> None:
    null = NullDistribution(np.array([8.0, 4.0, 4.0, 0.0]) + 4.0 / 3.0)
    assert null.std**2 == pytest.approx(2 * null.mean)
    assert null.gamma_p_value(30.0) == pytest.approx(null.chi2_p_value(30.0))


@pytest.mark.parametrize("level", [0.68, 0.95])
@pytest.mark.parametrize("t", [-1.0, 0.0, 0.5, 50.0, 97.5, 98.0, math.inf])
def test_interval_is_clopper_and_pearsons(t: float, level: float) -> None:
    known = stats.binomtest(int((NULL.t >= t).sum()), 99).proportion_ci(level, method="exact")
    assert NULL.p_interval(t, level) == pytest.approx((known.low, known.high), abs=1e-12)


def test_interval_is_of_68_percent_and_holds_the_p_value() -> None:
    for t in (-1.0, 10.5, 50.0, 98.0, 1e9):
        low, high = NULL.p_interval(t)
        assert (low, high) == NULL.p_interval(t, 0.68)
        assert low <= NULL.p_value(t) <= high


def test_intervals_of_many_counts_are_those_of_each() -> None:
    low, high = proportion_interval(np.arange(6), 5)
    for k in range(6):
        assert (low[k], high[k]) == proportion_interval(k, 5)


@pytest.mark.parametrize("n", [20, 300])
def test_interval_covers_at_least_its_level(n: int) -> None:
    """The coverage of every true p is a finite sum: no simulation."""
    k = np.arange(n + 1)
    low, high = proportion_interval(k, n)
    for p in np.linspace(0.005, 0.995, 100):
        assert stats.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum() >= 0.68


def test_tail_is_the_operators_choice() -> None:
    assert NULL.tail_p_value("chi2", 80.0) == NULL.chi2_p_value(80.0)
    assert NULL.tail_p_value("gamma", 80.0) == NULL.gamma_p_value(80.0)
    assert NULL.tail_p_value("toys", 80.0) == NULL.p_value(80.0)


@pytest.mark.parametrize("tail", ["chi2", "gamma", "toys"])
def test_z_shift_is_half_of_what_the_offset_moves(tail: Tail) -> None:
    def z(t: float) -> float:
        return z_score(min(NULL.tail_p_value(tail, t), 0.99))

    assert NULL.z_shift(tail, 60.0, 5.0) == pytest.approx(0.5 * (z(65.0) - z(55.0)))
    assert NULL.z_shift(tail, 60.0, 5.0) > 0
    assert NULL.z_shift(tail, 60.0, 0.0) == 0
    assert math.isfinite(NULL.z_shift(tail, math.inf, 5.0))


def test_mean_and_spread_are_the_toys() -> None:
    assert NULL.mean == 49.0
    assert NULL.std == pytest.approx(np.std(np.arange(99), ddof=1))


@pytest.mark.parametrize(
    "t", [np.empty(0), np.ones(1), np.ones((2, 2)), np.array([1.0, np.nan]), np.array([1, np.inf])]
)
def test_null_refuses_what_cannot_calibrate(t: np.ndarray) -> None:
    with pytest.raises(SampleSizeError, match="at least two finite toys"):
        NullDistribution(t)


def test_far_below_is_below_every_toy_too() -> None:
    t = np.random.default_rng(0).normal(50.0, 8.0, 500)
    plain = NullDistribution(t)
    assert plain.is_below(plain.mean - 6.1 * plain.std)
    assert not plain.is_below(plain.mean - 5.9 * plain.std)
    seen = NullDistribution(np.append(t, -200.0))
    assert not seen.is_below(-150.0)
    assert seen.is_below(-201.0)
