"""The test statistic of a fitted window."""

import numpy as np
import torch

from engines.nplm.solver import Fit, Problem
from engines.types import Float64Array

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


def log_ratio(psi: torch.Tensor, a: Float64Array) -> torch.Tensor:
    """Return f = psi . a, (n,) float64, where psi is; `a` is (r,)."""
    dtype = torch.promote_types(psi.dtype, torch.float32)
    return (psi.to(dtype) @ torch.from_numpy(a).to(psi.device, dtype)).double()


def window_statistics(problem: Problem, fit: Fit) -> Float64Array:
    """Return t of every fitted window, (n_windows,) float64, always finite.

    The sum over data is a . S_D; that over the reference was found on the solver's last pass. Where
    e^f overflowed float32 there, it is computed again in float64.
    """
    excess = fit.excess.copy()
    for window in np.flatnonzero(~np.isfinite(excess)).tolist():
        excess[window] = _excess_again(problem, fit.a[window], window)
    return np.asarray(2.0 * ((fit.a * problem.data_sums).sum(axis=1) - problem.weight * excess))


def _excess(f: torch.Tensor) -> torch.Tensor:
    return f.double().clamp(max=_LARGEST_F).expm1().sum(dim=0)


def _excess_again(problem: Problem, a: Float64Array, window: int) -> float:
    total = 0.0
    for sample in problem.samples:
        if sample.sign < 0:
            continue
        for first in range(0, len(sample), _BLOCK):
            rows = slice(first, first + _BLOCK)
            f = log_ratio(sample.psi[rows, sample.columns], a)
            if sample.data_labels is not None:
                f = f.masked_fill(sample.data_labels[rows, window], 0.0)
            total += float(_excess(f))
    return total
