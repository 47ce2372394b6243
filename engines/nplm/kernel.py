"""The Gaussian kernel and its width."""

import torch

from engines.errors import ParameterError, SampleSizeError

__all__ = ["gaussian_kernel", "kernel_width"]


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
    scaled, scaled_centres = x / sigma, centres / sigma
    exponent = scaled @ scaled_centres.T
    exponent -= 0.5 * (scaled * scaled).sum(dim=1, keepdim=True)
    exponent -= 0.5 * (scaled_centres * scaled_centres).sum(dim=1)
    return exponent.clamp_(max=0.0).exp_()


def kernel_width(x: torch.Tensor, quantile: float = 0.9, n_events: int = 2000) -> float:
    """Return the quantile of the pairwise distances among the first `n_events` points.

    Args:
        x: (n, d) standardised embeddings in random order.
        quantile: which quantile, in (0, 1).
        n_events: how many points to use.

    Raises:
        ParameterError: if the quantile is out of range.
        SampleSizeError: if fewer than two distinct points are given.

    Source: the width heuristic of arXiv:2204.02317; the 90 % quantile is that of 2502.15926.
    """
    if not 0 < quantile < 1:
        msg = f"the width's quantile must lie between 0 and 1; got {quantile}"
        raise ParameterError(msg)
    distances = torch.pdist(x[:n_events].double())
    if len(distances) == 0 or float(distances.max()) == 0.0:
        msg = "the kernel width needs at least two distinct points; the embeddings do not vary"
        raise SampleSizeError(msg)
    rank = max(1, round(quantile * len(distances)))
    return float(distances.kthvalue(rank).values)
