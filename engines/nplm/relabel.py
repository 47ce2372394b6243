"""Relabelling: a p-value that is exact for any finite sample, without toys and without a pool.

Under the null, window and reference events are exchangeable: any n_data of them might have been the
window. The basis comes from a third sample, so t is symmetric in the pooled events, and t of the
true labels is one of many equally likely values. The features are there already; a relabelling is
a column of 0/1 labels, and many are fitted as one matrix product.

It is conditional on the number of events: a time window's rate is not tested. The p-values of
different windows share the reference, hence are dependent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from engines.errors import ParameterError
from engines.nplm.min_p import combined_p_value
from engines.nplm.problems import PreparedReference
from engines.nplm.solver import solve
from engines.nplm.statistic import window_statistics
from engines.types import Float64Array

__all__ = ["Relabelling", "relabel"]

_BATCH_BYTES, _LARGEST_BATCH = 2**26, 64
#: Every labelling is stopped alike, so the p-value is exact however far from converged t is.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Relabelling:
    """The result of a relabelling test.

    Attributes:
        t: (n_widths,) of the true labels.
        t_relabelled: (n_relabellings, n_widths) of random labels.
    """

    t: Float64Array
    t_relabelled: Float64Array

    @property
    def p_value(self) -> float:
        """Share of labellings, the true one with them, that are as extreme as the true one.

        For one width, (k + 1) / (n_relabellings + 1) with k relabellings of t at or above the true
        one; of several widths, as extreme is a smallest p at or below the true one's: the choice of
        the width is repeated in every relabelling.
        """
        return combined_p_value(self.t, self.t_relabelled)

    @property
    def p_value_below(self) -> float:
        """The same for t at or below the true one."""
        return combined_p_value(-self.t, -self.t_relabelled)


def relabel(
    reference: PreparedReference,
    psi: torch.Tensor,
    *,
    n_relabellings: int,
    rng: np.random.Generator,
    done: Callable[[int], None] | None = None,
) -> Relabelling:
    """Fit the true labels and random ones alike, with the same solver and tolerance.

    Args:
        reference: what the window is compared with.
        psi: (n_data, rank) features of the window.
        n_relabellings: how many; the smallest p-value is 1 / (n_relabellings + 1).
        rng: of the relabellings.
        done: called with the number of relabellings finished since the last call.

    Raises:
        ParameterError: if no relabelling is asked for.
    """
    if n_relabellings < 1:
        msg = f"relabellings must be at least 1; got {n_relabellings}"
        raise ParameterError(msg)
    n_pooled = len(reference.psi) + len(psi)
    size = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // n_pooled))
    values: list[Float64Array] = []
    for first in range(0, n_relabellings + 1, size):
        # The true labels are column 0 of the first batch.
        n = min(size, n_relabellings + 1 - first)
        labels = _labels(n_pooled, len(psi), n, rng, true_first=first == 0)
        values.append(_statistics(reference, psi, labels))
        if done is not None:
            done(n if first else n - 1)
    t = np.concatenate(values)
    return Relabelling(t[0], t[1:])


def _statistics(
    reference: PreparedReference, psi: torch.Tensor, labels: torch.Tensor
) -> Float64Array:
    """Return t of each labelling, (k, n_widths)."""
    problems = [
        reference.relabelled(width, psi, labels) for width in range(len(reference.basis.widths))
    ]
    t = [window_statistics(p, solve(p, tolerance=_TOLERANCE)) for p in problems]
    return np.stack(t, axis=1)


def _labels(
    n_pooled: int, n_data: int, n: int, rng: np.random.Generator, *, true_first: bool
) -> torch.Tensor:
    """Return (n_pooled, n) bool, n_data true in each column; the window's events are the last."""
    labels = torch.zeros((n, n_pooled), dtype=torch.bool)
    for row in range(n):
        if true_first and row == 0:
            labels[row, n_pooled - n_data :] = True
        else:
            chosen = rng.choice(n_pooled, n_data, replace=False, shuffle=False)
            labels[row, torch.from_numpy(chosen)] = True
    return labels.T.contiguous()
