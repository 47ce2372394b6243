"""The fit: its gradient, its minimum, and the statistic at the minimum."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import optimize

from engines.nplm.losses import Loss, curvature_at_zero
from engines.nplm.solver import Problem, solve
from engines.nplm.statistic import log_ratio, statistic_from_log_ratio, window_statistics
from engines.nplm.sums import Sample

N_REF, N_DATA, RANK = 400, 80, 5
WEIGHT = N_DATA / N_REF
LOSSES: list[Loss] = ["cross-entropy", "likelihood"]


def make_problem(
    loss: Loss = "cross-entropy",
    *,
    dtype: torch.dtype = torch.float64,
    n_windows: int = 3,
    shift: float = 0.3,
) -> Problem:
    rng = np.random.default_rng(0)
    reference, data = rng.normal(size=(N_REF, RANK)), rng.normal(size=(n_windows, N_DATA, RANK))
    return problem_of(
        torch.from_numpy(reference * 0.1).to(dtype),
        torch.from_numpy((data + shift) * 0.1).to(dtype),
        loss,
    )


def problem_of(psi_ref: torch.Tensor, psi_data: torch.Tensor, loss: Loss) -> Problem:
    data_sums = psi_data.double().sum(dim=1).numpy()
    zero_sums, zero_weight = WEIGHT * psi_ref.double().sum(dim=0).numpy(), float(N_DATA)
    samples = [Sample(psi_ref, slice(0, RANK), WEIGHT)]
    if loss == "cross-entropy":
        zero_sums, zero_weight = zero_sums + data_sums, 2.0 * N_DATA
        offsets = np.arange(len(psi_data) + 1) * psi_data.shape[1]
        data = psi_data.flatten(0, 1)
        samples.append(Sample(data, slice(0, RANK), 1.0, sign=-1, offsets=offsets))
    ridge = np.linspace(0.05, 0.9, RANK)
    return Problem(
        samples=samples,
        data_sums=data_sums,
        zero_sums=zero_sums,
        zero_weight=np.full(len(psi_data), zero_weight),
        weight=WEIGHT,
        ridge=ridge,
        curvature=curvature_at_zero(loss, ridge),
        loss=loss,
    )


def own_psi(problem: Problem, window: int) -> torch.Tensor:
    return problem.samples[1].psi[window * N_DATA : (window + 1) * N_DATA]


def own_of(problem: Problem, window: int) -> Sample:
    psi = own_psi(problem, window)
    return Sample(psi, slice(0, RANK), 1.0, sign=-1, offsets=np.array([0, N_DATA]))


def numpy_loss(problem: Problem, window: int, a: np.ndarray) -> float:
    f_ref = problem.samples[0].psi.double().numpy() @ a
    penalty = 0.5 * (problem.ridge * a * a).sum()
    if problem.loss == "likelihood":
        fit = WEIGHT * np.expm1(f_ref).sum() - problem.data_sums[window] @ a
    else:
        f_data = own_psi(problem, window).double().numpy() @ a
        fit = np.logaddexp(0, -f_data).sum() + WEIGHT * np.logaddexp(0, f_ref).sum()
    return float(fit + penalty)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_the_formula(loss: Loss) -> None:
    problem = make_problem(loss)
    a = np.random.default_rng(1).normal(size=(2, RANK))
    point = problem.evaluate(a, np.array([2, 0]))
    for row, window in enumerate((2, 0)):
        here = a[row]
        assert float(point.value[row]) == pytest.approx(
            numpy_loss(problem, window, here), rel=1e-12
        )
        excess = np.expm1(problem.samples[0].psi.numpy() @ here).sum()
        assert float(point.excess[row]) == pytest.approx(excess, rel=1e-12)
        for k in range(RANK):
            step = np.eye(RANK)[k] * 1e-5
            up, down = (numpy_loss(problem, window, here + s) for s in (step, -step))
            wanted = pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-8)
            assert float(point.gradient[row, k]) == wanted


@pytest.mark.parametrize("loss", LOSSES)
def test_start_is_known_without_a_pass(loss: Loss) -> None:
    problem = make_problem(loss)
    known = problem.at_zero()
    passed = problem.evaluate(np.zeros_like(known.gradient), np.arange(3))
    np.testing.assert_allclose(known.value, passed.value, atol=1e-12)
    np.testing.assert_allclose(known.gradient, passed.gradient, atol=1e-12)
    np.testing.assert_allclose(known.excess, passed.excess, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0, 30.0])
def test_fit_reaches_the_minimum(loss: Loss, shift: float) -> None:
    problem = make_problem(loss, shift=shift)
    fit = solve(problem, tolerance=1e-16)
    assert float(fit.gradient_squared.max()) <= 1e-16
    for window in range(3):

        def value(a: np.ndarray, window: int = window) -> float:
            with np.errstate(over="ignore"):
                return numpy_loss(problem, window, a)

        start = fit.a[window] + 0.01
        found = optimize.minimize(value, start, method="BFGS", options={"gtol": 1e-7})
        np.testing.assert_allclose(fit.a[window], found.x, atol=1e-4 * (1 + shift))
        assert value(fit.a[window]) <= value(found.x) + 1e-9


def test_tolerance_says_when_to_stop() -> None:
    problem = make_problem()
    loose, tight = solve(problem, tolerance=1e-2), solve(problem, tolerance=1e-12)
    assert float(loose.gradient_squared.max()) <= 1e-2
    assert float(tight.gradient_squared.max()) <= 1e-12
    assert loose.evaluations < tight.evaluations


@pytest.mark.parametrize("loss", LOSSES)
def test_newton_finishes_what_takes_too_many_steps(loss: Loss) -> None:
    problem = make_problem(loss, shift=30.0)
    few, many = (solve(problem, tolerance=1e-14, max_evaluations=n) for n in (3, 1000))
    assert float(few.gradient_squared.max()) <= 1e-14
    np.testing.assert_allclose(few.a, many.a, rtol=1e-6)


def test_tolerance_out_of_reach_ends_and_says_so() -> None:
    fit = solve(make_problem(dtype=torch.float32, shift=30.0), tolerance=1e-30, max_evaluations=3)
    assert float(fit.gradient_squared.max()) > 1e-30
    assert fit.evaluations < 200
    assert np.isfinite(fit.a).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stops_at_its_rounding_without_looping(loss: Loss) -> None:
    fit = solve(make_problem(loss, dtype=torch.float32), tolerance=0.0)
    assert fit.evaluations < 250  # a last search may run past the 200 asked for
    assert float(fit.gradient_squared.max()) < 1e-10


def test_window_without_any_difference_needs_no_evaluation() -> None:
    psi = torch.from_numpy(np.random.default_rng(2).normal(size=(N_REF, RANK)))
    problem = problem_of(psi, psi[None, :N_DATA], "cross-entropy")
    same = dataclasses.replace(problem, data_sums=0.5 * problem.zero_sums)
    fit = solve(same)
    assert fit.evaluations == 0
    assert float(window_statistics(same, fit)[0]) == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_windows_together_are_windows_alone(loss: Loss) -> None:
    problem = make_problem(loss, n_windows=5)
    together = window_statistics(problem, solve(problem, tolerance=1e-14))
    own = loss == "cross-entropy"
    for window in range(5):
        only = slice(window, window + 1)
        alone = dataclasses.replace(
            problem,
            samples=[problem.samples[0], *([own_of(problem, window)] if own else [])],
            data_sums=problem.data_sums[only],
            zero_sums=problem.zero_sums[only] if own else problem.zero_sums,
            zero_weight=problem.zero_weight[only],
        )
        t = window_statistics(alone, solve(alone, tolerance=1e-14))[0]
        assert float(t) == pytest.approx(float(together[window]), abs=1e-6)


def test_statistic_of_constant_log_ratio_has_a_closed_form() -> None:
    f_data, f_ref = torch.full((10,), 0.2), torch.full((40,), 0.2)
    t = statistic_from_log_ratio(f_data.double(), f_ref.double(), 0.25)
    assert float(t) == pytest.approx(2 * (10 * 0.2 - 0.25 * 40 * np.expm1(0.2)))
    columns = statistic_from_log_ratio(
        f_data.double()[:, None].repeat(1, 3), f_ref.double()[:, None].repeat(1, 3), 0.25
    )
    np.testing.assert_allclose(columns.numpy(), [float(t)] * 3)


@pytest.mark.parametrize("loss", LOSSES)
def test_window_statistics_are_the_formula_at_the_fit(loss: Loss) -> None:
    problem, data = make_problem(loss), make_problem()
    fit = solve(problem)
    got = window_statistics(problem, fit)
    for window in range(3):
        f_data = log_ratio(own_psi(data, window), fit.a[window])
        f_ref = log_ratio(problem.samples[0].psi, fit.a[window])
        wanted = statistic_from_log_ratio(f_data, f_ref, WEIGHT)
        assert float(got[window]) == pytest.approx(float(wanted), rel=1e-12)


def test_statistic_that_overflows_float32_is_found_in_float64() -> None:
    """With f of 100 on one reference event: e^f is beyond float32, and t is what float64 says."""
    problem = make_problem(dtype=torch.float32, n_windows=1)
    a = np.zeros((1, RANK))
    psi = problem.samples[0].psi.clone()
    psi[7] = torch.tensor([1.0, 0, 0, 0, 0])
    a[0, 0] = 100.0
    data = own_psi(problem, 0)[None]
    for windows in (1, 3):  # the fused pass, then matrix products
        many = problem_of(psi, data.repeat(windows, 1, 1), "cross-entropy")
        repeated = np.repeat(a, windows, axis=0)
        excess = many.evaluate(repeated, np.arange(windows)).excess
        fit = dataclasses.replace(solve(many), a=repeated, excess=excess)
        t = window_statistics(many, fit)
        f = psi.double().numpy() @ a[0]
        wanted = 2 * (float(a[0] @ many.data_sums[0]) - WEIGHT * np.expm1(f).sum())
        np.testing.assert_allclose(t, wanted, rtol=1e-5)
