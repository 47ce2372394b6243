"""What holds for any null and any window."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engines.nplm import NullDistribution, draw_toys, z_score
from tests.support import gaussians, small_reference, window_spec

T = st.floats(-1e6, 1e6)
NULLS = npst.arrays(np.float64, st.integers(2, 40), elements=T).map(NullDistribution)
REFERENCE = small_reference(np.random.default_rng(0))


@given(null=NULLS, t=T, more=st.floats(0, 1e6))
def test_p_never_rises_as_t_grows(null: NullDistribution, t: float, more: float) -> None:
    assert null.p_value(t + more) <= null.p_value(t)
    assert null.z_score(t + more) >= null.z_score(t)
    assert null.chi2_p_value(t + more) <= null.chi2_p_value(t) * (1 + 1e-9)


@given(null=NULLS, t=T)
def test_p_is_a_multiple_of_the_resolution_and_never_zero(null: NullDistribution, t: float) -> None:
    steps = null.p_value(t) / null.resolution
    assert math.isclose(steps, round(steps))
    assert 1 <= round(steps) <= len(null.t) + 1
    assert math.isfinite(null.z_score(t))
    assert 0 < null.chi2_p_value(t) <= 1


@given(p=st.floats(0, 1), q=st.floats(0, 1))
def test_z_is_finite_and_falls_with_p(p: float, q: float) -> None:
    assert math.isfinite(z_score(p))
    if p < q:
        assert z_score(p) >= z_score(q)


@given(
    n_expected=st.integers(1, 50),
    n_pool=st.integers(50, 300),
    n_toys=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_toys_never_repeat_an_event(n_expected: int, n_pool: int, n_toys: int, seed: int) -> None:
    toys = list(
        draw_toys(window_spec("count", n_expected), n_pool, n_toys, np.random.default_rng(seed))
    )
    assert len(toys) == n_toys
    assert all(len(np.unique(toy)) == n_expected for toy in toys)
    disjoint = toys[: n_pool // n_expected]
    assert len(np.unique(np.concatenate(disjoint))) == n_expected * len(disjoint)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400))
def test_order_of_events_is_only_rounding(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    window = gaussians(n, rng)
    test, shuffled = REFERENCE.test(window), REFERENCE.test(window[::-1])
    permuted = REFERENCE.test(rng.permutation(window)).f[0]
    assert math.isclose(test.t[0], shuffled.t[0], rel_tol=1e-5, abs_tol=2e-3)
    np.testing.assert_allclose(shuffled.f[0, ::-1], test.f[0], atol=1e-3)
    np.testing.assert_allclose(np.sort(permuted), np.sort(test.f[0]), atol=1e-3)
