"""The test statistic of a fitted window."""

import torch

from engines.nplm.solver import Fit, Problem

__all__ = ["log_ratio", "statistic_from_log_ratio", "window_statistics"]

_BLOCK = 8_192
#: exp of more is not finite in float64; t is then about -1e304 whatever f is.
_LARGEST_F = 700.0


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
    return 2.0 * (f_data.double().sum(dim=0) - weight * _excess(f_ref))


def log_ratio(psi: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return f = psi . a in float64; `a` is (r,) or (r, k)."""
    dtype = torch.promote_types(psi.dtype, torch.float32)
    return (psi.to(dtype) @ a.to(dtype)).double()


def window_statistics(problem: Problem, fit: Fit) -> torch.Tensor:
    """Return t of every fitted window, (n_windows,) float64, always finite.

    The sum over data is a . S_D; that over the reference was found on the solver's last pass. Where
    e^f overflowed float32 there, it is computed again in float64.
    """
    excess = fit.excess.clone()
    overflowed = ~excess.isfinite()
    if bool(overflowed.any()):
        excess[overflowed] = _excess_again(problem, fit.a[overflowed], overflowed)
    return 2.0 * ((fit.a * problem.data_sums).sum(dim=1) - problem.weight * excess)


def _excess(f: torch.Tensor) -> torch.Tensor:
    return f.double().clamp(max=_LARGEST_F).expm1().sum(dim=0)


def _excess_again(problem: Problem, a: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for sample in problem.samples:
        if sample.sign < 0:
            continue
        for first in range(0, len(sample), _BLOCK):
            rows = slice(first, first + _BLOCK)
            f = log_ratio(sample.psi[rows, sample.columns], a.T)
            if sample.data_labels is not None:
                f = f.masked_fill(sample.data_labels[rows][:, windows], 0.0)
            total += _excess(f)
    return total
