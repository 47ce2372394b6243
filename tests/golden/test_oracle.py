"""t against the naive dense oracle, and golden values of t."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bench.oracle import naive_kernel, naive_t
from engines.nplm import BasisConfig, CachedReference, Loss, NullDistribution, draw_toys
from engines.types import Float64Array, FloatArray
from tests.support import gaussians, window_spec

SHARE_OF_SPREAD = 0.005
LAM = 1e-6


@dataclass(frozen=True)
class Case:
    reference: CachedReference
    basis_sample: FloatArray
    config: BasisConfig
    null: NullDistribution

    def window(self, fraction: float, seed: int) -> FloatArray:
        """Return a window with a fraction of a narrow signal off the null's axis."""
        rng = np.random.default_rng(1000 + seed)
        events = gaussians(round(self.reference.n_expected), rng)
        n_signal = round(fraction * len(events))
        centre = np.array([1.5, -1.5, 1.5, 0.0])
        events[:n_signal] = rng.normal(size=(n_signal, 4)) * 0.3 + centre
        return events

    def oracle(self, window: FloatArray, scale: int = 1) -> float:
        basis = self.reference.basis

        def standardise(x: FloatArray) -> Float64Array:
            return np.asarray((x.astype(np.float64) - basis.mean.numpy()) / basis.std.numpy())

        return naive_t(
            standardise(window),
            standardise(self.reference.embeddings),
            basis.centres.numpy(),
            sigma=basis.sigmas[0],
            lam=LAM,
            n_expected=scale * self.reference.n_expected,
            n=self.reference.n_ref + scale * self.reference.n_expected,
            likelihood=scale > 1 or self.reference.loss == "likelihood",
        )


def make_case(n_ref: int, n_data: int, n_centres: int, loss: Loss = "cross-entropy") -> Case:
    rng = np.random.default_rng(2024)
    config = BasisConfig(n_centres=n_centres, n_ref=n_ref, n_expected=n_data, lam=LAM)
    basis_sample, sample = gaussians(5000, rng), gaussians(n_ref, rng)
    reference = CachedReference.build(basis_sample, sample, config, loss=loss)
    pool = gaussians(20 * n_data, rng)
    toys = draw_toys(window_spec("count", n_data), len(pool), 40, rng)
    null = NullDistribution(reference.test_toys(pool, toys)[:, 0])
    return Case(reference, basis_sample, config, null)


LOSSES: list[Loss] = ["cross-entropy", "likelihood"]


@pytest.fixture(scope="module")
def small() -> Case:
    return make_case(4000, 1000, 60)


@pytest.fixture(scope="module", params=LOSSES)
def small_of_loss(request: pytest.FixtureRequest) -> Case:
    return make_case(4000, 1000, 60, request.param)


@pytest.fixture(scope="module", params=LOSSES)
def large_of_loss(request: pytest.FixtureRequest) -> Case:
    return make_case(20_000, 4000, 150, request.param)


@pytest.mark.parametrize("fraction", [0.0, 0.003, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("seed", [0, 1])
def test_small_problem_agrees_with_the_oracle(
    small_of_loss: Case, fraction: float, seed: int
) -> None:
    case = small_of_loss
    window = case.window(fraction, seed)
    difference = case.reference.test(window).t[0] - case.oracle(window)
    assert abs(difference) < SHARE_OF_SPREAD * case.null.std


@pytest.mark.parametrize("fraction", [0.0, 0.01])
def test_large_problem_agrees_with_the_oracle(large_of_loss: Case, fraction: float) -> None:
    case = large_of_loss
    window = case.window(fraction, seed=0)
    difference = case.reference.test(window).t[0] - case.oracle(window)
    assert abs(difference) < SHARE_OF_SPREAD * case.null.std


def test_hundreds_of_spreads_away_a_relative_bound_holds(small_of_loss: Case) -> None:
    case = small_of_loss
    window = case.window(0.5, seed=0)
    t = case.reference.test(window).t[0]
    assert t > 100 * case.null.std
    assert t == pytest.approx(case.oracle(window), rel=1e-3)


def test_merged_windows_agree_with_the_oracle_of_all_their_events(small: Case) -> None:
    """Three windows known by their sums alone, against a dense fit of their 3000 events."""
    windows = [small.window(fraction, seed) for seed, fraction in enumerate((0.0, 0.01, 0.02))]
    reference = small.reference
    sums = sum(reference.sums([reference.features(window)]) for window in windows)
    t = float(reference.test_sums(np.asarray(sums)[None], scale=3)[0, 0])
    wanted = small.oracle(np.concatenate(windows), scale=3)
    assert abs(t - wanted) < SHARE_OF_SPREAD * small.null.std


def test_half_precision_store_agrees_with_the_oracle(small: Case) -> None:
    reference = small.reference
    half = CachedReference(
        reference.basis, reference.embeddings, reference.n_expected, dtype=torch.float16
    )
    assert half.psi.element_size() == 2
    for fraction in (0.0, 0.01):
        window = small.window(fraction, seed=0)
        assert abs(half.test(window).t[0] - small.oracle(window)) < SHARE_OF_SPREAD * small.null.std


def test_count_away_from_the_expected_agrees_with_the_oracle(small: Case) -> None:
    window = small.window(0.0, seed=3)[:900]
    difference = small.reference.test(window).t[0] - small.oracle(window)
    assert abs(difference) < SHARE_OF_SPREAD * small.null.std


def test_float32_storage_agrees_with_float64(small: Case) -> None:
    exact = CachedReference(
        small.reference.basis,
        small.reference.embeddings,
        small.reference.n_expected,
        dtype=torch.float64,
    )
    for fraction in (0.0, 0.1):
        window = small.window(fraction, seed=0)
        difference = small.reference.test(window).t[0] - exact.test(window, tolerance=1e-12).t[0]
        assert abs(difference) < SHARE_OF_SPREAD * small.null.std


def test_cut_moves_t_by_less_than_its_share(small: Case) -> None:
    """Oracle and solver may share no direction that the cut drops: compare with no cut at all."""
    n_centres = 300
    moved = []
    for cut in (1e-4, 0.0):
        config = BasisConfig(n_centres, n_ref=4000, n_expected=1000, lam=LAM, cut=cut)
        reference = CachedReference.build(
            small.basis_sample, small.reference.embeddings, config, dtype=torch.float64
        )
        windows = [small.window(fraction, seed=0) for fraction in (0.0, 0.03)]
        moved.append(
            (reference.basis.rank, [reference.test(w, tolerance=1e-12).t[0] for w in windows])
        )
    (rank, cut_t), (full_rank, full_t) = moved
    assert rank < full_rank == n_centres
    np.testing.assert_allclose(cut_t, full_t, atol=SHARE_OF_SPREAD * small.null.std)


def test_oracle_minimises_what_it_says() -> None:
    """The oracle itself, against a search over a grid of alpha on a tiny problem."""
    rng = np.random.default_rng(0)
    data, reference, centres = rng.normal(0.5, 1, (50, 2)), rng.normal(size=(200, 2)), np.eye(2)
    t = naive_t(data, reference, centres, sigma=0.5, lam=1e-3, n_expected=50)
    kernel = [naive_kernel(x, centres, 0.5) for x in (data, reference)]
    penalty = naive_kernel(centres, centres, 0.5)

    def loss(alpha: Float64Array) -> float:
        f_data, f_ref = (k @ alpha for k in kernel)
        fit = np.logaddexp(0, -f_data).sum() + 0.25 * np.logaddexp(0, f_ref).sum()
        return float(fit + 0.5 * 1e-3 * 250 * alpha @ penalty @ alpha)

    grid = np.linspace(-3, 3, 121)
    _, best = min((loss(np.array([a, b])), (a, b)) for a in grid for b in grid)
    f_data, f_ref = (k @ np.array(best) for k in kernel)
    on_grid = 2 * (f_data.sum() - 0.25 * np.expm1(f_ref).sum())
    assert t == pytest.approx(on_grid, abs=0.2)


@pytest.mark.parametrize(("fraction", "t"), [(0.0, 43.761), (0.03, 118.173)])
def test_golden_t(small: Case, fraction: float, t: float) -> None:
    assert small.reference.test(small.window(fraction, seed=0)).t[0] == pytest.approx(t, abs=0.05)


def test_same_seed_same_t(small: Case) -> None:
    again = make_case(4000, 1000, 60)
    window = small.window(0.01, seed=0)
    assert again.reference.test(window).t == small.reference.test(window).t
    np.testing.assert_array_equal(again.null.t, small.null.t)


def test_likelihood_oracle_minimises_what_it_says() -> None:
    """With one centre at every event's place f is a constant c: L has a closed minimum."""
    data, reference, centre = np.zeros((30, 1)), np.zeros((100, 1)), np.zeros((1, 1))
    options = {"sigma": 1.0, "lam": 1e-12, "n_expected": 20.0, "likelihood": True}
    t = naive_t(data, reference, centre, **options)  # type: ignore[arg-type]
    constant = np.log(30 / 20)
    assert t == pytest.approx(2 * (30 * constant - 20 * np.expm1(constant)), rel=1e-6)


@pytest.mark.parametrize(
    "kind", ["half in one spot", "all in one spot", "all within 0.001", "x 20"]
)
def test_absurd_windows_have_the_oracles_t(small_of_loss: Case, kind: str) -> None:
    """Signals of thousands of spreads, where e^f overflows float32 on the way to the minimum."""
    case = small_of_loss
    rng = np.random.default_rng(5)
    window = gaussians(20_000 if kind == "x 20" else 1000, rng)
    if kind == "half in one spot":
        window[::2] = [2.0, -2.0, 2.0, -2.0]
    elif kind == "all in one spot":
        window[:] = [1.0, 1.0, 1.0, 1.0]
    elif kind == "all within 0.001":
        window = (window[:1] + 1e-3 * rng.normal(size=(1000, 4))).astype(np.float32)
    test = case.reference.test(window)
    assert test.gradient_squared <= 1e-5
    assert np.isfinite(test.f).all()
    assert test.t[0] == pytest.approx(case.oracle(window), rel=2e-3)
