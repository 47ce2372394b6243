"""Calibrated on an independent background, p-values of null windows are uniform.

The reference is held fixed, as it is for a consumer: toys and fresh windows meet the same one. The
pool is large, so that its offset is 2.5 % of the null's spread; the toys are five times as many as
the windows, so that the uniform distribution itself is what the test compares with.

A right calibration fails a KS test at 0.01 once in a hundred samples, so the seed is fixed; it is
simply the first. Tried by hand: seeds 0 to 4 with this pool, and 5 to 24 with one of 60,000 and
2000 toys, for fixed and for Poisson counts; of these 50, one lay below 0.01 (seed 5, Poisson).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from engines.nplm import NullDistribution, draw_toys, offset_share
from engines.types import Float64Array
from tests.support import gaussians, small_reference, window_spec

SEED = 0
N_EXPECTED, N_REF, N_POOL = 300, 3000, 100_000
N_TOYS, N_WINDOWS = 3000, 600


@dataclass(frozen=True)
class Calibrated:
    null: NullDistribution
    fresh_t: Float64Array


@pytest.fixture(scope="module", params=["count", "time"])
def calibrated(request: pytest.FixtureRequest) -> Calibrated:
    mode: Literal["count", "time"] = request.param
    rng = np.random.default_rng(SEED)
    window = window_spec(mode, N_EXPECTED)
    reference = small_reference(rng, n_ref=N_REF, n_expected=N_EXPECTED, n_centres=40, n_basis=2000)
    toys = draw_toys(window, N_POOL, N_TOYS, rng)
    null = NullDistribution(reference.test_toys(gaussians(N_POOL, rng), toys))
    counts = rng.poisson(N_EXPECTED, N_WINDOWS) if mode == "time" else [N_EXPECTED] * N_WINDOWS
    n_fresh = int(np.sum(counts))
    windows = np.split(np.arange(n_fresh), np.cumsum(counts)[:-1])
    return Calibrated(null, reference.test_toys(gaussians(n_fresh, rng), windows))


def test_setting_has_a_small_offset() -> None:
    assert offset_share(N_EXPECTED, N_POOL, N_REF) < 0.03


def test_empirical_p_is_uniform(calibrated: Calibrated) -> None:
    p = [calibrated.null.p_value(t) for t in calibrated.fresh_t]
    assert len(p) >= 500
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09


def test_chi2_p_is_uniform_where_the_toys_follow_it(calibrated: Calibrated) -> None:
    assert calibrated.null.chi2_ks_p > 0.01
    p = [calibrated.null.chi2_p_value(t) for t in calibrated.fresh_t]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_spread_of_fresh_windows_is_the_toys(calibrated: Calibrated) -> None:
    assert calibrated.fresh_t.std(ddof=1) == pytest.approx(calibrated.null.std, rel=0.1)
