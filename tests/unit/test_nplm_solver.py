"""The fit: its gradient, its minimum, and the statistic at the minimum."""

import numpy as np
import pytest
import torch
from scipy import optimize

from engines.nplm.solver import Problem, solve
from engines.nplm.statistic import log_ratio, statistic_from_log_ratio, window_statistics


def make_problem(
    dtype: torch.dtype = torch.float64, n_windows: int = 3, shift: float = 0.3
) -> Problem:
    rng = np.random.default_rng(0)
    reference, data = rng.normal(size=(400, 5)), rng.normal(size=(n_windows, 80, 5)) + shift
    return Problem(
        torch.from_numpy(reference * 0.1).to(dtype),
        torch.from_numpy(data * 0.1).to(dtype),
        80 / 400,
        torch.linspace(0.05, 0.9, 5, dtype=torch.float64),
    )


def numpy_loss(problem: Problem, window: int, a: np.ndarray) -> float:
    f_data = problem.psi_data[window].double().numpy() @ a
    f_ref = problem.psi_ref.double().numpy() @ a
    softplus = np.logaddexp(0, -f_data).sum() + problem.weight * np.logaddexp(0, f_ref).sum()
    return float(softplus + 0.5 * (problem.ridge.numpy() * a * a).sum())


def test_loss_and_gradient_are_those_of_the_formula() -> None:
    problem = make_problem()
    a = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 5)))
    loss, gradient = problem.loss_and_gradient(a, torch.tensor([2, 0]))
    for row, window in enumerate((2, 0)):
        here = a[row].numpy()
        assert float(loss[row]) == pytest.approx(numpy_loss(problem, window, here), rel=1e-12)
        for k in range(5):
            step = np.eye(5)[k] * 1e-5
            up, down = (numpy_loss(problem, window, here + s) for s in (step, -step))
            assert float(gradient[row, k]) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0, 30.0])
def test_fit_reaches_the_minimum(shift: float) -> None:
    problem = make_problem(shift=shift)
    fit = solve(problem, tolerance=1e-16)
    assert float(fit.gradient_squared.max()) <= 1e-16
    for window in range(3):

        def loss(a: np.ndarray, window: int = window) -> float:
            return numpy_loss(problem, window, a)

        found = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-7})
        np.testing.assert_allclose(fit.a[window].numpy(), found.x, atol=1e-4 * (1 + shift))
        assert loss(fit.a[window].numpy()) <= loss(found.x) + 1e-9


def test_tolerance_says_when_to_stop() -> None:
    problem = make_problem()
    loose, tight = solve(problem, tolerance=1e-2), solve(problem, tolerance=1e-12)
    assert float(loose.gradient_squared.max()) <= 1e-2
    assert float(tight.gradient_squared.max()) <= 1e-12
    assert loose.evaluations < tight.evaluations


def test_fit_gives_up_and_says_so() -> None:
    fit = solve(make_problem(shift=30.0), tolerance=1e-20, max_evaluations=3)
    assert float(fit.gradient_squared.max()) > 1e-20
    assert torch.isfinite(fit.a).all()


def test_float32_stops_at_its_rounding_without_looping() -> None:
    fit = solve(make_problem(torch.float32), tolerance=0.0)
    assert fit.evaluations <= 540  # the last line search may run past the 500 asked for
    assert float(fit.gradient_squared.max()) < 1e-5


def test_windows_fitted_together_are_those_fitted_alone() -> None:
    problem = make_problem(n_windows=5)
    together = window_statistics(problem, solve(problem, tolerance=1e-14))
    for window in range(5):
        alone = Problem(
            problem.psi_ref, problem.psi_data[window : window + 1], problem.weight, problem.ridge
        )
        t = window_statistics(alone, solve(alone, tolerance=1e-14))[0]
        assert float(t) == pytest.approx(float(together[window]), abs=1e-6)


def test_rows_of_zeros_change_nothing() -> None:
    problem = make_problem(n_windows=1)
    padded = Problem(
        problem.psi_ref,
        torch.cat([problem.psi_data, torch.zeros(1, 50, 5, dtype=torch.float64)], dim=1),
        problem.weight,
        problem.ridge,
    )
    one, other = (solve(p, tolerance=1e-14) for p in (problem, padded))
    np.testing.assert_allclose(one.a.numpy(), other.a.numpy(), atol=1e-9)
    t, t_padded = (window_statistics(p, f) for p, f in ((problem, one), (padded, other)))
    assert float(t) == pytest.approx(float(t_padded), abs=1e-9)


def test_statistic_of_constant_log_ratio_has_a_closed_form() -> None:
    f_data, f_ref = torch.full((10,), 0.2), torch.full((40,), 0.2)
    t = statistic_from_log_ratio(f_data.double(), f_ref.double(), 0.25)
    assert float(t) == pytest.approx(2 * (10 * 0.2 - 0.25 * 40 * np.expm1(0.2)))
    columns = statistic_from_log_ratio(
        f_data.double()[:, None].repeat(1, 3), f_ref.double()[:, None].repeat(1, 3), 0.25
    )
    np.testing.assert_allclose(columns.numpy(), [float(t)] * 3)


def test_window_statistics_are_the_formula_at_the_fit() -> None:
    problem = make_problem()
    fit = solve(problem)
    got = window_statistics(problem, fit)
    for window in range(3):
        f_data = log_ratio(problem.psi_data[window], fit.a[window])
        f_ref = log_ratio(problem.psi_ref, fit.a[window])
        wanted = statistic_from_log_ratio(f_data, f_ref, problem.weight)
        assert float(got[window]) == pytest.approx(float(wanted), rel=1e-12)
