"""The passes over the features: every way of computing a sum gives the same sum."""

import numpy as np
import pytest
import torch

from engines.nplm import fused
from engines.nplm.losses import Loss, loss_terms
from engines.nplm.sums import Sample, feature_sums, labelled_sums, sums_over
from engines.nplm.threads import Threads
from engines.types import Float64Array

LOSSES: list[Loss] = ["cross-entropy", "likelihood"]
COLUMNS = slice(3, 9)
ONE, TWO = Threads(1), Threads(2)


def features(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n).normal(size=(n, 12))).to(dtype)


def coordinates(n_windows: int, size: float = 0.5) -> Float64Array:
    return np.random.default_rng(9).normal(size=(n_windows, 6)) * size


def naive(psi: torch.Tensor, a: Float64Array, weight: float, loss: Loss) -> Float64Array:
    x = psi[:, COLUMNS].double()
    h, slope, excess = loss_terms(loss, x @ torch.from_numpy(a).T)
    sums = [weight * h.sum(0)[:, None], excess.sum(0)[:, None], weight * (slope.T @ x)]
    return np.asarray(torch.cat(sums, dim=1).numpy())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_windows", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 20_000])
def test_sums_are_the_naive_ones(loss: Loss, n_windows: int, n: int) -> None:
    psi, a = features(n), coordinates(n_windows)
    got = sums_over([Sample(psi, COLUMNS, 0.3)], a, np.arange(len(a)), loss, ONE)
    wanted = naive(psi, a, 0.3, loss)
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(got, wanted, atol=2e-6 * scale)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_stores_give_the_sums_of_what_they_hold(loss: Loss, dtype: torch.dtype) -> None:
    psi, a = features(3000, dtype), coordinates(1)
    got = sums_over([Sample(psi, COLUMNS, 0.3)], a, np.arange(len(a)), loss, ONE)
    wanted = naive(psi, a, 0.3, loss)
    atol = (1e-12 if dtype == torch.float64 else 2e-6) * float(np.abs(wanted).max())
    np.testing.assert_allclose(got, wanted, atol=atol)


@pytest.mark.parametrize("n_windows", [1, 5])
def test_number_of_threads_changes_no_bit(n_windows: int) -> None:
    psi, a, windows = features(100_000), coordinates(n_windows), np.arange(n_windows)
    offsets = np.linspace(0, 100_000, n_windows + 1).astype(np.int64)
    for sample in (Sample(psi, COLUMNS, 0.3), Sample(psi, COLUMNS, 0.3, offsets=offsets)):
        one, two = (sums_over([sample], a, windows, "cross-entropy", n) for n in (ONE, TWO))
        assert np.array_equal(one, two)
    assert np.array_equal(feature_sums(psi, ONE), feature_sums(psi, TWO))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_of_their_own_events_are_each_summed_alone(loss: Loss, dtype: torch.dtype) -> None:
    psi, a = features(30_000, dtype), coordinates(3)
    offsets, windows = np.array([0, 10, 9000, 9001, 30_000]), np.array([3, 0, 2])
    sample = Sample(psi, COLUMNS, 0.3, offsets=offsets)
    got = sums_over([sample], a, windows, loss, ONE)
    for row, window in enumerate(windows):
        own = psi[offsets[window] : offsets[window + 1]]
        wanted = naive(own, a[row : row + 1], 0.3, loss)[0]
        atol = 2e-6 * float(np.abs(wanted).max())
        np.testing.assert_allclose(got[row], wanted, atol=atol)


@pytest.mark.parametrize("f", [-1000.0, -100.0, -30.0, 30.0, 80.0, 100.0, 600.0, 1000.0])
def test_extreme_log_ratios_neither_overflow_nor_vanish(f: float) -> None:
    """One event at f, by the fused pass: softplus is |f| or 0, e^f is right up to e^700."""
    psi, a = torch.ones((1, 1)), np.array([[f]])
    sample = Sample(psi, slice(0, 1), 1.0)
    got = sums_over([sample], a, np.arange(1), "cross-entropy", ONE)[0]
    assert float(got[0]) == pytest.approx(np.logaddexp(0, f), rel=1e-6, abs=1e-15)
    assert float(got[1]) == pytest.approx(np.expm1(min(f, 700.0)), rel=1e-6)
    assert float(got[2]) == pytest.approx(float(f > 0), abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_decide_on_which_side_an_event_counts(loss: Loss) -> None:
    psi, a = features(5000), coordinates(3)
    labels = torch.from_numpy(np.random.default_rng(0).random((5000, 3)) < 0.2)
    sample = Sample(psi, COLUMNS, 0.3, data_labels=labels)
    got = sums_over([sample], a, np.arange(3), loss, ONE)
    for window in range(3):
        is_data, only = labels[:, window], a[window : window + 1]
        wanted = naive(psi[~is_data], only, 0.3, loss)
        if loss == "cross-entropy":
            data = naive(psi[is_data], -only, 1.0, loss)
            data[:, 1], data[:, 2:] = 0.0, -data[:, 2:]
            wanted = wanted + data
        atol = 2e-6 * float(np.abs(wanted).max())
        np.testing.assert_allclose(got[window], wanted[0], atol=atol)
    sums = [psi[labels[:, window]][:, COLUMNS].double().sum(0) for window in range(3)]
    np.testing.assert_allclose(labelled_sums(sample, ONE), torch.stack(sums).numpy(), atol=1e-3)


def test_feature_sums_are_sums() -> None:
    psi = features(70_000)
    np.testing.assert_allclose(
        feature_sums(psi, ONE), psi.double().sum(dim=0).numpy(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_enter_with_the_other_sign_and_samples_add_up(loss: Loss, dtype: torch.dtype) -> None:
    reference, data, a = features(5000, dtype), features(700, dtype), coordinates(1)
    samples = [Sample(reference, COLUMNS, 0.3), Sample(data, COLUMNS, 1.0, sign=-1)]
    got = sums_over(samples, a, np.arange(1), loss, ONE)
    of_data = naive(data, -a, 1.0, loss)
    of_data[:, 1], of_data[:, 2:] = 0.0, -of_data[:, 2:]
    wanted = naive(reference, a, 0.3, loss) + of_data
    np.testing.assert_allclose(got, wanted, atol=2e-6 * float(np.abs(wanted).max()))


def test_exponential_of_the_fused_pass_is_exact_to_rounding_of_f() -> None:
    x = np.concatenate([np.linspace(-720, 720, 20_001), [0.0, 1e-30, 1e30, -1e30]])
    out = np.empty(len(x))
    fused._exp_minus_abs(x.astype(np.float32), out)
    wanted = np.exp(-np.minimum(np.abs(x.astype(np.float32).astype(np.float64)), 700.0))
    np.testing.assert_allclose(out, wanted, rtol=1e-12)
