"""The two losses of the density ratio, as sums over events of functions of f.

With S_D the sum of psi over the data,

    cross-entropy   n L(a) = w sum_R h(f) + sum_D h(-f) + (1/2) sum_k ridge_k a_k^2
                    h(f) = softplus(f) = ln(1 + e^f)                     arXiv:2204.02317
    likelihood      n L(a) = w sum_R h(f) - a . S_D + (1/2) sum_k ridge_k a_k^2
                    h(f) = e^f - 1                                       arXiv:1806.02350

With the likelihood the data enter through S_D only, so windows merge by addition.
"""

from typing import Literal

import numpy as np
import torch
from torch.nn.functional import softplus

from engines.types import Float64Array

__all__ = ["Loss", "curvature_at_zero", "loss_terms", "slope_at_zero", "value_at_zero"]

Loss = Literal["cross-entropy", "likelihood"]


def loss_terms(loss: Loss, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return h(f), h'(f) and e^f - 1, each of the shape of f.

    >>> [round(float(x), 4) for x in loss_terms("cross-entropy", torch.tensor(0.0))]
    [0.6931, 0.5, 0.0]
    """
    excess = torch.expm1(f)
    if loss == "likelihood":
        return excess, excess + 1.0, excess
    return softplus(f), torch.sigmoid(f), excess


def value_at_zero(loss: Loss) -> float:
    """Return h(0)."""
    return 0.0 if loss == "likelihood" else 0.6931471805599453


def slope_at_zero(loss: Loss) -> float:
    """Return h'(0)."""
    return 1.0 if loss == "likelihood" else 0.5


def curvature_at_zero(
    loss: Loss, ridge: Float64Array, *, scale: float = 1.0, n_ratio: float = 1.0
) -> Float64Array:
    """Return the diagonal of the Hessian of n L at a = 0 in the whitened coordinates, (r,).

    There (w/2) sum_R psi psi^T = 1 - ridge. The cross-entropy has half of it from the reference
    and, under the null, as much from the data, which with the ridge makes 1; the likelihood has
    twice of it from the reference.

    Args:
        loss: which loss.
        ridge: (r,) of one window.
        scale: how many windows are merged; the reference weighs so much more.
        n_ratio: by how much the ridge's n grows with them.
    """
    if loss == "likelihood":
        return 2.0 * scale * (1.0 - ridge) + n_ratio * ridge
    return np.ones_like(ridge)
