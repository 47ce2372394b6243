"""Calibrated on an independent background, p-values of null windows are uniform.

The reference is held fixed, as it is for a consumer: toys and fresh windows meet the same one. The
pool is large, so that its offset is 2 to 3 % of the null's spread; the toys are four times as many
as the windows, so that the uniform distribution itself is what the tests compare with.

Relabelling needs neither pool nor toys. Its p-values share the reference if windows do, so each
experiment has a basis, a reference and a window of its own.

A right calibration fails a KS test at 0.01 once in a hundred samples, twice with so few toys, so
the seed is fixed; it is simply the first. Tried by hand, with the lowest p of each: seeds 0 to 7
for all ways (single windows 0.007; ten as one, then with a pool of 100,000, 0.002), seeds 0 and 1
with pools of 200,000 (below 0.001, Poisson), and 0 and 1 for relabelling (0.1). To tell chance from
a fault, 32 more calibrations for Poisson counts, and 30 for ten windows as one: fresh windows'
mean minus the toys' was -0.008 +- 0.006 and -0.004 +- 0.010 spreads, p <= 0.05 for 0.049 +- 0.002
and 0.051 +- 0.003 of the windows, and the lowest p of windows against toys 0.012 and 0.019.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from engines.nplm import CachedReference, Loss, WidthNulls, draw_toys, offset_share
from engines.types import Float64Array
from tests.support import gaussians, small_reference, window_spec

SEED = 0
N_REF = 2000
N_TOYS, N_WINDOWS = 2000, 500
N_EXPERIMENTS, N_RELABELLINGS = 500, 59


@dataclass(frozen=True)
class Way:
    """One way of cutting and testing windows; `scale` of them are merged into one."""

    mode: Literal["count", "time"] = "count"
    n_expected: int = 200
    sigma_quantiles: tuple[float, ...] = (0.9,)
    loss: Loss = "cross-entropy"
    scale: int = 1
    n_pool: int = 100_000


WAYS = {
    "fixed count": Way(),
    "Poisson count": Way(mode="time"),
    "three widths": Way(sigma_quantiles=(0.1, 0.5, 0.9)),
    "likelihood": Way(loss="likelihood"),
    "ten windows as one": Way(n_expected=40, scale=10, n_pool=400_000),
    "ten Poisson windows as one": Way(mode="time", n_expected=40, scale=10, n_pool=400_000),
}
WITH_CHI2 = ("fixed count", "Poisson count")


@dataclass(frozen=True)
class Calibrated:
    nulls: WidthNulls
    fresh_t: Float64Array


def calibrate(way: Way, seed: int) -> Calibrated:
    rng = np.random.default_rng(seed)
    window = window_spec(way.mode, way.n_expected)
    reference = small_reference(
        rng,
        n_ref=N_REF,
        n_expected=way.n_expected,
        n_centres=40,
        sigma_quantiles=way.sigma_quantiles,
        loss=way.loss,
    )
    toys = draw_toys(window, way.n_pool, N_TOYS, rng, scale=way.scale)
    nulls = WidthNulls(reference.test_toys(gaussians(way.n_pool, rng), toys, scale=way.scale))
    return Calibrated(nulls, fresh_t(reference, way, rng))


def fresh_t(reference: CachedReference, way: Way, rng: np.random.Generator) -> Float64Array:
    """Return t of disjoint windows; merged ones from the sums of the single ones."""
    n_single = way.scale * N_WINDOWS
    is_time = way.mode == "time"
    counts = rng.poisson(way.n_expected, n_single) if is_time else [way.n_expected] * n_single
    n_fresh = int(np.sum(counts))
    windows = np.split(np.arange(n_fresh), np.cumsum(counts)[:-1])
    if way.scale == 1:
        return reference.test_toys(gaussians(n_fresh, rng), windows)
    psi = reference.features(gaussians(n_fresh, rng))
    sums = np.array([reference.sums([psi[rows[0] : rows[-1] + 1]]) for rows in windows])
    merged = sums.reshape(N_WINDOWS, way.scale, -1).sum(axis=1)
    return reference.test_sums(merged, scale=way.scale)


@pytest.fixture(scope="module")
def calibrated() -> dict[str, Calibrated]:
    return {name: calibrate(way, SEED) for name, way in WAYS.items()}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_setting_has_a_small_offset(way: Way) -> None:
    assert offset_share(way.scale * way.n_expected, way.n_pool, N_REF) < 0.03


@pytest.mark.parametrize("name", WAYS)
def test_empirical_p_is_uniform(calibrated: dict[str, Calibrated], name: str) -> None:
    null = calibrated[name]
    p = np.array([null.nulls.judge(t).p_value for t in null.fresh_t])
    assert len(p) >= 500
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(p <= 0.05) < 0.09


@pytest.mark.parametrize("name", WITH_CHI2)
def test_chi2_p_is_uniform_where_the_toys_follow_it(
    calibrated: dict[str, Calibrated], name: str
) -> None:
    null = calibrated[name].nulls.nulls[0]
    assert null.chi2_ks_p > 0.01
    p = [null.chi2_p_value(t) for t in calibrated[name].fresh_t[:, 0]]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", WAYS)
def test_spread_of_fresh_windows_is_the_toys(calibrated: dict[str, Calibrated], name: str) -> None:
    for null, fresh in zip(calibrated[name].nulls.nulls, calibrated[name].fresh_t.T, strict=True):
        assert fresh.std(ddof=1) == pytest.approx(null.std, rel=0.12)


def relabelled_ranks(
    seed: int, n: int = N_EXPERIMENTS, quantiles: tuple[float, ...] = (0.9,)
) -> Float64Array:
    """Return how many of the labellings are as extreme as each experiment's own, that one too."""
    rng = np.random.default_rng(seed)
    ranks = []
    for _ in range(n):
        reference = small_reference(
            rng,
            n_ref=1000,
            n_expected=100,
            n_centres=20,
            n_basis=200,
            sigma_quantiles=quantiles,
        )
        window = reference.features(gaussians(100, rng))
        result = reference.relabel([window], n_relabellings=N_RELABELLINGS, rng=rng)
        ranks.append(round(result.p_value * (N_RELABELLINGS + 1)))
    return np.array(ranks)


def test_relabelled_p_of_several_widths_is_never_too_small() -> None:
    """The width is chosen anew in every labelling; ties of the smallest p only raise it."""
    p = relabelled_ranks(SEED, 250, (0.1, 0.5, 0.9)) / (N_RELABELLINGS + 1)
    for share in (0.05, 0.1, 0.2, 0.5):
        assert np.mean(p <= share) < share + 2 * np.sqrt(share * (1 - share) / len(p))
    assert np.mean(p <= 0.2) > 0.1


def test_relabelled_p_takes_each_of_its_values_equally_often() -> None:
    """A chi-square test of the counts: 60 values, more than eight experiments each."""
    ranks = relabelled_ranks(SEED)
    counts = np.bincount(ranks - 1, minlength=N_RELABELLINGS + 1)
    assert stats.chisquare(counts).pvalue > 0.01
    assert 0.02 < np.mean(ranks <= 0.05 * (N_RELABELLINGS + 1)) < 0.09
    # Smooth departures, to which the counts are blind: p spread evenly over its step is uniform.
    randomised = (ranks - np.random.default_rng(SEED).random(len(ranks))) / (N_RELABELLINGS + 1)
    assert stats.kstest(randomised, "uniform").pvalue > 0.01
