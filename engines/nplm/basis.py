"""Whitened coordinates of the kernel model, fixed once from a sample of their own.

The model f(x) = sum_m alpha_m k(x, c_m) is written as f(x) = psi(x) . a in coordinates where the
Hessian of the loss under the null is the identity and the ridge is diagonal:

    K + eps n_centres I = V S V^T          K_ij = k(c_i, c_j)
    phi(x) = S^(-1/2) V^T k(x, c)          orthonormal in the penalty's norm
    G = (N(R) / 2) <phi phi^T> = U g U^T   null Hessian: data look like the reference
    psi(x) = (g + lam n)^(-1/2) U^T phi(x) kept where g > cut lam n
    ridge_k = lam n / (g_k + lam n)        n = n_ref + N(R)

Few directions survive the cut (about 200 of 1000), and a fit takes a handful of gradient steps.
"""

import math
from dataclasses import dataclass

import torch

from engines.errors import ParameterError, SampleSizeError
from engines.nplm.kernel import gaussian_kernel, kernel_width

__all__ = ["Basis", "BasisConfig", "build_basis"]

_BLOCK = 16_384


@dataclass(frozen=True)
class BasisConfig:
    """What defines the kernel model.

    Attributes:
        n_centres: Nystrom centres, drawn from the basis sample.
        n_ref: events of the reference sample.
        n_expected: expected events of a window under the null, N(R).
        lam: ridge parameter.
        sigma: kernel width in standardised units; None takes the quantile below.
        sigma_quantile: quantile of the pairwise distances used as width.
        jitter: eps above; 1e-13 is what float64 Falkon adds.
        cut: directions with g below cut x lam n are dropped.
        seed: of the choice of centres.
    """

    n_centres: int
    n_ref: int
    n_expected: float
    lam: float = 1e-6
    sigma: float | None = None
    sigma_quantile: float = 0.9
    jitter: float = 1e-13
    cut: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        positive = {
            "n_centres": self.n_centres,
            "n_ref": self.n_ref,
            "n_expected": self.n_expected,
            "lam": self.lam,
            "sigma": 1.0 if self.sigma is None else self.sigma,
        }
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                msg = f"{name} must be a finite number above zero; got {value}"
                raise ParameterError(msg)

    @property
    def weight(self) -> float:
        """Weight of a reference event, w = N(R) / n_ref."""
        return self.n_expected / self.n_ref

    @property
    def ridge_scale(self) -> float:
        """The ridge's strength in the summed loss, lam n."""
        return self.lam * (self.n_ref + self.n_expected)


@dataclass(frozen=True)
class Basis:
    """The fixed map from an embedding to whitened features.

    Attributes:
        mean, std: (d,) standardisation, float64.
        sigma: kernel width in standardised units.
        centres: (n_centres, d) standardised, float64.
        projector: (n_centres, r) from kernel values to psi, float64.
        ridge: (r,) diagonal of the penalty, float64.
    """

    mean: torch.Tensor
    std: torch.Tensor
    sigma: float
    centres: torch.Tensor
    projector: torch.Tensor
    ridge: torch.Tensor

    @property
    def rank(self) -> int:
        """Number of coordinates r."""
        return int(self.projector.shape[1])

    @property
    def dim(self) -> int:
        """Number of embedding coordinates d."""
        return int(self.mean.shape[0])

    def features(self, embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return psi of embeddings, (n, r).

        Kernel values and projection are computed in float64, blockwise; only the result is stored
        as `dtype`. In float32 the small eigenvalues would turn rounding into signal.

        Args:
            embeddings: (n, d) as the engine gives them.
            dtype: how to store the result.
        """
        psi = torch.empty((len(embeddings), self.rank), dtype=dtype, device=self.mean.device)
        for first in range(0, len(embeddings), _BLOCK):
            block = embeddings[first : first + _BLOCK].to(self.mean.device, torch.float64)
            kernel = gaussian_kernel((block - self.mean) / self.std, self.centres, self.sigma)
            psi[first : first + len(block)] = kernel @ self.projector
        return psi


def build_basis(embeddings: torch.Tensor, config: BasisConfig) -> Basis:
    """Choose standardisation, width and centres, and whiten.

    Args:
        embeddings: (n, d) of the basis sample: background that serves for nothing else, so that
            the statistic is symmetric in reference and data (exact relabelling needs that).
        config: the model.

    Raises:
        SampleSizeError: if there are fewer distinct events than centres.
        ParameterError: if a coordinate is constant.
    """
    x = embeddings.double()
    mean, std = x.mean(dim=0), x.std(dim=0)
    if bool((std == 0).any()) or not bool(std.isfinite().all()):
        bad = (~(std > 0)).nonzero().flatten().tolist()
        msg = f"each embedding coordinate must vary in the basis sample; constant are {bad}"
        raise ParameterError(msg)
    generator = torch.Generator().manual_seed(config.seed)
    x = ((x - mean) / std)[torch.randperm(len(x), generator=generator)]
    sigma = config.sigma or kernel_width(x, config.sigma_quantile)
    centres = _choose_centres(x, config.n_centres, config.seed)
    projector, ridge = _whiten(x, centres, sigma, config)
    return Basis(mean, std, sigma, centres, projector, ridge)


def _choose_centres(x: torch.Tensor, n_centres: int, seed: int) -> torch.Tensor:
    distinct: torch.Tensor = torch.unique(x, dim=0)
    if len(distinct) < n_centres:
        msg = (
            f"the basis sample must hold at least {n_centres} distinct events, one a centre; "
            f"got {len(distinct)}; give more events or fewer centres"
        )
        raise SampleSizeError(msg)
    if len(distinct) == len(x):
        return x[:n_centres].clone()
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))
    return torch.index_select(distinct, 0, order[:n_centres])


def _whiten(
    x: torch.Tensor, centres: torch.Tensor, sigma: float, config: BasisConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(gaussian_kernel(centres, centres, sigma))
    penalty = eigenvalues.clamp(min=0.0) + config.jitter * len(centres)
    to_phi = vectors / penalty.sqrt()
    hessian = torch.zeros((len(centres), len(centres)), dtype=torch.float64, device=x.device)
    for block in torch.split(x, _BLOCK):
        phi = gaussian_kernel(block, centres, sigma) @ to_phi
        hessian += phi.T @ phi
    hessian *= 0.5 * config.n_expected / len(x)
    curvature, rotation = torch.linalg.eigh(hessian)
    kept = curvature > config.cut * config.ridge_scale
    total = curvature[kept] + config.ridge_scale
    return to_phi @ (rotation[:, kept] / total.sqrt()), config.ridge_scale / total
