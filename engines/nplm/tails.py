"""Laws fitted to the toys' t: their tails, and how well the toys follow them.

A chi-square of k degrees of freedom is the gamma law of shape k / 2 and scale 2, so each law here
is a shape and a scale. A fit takes toys, (..., n_toys), and returns both, (...,).
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import special

from engines.types import Float64Array

__all__ = ["SMALLEST_P", "Fit", "fit_chi2", "fit_gamma", "ks_p_value", "upper_tail"]

Fit: TypeAlias = Callable[[Float64Array], tuple[Float64Array, Float64Array]]

#: Tails end here, so that each has a logarithm and a Z.
SMALLEST_P = 1e-300
_LEAST_MEAN, _LEAST_RELATIVE_SPREAD = 1e-3, 1e-6
_SEED, _MOST_DRAWS, _ENOUGH, _BLOCK = 0, 999, 50, 100_000


def fit_chi2(t: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return shape and scale of the chi-square whose degrees of freedom are the toys' mean.

    Source: arXiv:2204.02317 (t is chi-square under the null to good approximation).
    """
    mean = np.maximum(t.mean(axis=-1), _LEAST_MEAN)
    return 0.5 * mean, np.full_like(mean, 2.0)


def fit_gamma(t: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return shape and scale of the gamma law with the toys' mean and variance.

    shape = mean^2 / variance, scale = variance / mean; a mean at or below zero is raised to 0.001.
    """
    mean = np.maximum(t.mean(axis=-1), _LEAST_MEAN)
    spread = np.maximum(t.std(axis=-1, ddof=1), _LEAST_RELATIVE_SPREAD * mean)
    return (mean / spread) ** 2, spread**2 / mean


def upper_tail(t: float, shape: float, scale: float) -> float:
    """Return P(T >= t) of a gamma law, never below 1e-300.

    >>> round(upper_tail(3.841458820694124, shape=0.5, scale=2.0), 6)
    0.05
    """
    return max(float(special.gammaincc(shape, max(t, 0.0) / scale)), SMALLEST_P)


def ks_p_value(t: Float64Array, fit: Fit) -> float:
    """Return the Kolmogorov-Smirnov p-value of toys against the law fitted to the same toys.

    The fit pulls the law towards the toys, so Kolmogorov's own distribution would give too large a
    p. Instead toys are drawn from the fitted law and fitted in turn (a parametric bootstrap), up to
    999 times; drawing stops once 50 draws lie as far from their fit as the toys do, p being 50 over
    the draws. The generator is fixed: the same toys give the same p. Toys are taken as independent;
    those that share events of the pool are so only nearly.

    Args:
        t: (n_toys,) float64.
        fit: `fit_chi2` or `fit_gamma`.

    Source: Lilliefors, J. Am. Stat. Assoc. 62 (1967) 399; for the stopping rule Besag and Clifford,
    Biometrika 78 (1991) 301.
    """
    shape, scale = (float(value) for value in fit(t))
    observed = float(_ks_statistic(t[None], fit)[0])
    rng = np.random.default_rng(_SEED)
    n_drawn, n_farther = 0, 0
    while n_drawn < _MOST_DRAWS:
        n_rows = min(max(1, _BLOCK // len(t)), _MOST_DRAWS - n_drawn)
        draws = rng.gamma(shape, scale, size=(n_rows, len(t)))
        farther = np.flatnonzero(_ks_statistic(draws, fit) >= observed)
        if n_farther + len(farther) >= _ENOUGH:
            return _ENOUGH / float(n_drawn + farther[_ENOUGH - n_farther - 1] + 1)
        n_drawn, n_farther = n_drawn + n_rows, n_farther + len(farther)
    return (n_farther + 1) / (_MOST_DRAWS + 1)


def _ks_statistic(t: Float64Array, fit: Fit) -> Float64Array:
    """Return the largest distance of each row's distribution, (k, n_toys), from its fit, (k,)."""
    n_toys = t.shape[1]
    shape, scale = fit(t)
    ordered = np.maximum(np.sort(t, axis=1), 0.0)
    cdf = special.gammainc(shape[:, None], ordered / scale[:, None])
    steps = np.arange(n_toys + 1) / n_toys
    distance: Float64Array = np.maximum(steps[1:] - cdf, cdf - steps[:-1]).max(axis=1)
    return distance
