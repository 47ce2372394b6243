"""The cached reference: its inputs, its windows, its toys."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engines.errors import EngineError, SampleSizeError
from engines.nplm import BasisConfig, CachedReference, FittedTest, Loss, draw_toys
from engines.types import Float64Array, FloatArray
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


@pytest.fixture(scope="module")
def wide() -> CachedReference:
    return small_reference(np.random.default_rng(0), sigma_quantiles=(0.2, 0.5, 0.9))


def test_features_in_pieces_are_the_window(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    window = gaussians(200, rng)
    pieces = [reference.features(part) for part in np.split(window, [1, 70, 70, 150])]
    np.testing.assert_array_equal(reference.test_features(pieces).t, reference.test(window).t)


def test_widths_together_are_each_alone(wide: CachedReference, rng: np.random.Generator) -> None:
    window = gaussians(200, rng)
    together = wide.test(window)
    assert together.t.shape == (3,)
    assert together.f.shape == (3, 200)
    for index, width in enumerate(wide.basis.widths):
        basis = replace(wide.basis, widths=(width,))
        alone = CachedReference(basis, wide.embeddings, wide.n_expected).test(window)
        assert alone.t[0] == pytest.approx(together.t[index], abs=1e-3)
        np.testing.assert_allclose(alone.f[0], together.f[index], atol=1e-3)


def test_sums_of_windows_merge_by_addition(wide: CachedReference, rng: np.random.Generator) -> None:
    windows = [gaussians(200, rng) for _ in range(3)]
    sums = [wide.sums([wide.features(window)]) for window in windows]
    whole = wide.sums([wide.features(np.concatenate(windows))])
    np.testing.assert_allclose(np.sum(sums, axis=0), whole, rtol=1e-5, atol=1e-4)
    t = wide.test_sums(np.stack([np.sum(sums, axis=0), whole]), scale=3)
    np.testing.assert_allclose(t[0], t[1], atol=1e-2)
    toys = wide.test_toys(np.concatenate(windows), [np.arange(600)], scale=3)
    np.testing.assert_allclose(toys[0], t[1], atol=1e-2)


def test_scale_one_of_the_likelihood_is_its_window(rng: np.random.Generator) -> None:
    reference = small_reference(np.random.default_rng(0), loss="likelihood")
    window = gaussians(200, rng)
    sums = reference.sums([reference.features(window)])
    t = reference.test_sums(sums[None])[0]
    np.testing.assert_allclose(reference.test(window).t, t, atol=1e-3)


def test_number_of_threads_changes_no_bit(rng: np.random.Generator) -> None:
    made = [
        CachedReference.build(
            gaussians(1000, np.random.default_rng(0)),
            gaussians(30_000, np.random.default_rng(1)),
            BasisConfig(40, 30_000, 3000.0),
            threads=threads,
        )
        for threads in (1, 2, 3)
    ]
    window = gaussians(3000, rng)
    toys = list(draw_toys(window_spec("count", 3000), 20_000, 5, rng))
    pool = gaussians(20_000, rng)
    for other in made[1:]:
        np.testing.assert_array_equal(other.test(window).t, made[0].test(window).t)
        np.testing.assert_array_equal(other.test_toys(pool, toys), made[0].test_toys(pool, toys))


def test_prepared_reference_has_its_features(rng: np.random.Generator) -> None:
    reference = small_reference(rng)
    reference.prepare()
    assert "psi" in vars(reference)


@pytest.mark.parametrize("factor", [20, 200])
def test_window_far_larger_than_calibrated_is_seen_and_converges(
    reference: CachedReference, rng: np.random.Generator, factor: int
) -> None:
    """The excess is all in the rate: t is that of two Poisson counts, 2 [n ln(n/m) - (n - m)]."""
    n = factor * 200
    test = reference.test(gaussians(n, rng))
    assert test.t[0] == pytest.approx(2 * (n * np.log(factor) - (n - 200)), rel=0.01)
    assert test.gradient_squared <= 1e-4


def naive_f(reference: CachedReference, test: FittedTest, x: FloatArray) -> Float64Array:
    """Return f(x) = sum_m alpha_m k(x, c_m), one width after the other, centre by centre."""
    basis = reference.basis
    points = (x - basis.mean.numpy()) / basis.std.numpy()
    rows = []
    for width, a in zip(basis.widths, test.coefficients, strict=True):
        alpha = width.projector.numpy() @ a
        f = np.zeros(len(x))
        for centre, weight in zip(basis.centres.numpy(), alpha, strict=True):
            f += weight * np.exp(-((points - centre) ** 2).sum(axis=1) / (2 * width.sigma**2))
        rows.append(f)
    return np.stack(rows)


@pytest.mark.parametrize("loss", ["cross-entropy", "likelihood"])
def test_f_of_the_reference_is_the_fitted_function_there(loss: Loss) -> None:
    rng = np.random.default_rng(7)
    reference = small_reference(rng, sigma_quantiles=(0.3, 0.9), loss=loss)
    window = gaussians(200, rng) + np.float32(0.4)
    test = reference.test(window)
    f = reference.log_ratios(test)
    assert f.shape == (2, reference.n_ref)
    np.testing.assert_allclose(f, naive_f(reference, test, reference.embeddings), atol=2e-4)
    np.testing.assert_allclose(test.f, naive_f(reference, test, window), atol=2e-4)


def test_learned_density_holds_as_many_events_as_the_window() -> None:
    # The likelihood's score equation, but for the ridge and what the kernels cannot add up to.
    rng = np.random.default_rng(8)
    reference = small_reference(rng, loss="likelihood")
    for n_data in (150, 200, 260):
        test = reference.test(gaussians(n_data, rng) + np.float32(0.3))
        total = reference.weight * np.exp(reference.log_ratios(test)[0]).sum()
        assert total == pytest.approx(n_data, rel=0.01)
