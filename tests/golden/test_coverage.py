"""The systematic that a small pool is reported with covers the shift that it causes.

Windows of 250 with a pool and a reference of 1000 have the offset of windows of 5000 with 20,000
and 20,000: sizes that are twenty times smaller give the same share of the null's spread.
"""

import numpy as np
import pytest

from bench.coverage import CoverageConfig, SmallPool, coverage, small_pools

CONFIG = CoverageConfig(
    n_calibrations=60,
    n_data=250,
    n_pool=1000,
    n_ref=1000,
    n_toys=99,
    n_fresh=60,
    n_basis=300,
    threads=1,
)


@pytest.fixture(scope="module")
def pools() -> list[SmallPool]:
    return small_pools(CONFIG, np.random.default_rng(0))


def test_reported_systematic_is_that_of_windows_of_5000_and_20000_events() -> None:
    assert CONFIG.offset_share == pytest.approx(CoverageConfig().offset_share)


def test_one_systematic_covers_two_thirds_and_two_nearly_all(pools: list[SmallPool]) -> None:
    """Of 60, 41 and 57 are expected; the bounds leave three standard deviations of a binomial."""
    covered = coverage(pools, CONFIG)
    assert 0.5 <= covered["shift_within"]["1"] <= 0.87
    assert covered["shift_within"]["2"] >= 0.87
    assert covered["shift_std"] == pytest.approx(CONFIG.offset_share, rel=0.35)
    assert abs(covered["shift_mean"]) < 3 * covered["shift_mean_error"]


def test_z_is_off_by_about_its_systematic(pools: list[SmallPool]) -> None:
    covered = coverage(pools, CONFIG)
    assert 0.5 <= covered["z_within"]["1"] <= 0.85
    assert covered["z_within"]["2"] >= 0.85


def test_p_values_ignore_the_offset_until_the_systematic_is_heeded(pools: list[SmallPool]) -> None:
    """Over many calibrations more than 5 % of null windows reach p = 0.05; far more in some."""
    alarms = coverage(pools, CONFIG)["p_below_0.05"]
    raw, lowered = alarms["as calibrated"], alarms["t lowered by the systematic"]
    averaged = alarms["averaged over the systematic"]
    assert raw["worst"] > 0.15
    assert lowered["share"] < 0.05
    assert abs(averaged["share"] - 0.05) < 3 * averaged["error"]
