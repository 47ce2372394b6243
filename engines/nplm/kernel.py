"""The Gaussian kernel and its widths."""

from collections.abc import Sequence

import torch

from engines.errors import ParameterError, SampleSizeError

__all__ = ["gaussian_kernel", "half_squared_distances", "kernel_widths"]


def half_squared_distances(x: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return -|x - c|^2 / 2, never above zero: the exponent of a kernel of width one.

    Args:
        x: (n, d) points.
        centres: (n_centres, d) Nystrom centres, same dtype.

    Returns:
        (n, n_centres); divided by sigma^2 it serves every width.
    """
    exponent = x @ centres.T
    exponent -= 0.5 * (x * x).sum(dim=1, keepdim=True)
    exponent -= 0.5 * (centres * centres).sum(dim=1)
    return exponent.clamp_(max=0.0)


def gaussian_kernel(x: torch.Tensor, centres: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return k(x, c) = exp(-|x - c|^2 / 2 sigma^2).

    Args:
        x: (n, d) points.
        centres: (n_centres, d) Nystrom centres, same dtype.
        sigma: kernel width in the units of x.

    Returns:
        (n, n_centres). Use float64: the solver divides by small eigenvalues of this matrix.

    Source: arXiv:2204.02317.

    >>> gaussian_kernel(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), 2.0).round(decimals=4)
    tensor([[0.6065]])
    """
    return half_squared_distances(x, centres).div_(sigma * sigma).exp_()


def kernel_widths(
    x: torch.Tensor, quantiles: Sequence[float] = (0.9,), n_events: int = 2000
) -> tuple[float, ...]:
    """Return quantiles of the pairwise distances among the first `n_events` points, rising.

    Args:
        x: (n, d) standardised embeddings in random order.
        quantiles: which quantiles, in (0, 1).
        n_events: how many points to use.

    Raises:
        ParameterError: if a quantile is out of range.
        SampleSizeError: if fewer than two distinct points are given, or a quantile of the
            distances is zero.

    Source: the width heuristic of arXiv:2204.02317; the 90 % quantile is that of 2502.15926,
    several quantiles are those of 2408.12296.
    """
    if not quantiles or not all(0 < quantile < 1 for quantile in quantiles):
        msg = f"the widths' quantiles must lie between 0 and 1; got {list(quantiles)}"
        raise ParameterError(msg)
    distances = torch.pdist(x[:n_events].double())
    if len(distances) == 0 or float(distances.max()) == 0.0:
        msg = "the kernel width needs at least two distinct points; the embeddings do not vary"
        raise SampleSizeError(msg)
    ranks = [max(1, round(quantile * len(distances))) for quantile in quantiles]
    widths = sorted({float(distances.kthvalue(rank).values) for rank in ranks})
    if widths[0] == 0.0:
        msg = (
            f"the quantile {min(quantiles):g} of the distances must be above zero; it is not, "
            "since many events are the same; ask for a larger quantile or give sigma"
        )
        raise SampleSizeError(msg)
    return tuple(widths)
