"""The Hessian of one window's loss: r x r sums over events, for fits far from the null."""

import numpy as np
import torch

from engines.nplm.losses import Loss
from engines.nplm.sums import Sample
from engines.types import Float64Array

__all__ = ["hessian_over"]

_BLOCK = 8_192
#: exp of more is not finite in float64.
_LARGEST_F = 700.0


def hessian_over(sample: Sample, window: int, a: Float64Array, loss: Loss) -> Float64Array:
    """Return the sum over a sample of weight h''(f) psi psi^T, (r, r) float64.

    h'' is the same for f and -f in the cross-entropy, so it serves data and reference alike.

    Args:
        sample: the events.
        window: which window.
        a: (r,) float64, its coordinates.
        loss: which h.
    """
    rows = slice(0, len(sample))
    if sample.offsets is not None:
        rows = slice(*sample.offsets[window : window + 2].tolist())
    at = torch.from_numpy(a).to(sample.psi.device)
    total = torch.zeros((len(a), len(a)), dtype=torch.float64, device=at.device)
    for first in range(rows.start, rows.stop, _BLOCK):
        part = slice(first, min(first + _BLOCK, rows.stop))
        psi = sample.psi[part, sample.columns].double()
        curvature = sample.weight * _second_derivative(psi @ at, loss)
        if sample.data_labels is not None:
            is_data = sample.data_labels[part, window]
            of_data = 0.0 if loss == "likelihood" else 1.0 / sample.weight
            curvature = torch.where(is_data, of_data * curvature, curvature)
        total += psi.T @ (psi * curvature[:, None])
    return np.asarray(total.cpu().numpy())


def _second_derivative(f: torch.Tensor, loss: Loss) -> torch.Tensor:
    if loss == "likelihood":
        return f.clamp(max=_LARGEST_F).exp()
    probability = torch.sigmoid(f)
    return probability * (1.0 - probability)
