"""The cached reference: its inputs, its windows, its toys."""

import numpy as np
import pytest
import torch

from engines.errors import EngineError, SampleSizeError
from engines.nplm import BasisConfig, CachedReference, draw_toys
from tests.support import gaussians, small_reference, window_spec


@pytest.fixture(scope="module")
def reference() -> CachedReference:
    return small_reference(np.random.default_rng(0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_weight_is_expected_over_reference(reference: CachedReference) -> None:
    assert reference.n_ref == 2000
    assert reference.weight == 0.1
    assert reference.psi.dtype == torch.float32
    assert reference.psi.shape == (2000, reference.basis.rank)


def test_result_tells_each_events_log_ratio(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    window = gaussians(200, rng)
    window[:20] = [3.0, -3.0, 3.0, -3.0]
    test = reference.test(window)
    assert test.f.shape == (1, 200)
    assert test.f.dtype == np.float64
    assert set(np.argsort(-test.f[0])[:20].tolist()) == set(range(20))
    assert test.gradient_squared <= 1e-5
    assert test.evaluations > 1


def test_same_window_gives_the_same_t(reference: CachedReference, rng: np.random.Generator) -> None:
    window = gaussians(200, rng)
    assert reference.test(window).t[0] == reference.test(window.copy()).t[0]


def test_order_of_events_is_only_rounding(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    window = gaussians(200, rng)
    t = reference.test(window).t
    np.testing.assert_allclose(reference.test(rng.permutation(window)).t, t, atol=1e-3)


def test_read_only_embeddings_are_taken(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    window = gaussians(200, rng)
    window.flags.writeable = False
    assert np.isfinite(reference.test(window).t)


@pytest.mark.parametrize("n_toys", [1, 3, 70])
def test_toys_together_are_windows_one_by_one(
    reference: CachedReference, rng: np.random.Generator, n_toys: int
) -> None:
    pool = gaussians(5000, rng)
    toys = list(draw_toys(window_spec("count", 200), len(pool), n_toys, rng))
    together = reference.test_toys(pool, toys)
    alone = [reference.test(pool[toy]).t for toy in toys]
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_windows_of_differing_length_are_padded_without_trace(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    pool = gaussians(5000, rng)
    toys = list(draw_toys(window_spec("time", 200), len(pool), 40, rng))
    assert len({len(toy) for toy in toys}) > 10
    alone = [reference.test(pool[toy]).t for toy in toys]
    np.testing.assert_allclose(reference.test_toys(pool, toys), alone, atol=2e-3)


def test_toys_tell_how_far_they_are(reference: CachedReference, rng: np.random.Generator) -> None:
    done: list[int] = []
    toys = draw_toys(window_spec("count", 200), 1000, 70, rng)
    t = reference.test_toys(gaussians(1000, rng), toys, done=done.append)
    assert sum(done) == len(t) == 70
    assert len(done) > 1


def test_no_toys_give_no_values(reference: CachedReference, rng: np.random.Generator) -> None:
    assert reference.test_toys(gaussians(10, rng), []).shape == (0, 1)


def test_window_of_one_event_can_be_tested(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    assert np.isfinite(reference.test(gaussians(1, rng)).t)


def test_empty_window_is_refused(reference: CachedReference) -> None:
    with pytest.raises(SampleSizeError, match="at least one event"):
        reference.test(np.empty((0, 4), np.float32))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 5), (1, 5, 4)])
def test_other_shapes_are_refused(reference: CachedReference, shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"must have shape \(n, 4\); got"):
        reference.test(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_embeddings_are_refused(
    reference: CachedReference, rng: np.random.Generator, value: float
) -> None:
    window = gaussians(200, rng)
    window[17, 2] = value
    with pytest.raises(EngineError, match="must be finite"):
        reference.test(window)
    with pytest.raises(EngineError, match="must be finite"):
        reference.test_toys(window, [np.arange(10)])
    with pytest.raises(EngineError, match="must be finite"):
        CachedReference.build(window, gaussians(100, rng), BasisConfig(10, 100, 10.0))


@pytest.mark.parametrize("shift", [3.0, 30.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_very_strong_signal_gives_a_finite_converged_large_t(
    reference: CachedReference, rng: np.random.Generator, shift: float, spread: float
) -> None:
    window = spread * gaussians(200, rng) + np.float32(shift)
    test = reference.test(window.astype(np.float32))
    assert np.isfinite(test.t).all()
    assert np.isfinite(test.f).all()
    assert test.gradient_squared <= 1e-5
    assert test.t[0] > 200


@pytest.mark.parametrize("n", [2, 50, 800])
def test_count_far_from_the_expected_one_is_seen(
    reference: CachedReference, rng: np.random.Generator, n: int
) -> None:
    assert reference.test(gaussians(n, rng)).t[0] > 100
