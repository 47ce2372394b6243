"""The offset that a finite pool leaves is as large as it is said to be."""

import numpy as np
import pytest

from engines.nplm import NullDistribution, draw_toys, offset_share
from tests.support import gaussians, small_reference, window_spec

N_DATA, N_CALIBRATIONS, N_TOYS, N_FRESH = 200, 24, 150, 150


@pytest.mark.parametrize(("n_ref", "n_pool"), [(5000, 400), (2000, 1000)])
def test_toys_miss_the_fresh_mean_by_the_stated_share(n_ref: int, n_pool: int) -> None:
    """Over calibrations, each with a basis, reference and pool of its own.

    The spread of 24 differences is known to about 15 %; the toys' and windows' own statistics are
    subtracted.
    """
    rng = np.random.default_rng(11)
    spec = window_spec("count", N_DATA)
    shifts = []
    for _ in range(N_CALIBRATIONS):
        reference = small_reference(rng, n_ref=n_ref, n_expected=N_DATA)
        toys = draw_toys(spec, n_pool, N_TOYS, rng)
        null = NullDistribution(reference.test_toys(gaussians(n_pool, rng), toys)[:, 0])
        fresh = np.arange(N_FRESH * N_DATA).reshape(N_FRESH, N_DATA)
        t = reference.test_toys(gaussians(fresh.size, rng), list(fresh))[:, 0]
        shifts.append((null.mean - t.mean()) / t.std(ddof=1))
    statistical = 1 / N_TOYS + 1 / N_FRESH
    observed = np.sqrt(max(np.var(shifts, ddof=1) - statistical, 0.0))
    assert observed == pytest.approx(offset_share(N_DATA, n_pool, n_ref), rel=0.4)
