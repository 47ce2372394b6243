"""The NPLM test done naively: dense, float64, plain Newton; shares no code with the solver.

It is the oracle of the tests, and of `bench-throughput nplm --oracle`.
"""

import numpy as np
from scipy import linalg

from engines.types import Float64Array

__all__ = ["naive_kernel", "naive_t"]


def naive_kernel(x: Float64Array, centres: Float64Array, sigma: float) -> Float64Array:
    """k(x, c) = exp(-|x - c|^2 / 2 sigma^2), from the differences."""
    squared = np.zeros((len(x), len(centres)))
    for column in range(x.shape[1]):
        squared += (x[:, column, None] - centres[None, :, column]) ** 2
    return np.asarray(np.exp(-squared / (2.0 * sigma**2)))


def naive_t(  # noqa: PLR0913 - the formula has as many
    data: Float64Array,
    reference: Float64Array,
    centres: Float64Array,
    *,
    sigma: float,
    lam: float,
    n_expected: float,
    jitter: float = 1e-13,
    likelihood: bool = False,
    n: float | None = None,
) -> float:
    """Minimise L over alpha by Newton's method; return t at the minimum.

        L = (1/n) [ sum_D softplus(-f) + w sum_R softplus(f) ]
            + (lam/2) alpha^T (K + jitter n_centres I) alpha

    or, with `likelihood`, (1/n) [ w sum_R (e^f - 1) - sum_D f ] and the same penalty. All samples
    are standardised. n is the number of events unless given: this package's ridge takes
    n_ref + N(R), whatever a window holds. The penalty's Cholesky factor takes the place of alpha as
    coordinates, since K alone is singular to rounding; no direction is dropped.
    """
    n = n or len(data) + len(reference)
    weight = n_expected / len(reference)
    penalty = naive_kernel(centres, centres, sigma)
    penalty[np.diag_indices(len(centres))] += jitter * len(centres)
    factor = np.linalg.cholesky(penalty)

    def coordinates(x: Float64Array) -> Float64Array:
        kernel = naive_kernel(x, centres, sigma)
        return np.asarray(linalg.solve_triangular(factor, kernel.T, lower=True).T)

    phi = np.concatenate([coordinates(data), coordinates(reference)])
    is_data = np.arange(len(phi)) < len(data)
    weights = np.where(is_data, 1.0, weight)
    ridge = lam * n

    def loss(b: Float64Array) -> float:
        f = phi @ b
        with np.errstate(over="ignore"):
            if likelihood:
                terms = np.where(is_data, -f, np.expm1(f))
            else:
                terms = np.logaddexp(0.0, np.where(is_data, -f, f))
        return float((weights * terms).sum() + 0.5 * ridge * (b @ b))

    def derivatives(b: Float64Array) -> tuple[Float64Array, Float64Array]:
        f = phi @ b
        if likelihood:
            grown = np.exp(np.where(is_data, 0.0, f))
            return np.where(is_data, -1.0, grown), np.where(is_data, 0.0, grown)
        probability = 0.5 * (1.0 + np.tanh(0.5 * f))
        return probability - is_data, probability * (1.0 - probability)

    b = np.zeros(len(centres))
    for _ in range(100):
        slope, curvature = derivatives(b)
        gradient = phi.T @ (weights * slope) + ridge * b
        hessian = (phi * (weights * curvature)[:, None]).T @ phi + ridge * np.eye(len(b))
        step = np.linalg.solve(hessian, -gradient)
        decrement = float(-gradient @ step)
        if decrement < 1e-14:
            break
        length, before = 1.0, loss(b)
        while loss(b + length * step) > before - 0.25 * length * decrement and length > 1e-8:
            length *= 0.5
        b = b + length * step
    else:
        msg = "the oracle did not converge"
        raise RuntimeError(msg)
    f = phi @ b
    return float(2.0 * (f[: len(data)].sum() - weight * np.expm1(f[len(data) :]).sum()))
