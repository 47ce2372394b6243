"""How far from converged a fit of another solver stands: one exact Newton step from there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from engines.nplm.basis import Width
from engines.nplm.kernel import gaussian_kernel

__all__ = ["Events", "NewtonStep", "newton_step"]

_BLOCK = 4_096


@dataclass(frozen=True)
class Events:
    """Events of one kind and what was fitted to them.

    Attributes:
        x: (n, d) standardised, float64.
        f: (n,) float64 fitted log density ratio.
        weight: of each event in the loss.
        label: 1 for data, 0 for reference.
    """

    x: torch.Tensor
    f: torch.Tensor
    weight: float
    label: float


@dataclass(frozen=True)
class NewtonStep:
    """The step, and what it does to f.

    Attributes:
        gradient_squared: |gradient of n L|^2 in the coordinates of the basis before the step.
        f: of each sample, (n,) after the step.
    """

    gradient_squared: float
    f: list[torch.Tensor]


def newton_step(
    samples: Sequence[Events],
    alpha: torch.Tensor,
    centres: torch.Tensor,
    width: Width,
    *,
    jitter: float,
    ridge_scale: float,
) -> NewtonStep:
    """Minimise the quadratic that touches n L of the cross-entropy at alpha.

    The penalty is (ridge_scale / 2) alpha^T (K + jitter n_centres I) alpha. Its gradient in the
    coordinates of the basis needs no coordinates of alpha: the directions that the basis dropped
    are orthogonal to those it kept in this metric.

    Args:
        samples: data and reference.
        alpha: (n_centres,) float64 where the other solver stopped.
        centres: (n_centres, d) float64.
        width: kernel width and projector.
        jitter: eps of that solver's penalty.
        ridge_scale: lam n of that solver's penalty.
    """
    penalty = gaussian_kernel(centres, centres, width.sigma)
    penalty.diagonal().add_(jitter * len(centres))
    penalty *= ridge_scale
    gradient = width.projector.T @ (penalty @ alpha)
    hessian = width.projector.T @ penalty @ width.projector
    for sample in samples:
        for x, f in _blocks(sample):
            psi = gaussian_kernel(x, centres, width.sigma) @ width.projector
            probability = f.sigmoid()
            gradient += sample.weight * ((probability - sample.label) @ psi)
            curvature = sample.weight * probability * (1.0 - probability)
            hessian += (psi * curvature[:, None]).T @ psi
    step = width.projector @ -torch.linalg.solve(hessian, gradient)
    moved = []
    for sample in samples:
        kernels = (gaussian_kernel(x, centres, width.sigma) for x, _ in _blocks(sample))
        moved.append(sample.f + torch.cat([kernel @ step for kernel in kernels]))
    return NewtonStep(float(gradient @ gradient), moved)


def _blocks(sample: Events) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(torch.split(sample.x, _BLOCK), torch.split(sample.f, _BLOCK), strict=True)
