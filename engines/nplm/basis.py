"""Whitened coordinates of the kernel model, fixed once from a sample of their own.

The model f(x) = sum_m alpha_m k(x, c_m) is written as f(x) = psi(x) . a in coordinates where the
Hessian of the loss under the null is the identity and the ridge is diagonal:

    K + eps n_centres I = V S V^T          K_ij = k(c_i, c_j)
    phi(x) = S^(-1/2) V^T k(x, c)          orthonormal in the penalty's norm
    G = (N(R) / 2) <phi phi^T> = U g U^T   null Hessian: data look like the reference
    psi(x) = (g + lam n)^(-1/2) U^T phi(x) kept where g > cut lam n
    ridge_k = lam n / (g_k + lam n)        n = n_ref + N(R)

Few directions survive the cut (about 200 of 1000), and a fit takes a handful of gradient steps.
Several kernel widths share standardisation, centres and distances; each has its own psi, and these
stand side by side as columns of one matrix.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch

from engines.errors import EngineError, ParameterError, SampleSizeError
from engines.nplm.kernel import gaussian_kernel, half_squared_distances, kernel_widths

__all__ = ["Basis", "BasisConfig", "Width", "build_basis", "check_sigma"]

_LOG = logging.getLogger(__name__)
_BLOCK = 4_096
#: Spread of a constant float32 column, at most, as a share of its largest value.
_ROUNDING = 1e-6


def check_sigma(sigma: float) -> None:
    """Refuse a kernel width that no embedding in standardised units can need.

    Raises:
        ParameterError: if it is not from 1e-9 to 1e9.
    """
    if not 1e-9 <= sigma <= 1e9:
        msg = f"sigma must lie between 1e-9 and 1e9, in standardised units; got {sigma}"
        raise ParameterError(msg)


@dataclass(frozen=True)
class BasisConfig:
    """What defines the kernel model.

    Attributes:
        n_centres: Nystrom centres, drawn from the basis sample.
        n_ref: events of the reference sample.
        n_expected: expected events of a window under the null, N(R).
        lam: ridge parameter, from 1e-12 to 1.
        sigmas: kernel widths in standardised units; None takes the quantiles below.
        sigma_quantiles: quantiles of the pairwise distances used as widths.
        jitter: eps above; 1e-13 is what float64 Falkon adds.
        cut: directions with g below cut x lam n are dropped.
        seed: of the choice of centres.
    """

    n_centres: int
    n_ref: int
    n_expected: float
    lam: float = 1e-6
    sigmas: tuple[float, ...] | None = None
    sigma_quantiles: tuple[float, ...] = (0.9,)
    jitter: float = 1e-13
    cut: float = 3e-5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            ParameterError: if a value is out of its range.
        """
        positive = {
            "n_centres": self.n_centres,
            "n_ref": self.n_ref,
            "n_expected": self.n_expected,
        }
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                msg = f"{name} must be a finite number above zero; got {value}"
                raise ParameterError(msg)
        for sigma in self.sigmas or ():
            check_sigma(sigma)
        for name, value in (("jitter", self.jitter), ("cut", self.cut)):
            if not 0 <= value < math.inf:
                msg = f"{name} must be a finite number, 0 or above; got {value}"
                raise ParameterError(msg)
        if self.sigmas is not None and not self.sigmas:
            msg = "sigmas must hold at least one width; got none; leave them out for the quantiles"
            raise ParameterError(msg)
        if not 1e-12 <= self.lam <= 1:
            msg = f"lam must lie between 1e-12 and 1; got {self.lam}"
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
class Width:
    """The coordinates of one kernel width.

    Attributes:
        sigma: kernel width in standardised units.
        projector: (n_centres, r) from kernel values to psi, float64.
        ridge: (r,) diagonal of the penalty, float64.
    """

    sigma: float
    projector: torch.Tensor
    ridge: torch.Tensor

    @property
    def rank(self) -> int:
        """Number of coordinates r."""
        return len(self.ridge)


@dataclass(frozen=True)
class Basis:
    """The fixed map from an embedding to whitened features.

    Attributes:
        mean, std: (d,) standardisation, float64; where the basis sample is constant, std is 1, or
            1e-3 of the value if that is more: rounding must count for nothing.
        centres: (n_centres, d) standardised, float64.
        widths: the kernel widths, rising.
    """

    mean: torch.Tensor
    std: torch.Tensor
    centres: torch.Tensor
    widths: tuple[Width, ...]

    @property
    def rank(self) -> int:
        """Number of coordinates of all widths together."""
        return sum(width.rank for width in self.widths)

    @property
    def columns(self) -> tuple[slice, ...]:
        """Which columns of the features belong to which width."""
        edges = accumulate((width.rank for width in self.widths), initial=0)
        return tuple(slice(first, stop) for first, stop in pairwise(edges))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The kernel widths."""
        return tuple(width.sigma for width in self.widths)

    @property
    def dim(self) -> int:
        """Number of embedding coordinates d."""
        return len(self.mean)

    def to(self, device: str | torch.device) -> "Basis":
        """Return the basis on a device."""
        widths = tuple(
            replace(width, projector=width.projector.to(device), ridge=width.ridge.to(device))
            for width in self.widths
        )
        return Basis(self.mean.to(device), self.std.to(device), self.centres.to(device), widths)

    def fill_features(self, embeddings: torch.Tensor, out: torch.Tensor) -> None:
        """Write psi of embeddings, (n, d), into `out`, (n, rank).

        Kernel values and projection are computed in float64, blockwise; only the result is stored
        in the dtype of `out`. In float32 the small eigenvalues would turn rounding into signal.
        """
        for first in range(0, len(embeddings), _BLOCK):
            block = embeddings[first : first + _BLOCK].to(self.mean.device, torch.float64)
            exponent = half_squared_distances((block - self.mean) / self.std, self.centres)
            for width, columns in zip(self.widths, self.columns, strict=True):
                kernel = (exponent / width.sigma**2).exp_()
                out[first : first + len(block), columns] = kernel @ width.projector

    def features(self, embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return psi of embeddings, (n, rank), stored as `dtype`."""
        out = torch.empty((len(embeddings), self.rank), dtype=dtype, device=self.mean.device)
        self.fill_features(embeddings, out)
        return out


def build_basis(embeddings: torch.Tensor, config: BasisConfig) -> Basis:
    """Choose standardisation, widths and centres, and whiten.

    A coordinate that is constant in the basis sample is only centred: it adds nothing to distances
    there, and takes an event in which it differs away from every centre.

    Args:
        embeddings: (n, d) of the basis sample: background that serves for nothing else, so that
            the statistic is symmetric in reference and data (exact relabelling needs that).
        config: the model.

    Raises:
        SampleSizeError: if there are fewer than 2 events, or fewer distinct ones than centres.
        EngineError: if embeddings are not finite.
        ParameterError: if every coordinate is constant.
    """
    if len(embeddings) < 2:  # one has no spread
        msg = f"the basis sample must hold at least 2 events; got {len(embeddings)}; give more"
        raise SampleSizeError(msg)
    if n_bad := int((~embeddings.isfinite()).any(dim=1).sum()):
        msg = f"embeddings must be finite; got {n_bad} events that are not; drop them"
        raise EngineError(msg)
    x = embeddings.double()
    mean, std = x.mean(dim=0), x.std(dim=0)
    rounding = _ROUNDING * x.abs().amax(dim=0)
    varies = std > rounding
    if not bool(varies.any()):
        msg = (
            f"embeddings must vary in the basis sample; got {x.shape[1]} constant coordinates of "
            f"{x.shape[1]}; check the engine and the events"
        )
        raise ParameterError(msg)
    if not bool(varies.all()):
        constant = (~varies).nonzero().flatten().tolist()
        _LOG.warning(
            "coordinates %s of the embedding are constant in the basis sample: events that differ "
            "in them lie far from every centre and do not enter t",
            constant,
        )
        std = torch.where(varies, std, (1e3 * rounding).clamp(min=1.0))
    generator = torch.Generator().manual_seed(config.seed)
    x = ((x - mean) / std)[torch.randperm(len(x), generator=generator)]
    sigmas = config.sigmas or kernel_widths(x, config.sigma_quantiles)
    centres = _choose_centres(x, config.n_centres, config.seed)
    return Basis(mean, std, centres, _whiten(x, centres, sorted(set(sigmas)), config))


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
    x: torch.Tensor, centres: torch.Tensor, sigmas: Sequence[float], config: BasisConfig
) -> tuple[Width, ...]:
    to_phi = [_orthonormal(centres, sigma, config.jitter) for sigma in sigmas]
    hessians = torch.zeros((len(sigmas), len(centres), len(centres)), dtype=torch.float64)
    for block in torch.split(x, _BLOCK):
        exponent = half_squared_distances(block, centres)
        for index, (sigma, rotation) in enumerate(zip(sigmas, to_phi, strict=True)):
            phi = (exponent / sigma**2).exp_() @ rotation
            hessians[index] += phi.T @ phi
    hessians *= 0.5 * config.n_expected / len(x)
    return tuple(map(_truncate, sigmas, to_phi, hessians, [config] * len(sigmas)))


def _orthonormal(centres: torch.Tensor, sigma: float, jitter: float) -> torch.Tensor:
    """Return the map from kernel values to phi."""
    eigenvalues, vectors = torch.linalg.eigh(gaussian_kernel(centres, centres, sigma))
    to_phi: torch.Tensor = vectors / (eigenvalues.clamp(min=0.0) + jitter * len(centres)).sqrt()
    return to_phi


def _truncate(
    sigma: float, to_phi: torch.Tensor, hessian: torch.Tensor, config: BasisConfig
) -> Width:
    curvature, rotation = torch.linalg.eigh(hessian)
    kept = curvature > config.cut * config.ridge_scale
    total = curvature[kept] + config.ridge_scale
    projector = to_phi @ (rotation[:, kept] / total.sqrt())
    return Width(float(sigma), projector, config.ridge_scale / total)
