"""The test statistic of a fitted window."""

import torch

from engines.nplm.solver import Fit, Problem

__all__ = ["log_ratio", "statistic_from_log_ratio", "window_statistics"]

_BLOCK = 8_192


def statistic_from_log_ratio(
    f_data: torch.Tensor, f_ref: torch.Tensor, weight: float
) -> torch.Tensor:
    """Return t = 2 [ sum_data f - w sum_ref (e^f - 1) ].

    It is a sum over events, so the values of blocks of events add up to that of all.

    Args:
        f_data: (n_data, ...) log density ratio of the data events.
        f_ref: (n_ref, ...) log density ratio of the reference events.
        weight: w = N(R) / n_ref.

    Source: arXiv:2204.02317 Eq. 9.

    >>> f = torch.tensor([0.5, -0.5], dtype=torch.float64)
    >>> statistic_from_log_ratio(f, torch.zeros(3, dtype=torch.float64), 2 / 3)
    tensor(0., dtype=torch.float64)
    """
    return 2.0 * (f_data.double().sum(dim=0) - weight * f_ref.double().expm1().sum(dim=0))


def log_ratio(psi: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return f = psi . a in float64; `a` is (r,) or (r, k)."""
    return (psi @ a.to(psi.dtype)).double()


def window_statistics(problem: Problem, fit: Fit) -> torch.Tensor:
    """Return t of every fitted window, (n_windows,) float64."""
    a = fit.a.T
    t = torch.zeros(a.shape[1], dtype=torch.float64, device=a.device)
    for psi in torch.split(problem.psi_ref, _BLOCK):
        f_ref = log_ratio(psi, a)
        t += statistic_from_log_ratio(f_ref[:0], f_ref, problem.weight)
    for window, psi in enumerate(problem.psi_data):
        f_data = log_ratio(psi, a[:, window])
        t[window] += statistic_from_log_ratio(f_data, f_data[:0], problem.weight)
    return t
