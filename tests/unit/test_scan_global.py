"""What the smallest of many p-values is worth."""

import numpy as np
import pytest
from scipy import stats

from engines.nplm import z_score
from stream.scanning.global_p import global_significance, global_significances


def test_bonferroni_and_sidak() -> None:
    found = global_significance([0.2, 1e-5, 0.03], "gamma")
    assert (found.n, found.smallest_p, found.place, found.tail) == (3, 1e-5, 1, "gamma")
    assert found.bonferroni_p == pytest.approx(3e-5)
    assert found.bonferroni_z == pytest.approx(stats.norm.isf(3e-5))
    assert found.sidak_p == pytest.approx(1 - (1 - 1e-5) ** 3, rel=1e-9)
    assert found.sidak_p < found.bonferroni_p


def test_nothing_is_bounded_above_one() -> None:
    found = global_significance([0.5, 0.6])
    assert (found.bonferroni_p, found.bonferroni_z) == (1.0, None)
    assert found.sidak_z == pytest.approx(z_score(0.75))


def test_one_window_needs_no_correction() -> None:
    found = global_significance([0.01])
    assert found.bonferroni_p == found.sidak_p == pytest.approx(0.01)


def test_uniform_windows_are_found_as_often_as_p_says() -> None:
    p = np.random.default_rng(0).random((4000, 20))
    found = [global_significance(row) for row in p.tolist()]
    for level in (0.01, 0.1):
        sidak = np.mean([one.sidak_p <= level for one in found])
        bonferroni = np.mean([one.bonferroni_p <= level for one in found])
        assert bonferroni <= sidak == pytest.approx(level, abs=4 * (level / 4000) ** 0.5)
    assert np.mean([one.sidak_z for one in found]) == pytest.approx(0.0, abs=0.07)


def test_each_kind_of_p_has_its_own() -> None:
    lines = [{"p": 0.02, "p_chi2": 1e-4, "p_gamma": 0.3}, {"p": 0.5, "p_chi2": 0.5, "p_gamma": 0.1}]
    found = {one.tail: (one.place, one.smallest_p) for one in global_significances(lines)}
    assert found == {"chi2": (0, 1e-4), "gamma": (1, 0.1), "toys": (0, 0.02)}
