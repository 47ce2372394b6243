"""p-values and significances of a null distribution."""

import math

import numpy as np
import pytest
from scipy import stats

from engines.errors import SampleSizeError
from engines.nplm import NullDistribution, z_score

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
    assert NullDistribution(rng.normal(40, 3, size=500)).chi2_ks_p < 1e-3


def test_negative_mean_still_gives_a_tail() -> None:
    null = NullDistribution(np.array([-3.0, -1.0]))
    assert 0 < null.chi2_p_value(5.0) < 1


def test_mean_and_spread_are_the_toys() -> None:
    assert NULL.mean == 49.0
    assert NULL.std == pytest.approx(np.std(np.arange(99), ddof=1))


@pytest.mark.parametrize(
    "t", [np.empty(0), np.ones(1), np.ones((2, 2)), np.array([1.0, np.nan]), np.array([1, np.inf])]
)
def test_null_refuses_what_cannot_calibrate(t: np.ndarray) -> None:
    with pytest.raises(SampleSizeError, match="at least two finite toys"):
        NullDistribution(t)
