"""The distribution of t under the null, from toys: p-values and significances."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from scipy import special

from engines.errors import SampleSizeError
from engines.nplm.tails import SMALLEST_P, fit_chi2, fit_gamma, ks_p_value, upper_tail
from engines.types import Float64Array, IntArray

__all__ = ["NullDistribution", "Tail", "proportion_interval", "z_score"]

#: Where a p-value comes from: a law fitted to the toys, or the toys themselves.
Tail: TypeAlias = Literal["chi2", "gamma", "toys"]


def z_score(p_value: float) -> float:
    """Return Z = Phi^-1(1 - p), finite for p from 1e-300 to 1 - 1e-16.

    >>> round(z_score(0.0013498980316301), 3)
    3.0
    """
    p_value = min(max(p_value, SMALLEST_P), 1.0 - 1e-16)
    return float(-special.ndtri(p_value))


def proportion_interval(
    k: int | IntArray, n: int, level: float = 0.68
) -> tuple[Float64Array, Float64Array]:
    """Return both ends of the Clopper-Pearson interval of a probability seen k times in n.

    It covers the truth at least as often as `level` says. For k = 0 it starts at 0, for k = n it
    ends at 1.

    Args:
        k: how often, a number or an array of any shape, from 0 to n.
        n: of how many.
        level: coverage; 68 % is the field's convention.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.

    >>> [round(float(end), 4) for end in proportion_interval(0, 100)]
    [0.0, 0.0182]
    """
    k, outside = np.asarray(k), 0.5 * (1.0 - level)
    # At the ends the beta law's parameter would be 0: the value there is known, any other serves.
    low = np.where(k == 0, 0.0, special.betaincinv(np.maximum(k, 1), n - k + 1, outside))
    high = np.where(k == n, 1.0, special.betaincinv(k + 1, np.maximum(n - k, 1), 1.0 - outside))
    return low, high


@dataclass(frozen=True)
class NullDistribution:
    """The toys' t values for one kernel width, sorted or not.

    Attributes:
        t: (n_toys,) float64, one value a toy, each toy a window of background that took part in
            neither the basis nor the reference.
    """

    t: Float64Array

    def __post_init__(self) -> None:
        """Refuse what cannot calibrate anything."""
        if self.t.ndim != 1 or len(self.t) < 2 or not np.isfinite(self.t).all():
            msg = f"a null needs at least two finite toys; got an array of shape {self.t.shape}"
            raise SampleSizeError(msg)

    @property
    def resolution(self) -> float:
        """The smallest empirical p-value that the toys can give, 1 / (n_toys + 1)."""
        return 1.0 / (len(self.t) + 1)

    @cached_property
    def mean(self) -> float:
        """Mean of the toys' t."""
        return float(self.t.mean())

    @cached_property
    def std(self) -> float:
        """Spread of the toys' t."""
        return float(self.t.std(ddof=1))

    def p_value(self, t: float) -> float:
        """Return the empirical p = (k + 1) / (n_toys + 1), k toys at or above t; never 0.

        >>> NullDistribution(np.arange(9.0)).p_value(7.5)
        0.2
        """
        return float((self._n_at_or_above(t) + 1) * self.resolution)

    def p_interval(self, t: float, level: float = 0.68) -> tuple[float, float]:
        """Return the interval of the probability that a null window has a t at or above this one.

        Clopper-Pearson, from k of n toys: what the toys' number leaves open. 68 % is the field's
        convention. The finite pool's offset comes on top: see `z_shift`.
        """
        low, high = proportion_interval(self._n_at_or_above(t), len(self.t), level)
        return float(low), float(high)

    def _n_at_or_above(self, t: float) -> int:
        return int(np.count_nonzero(self.t >= t))

    def z_score(self, t: float) -> float:
        """Return Z of the empirical p; p = 1 is taken as n / (n + 1) so that Z is finite."""
        return self._tail_z("toys", t)

    def is_below(self, t: float) -> bool:
        """Whether t lies more than six spreads below the null's mean, and below every toy.

        The cross-entropy fit can leave t far below the null where data are nothing like the
        reference (all events in one narrow spot, say): e^f then explodes on a few reference events.
        No p-value sees that, all being of the upper tail. With narrow kernels and few reference
        events a null window in a thousand can do the same, as the toys then show.
        """
        return t < min(self.mean - 6.0 * self.std, float(self.t.min()))

    @cached_property
    def chi2_dof(self) -> float:
        """Degrees of freedom of the chi-square with the toys' mean.

        Source: arXiv:2204.02317 (t is chi-square under the null to good approximation).
        """
        return 2.0 * float(fit_chi2(self.t)[0])

    @cached_property
    def gamma_shape(self) -> float:
        """Shape of the gamma law with the toys' mean and variance, mean^2 / variance."""
        return float(fit_gamma(self.t)[0])

    @cached_property
    def gamma_scale(self) -> float:
        """Scale of that gamma law, variance / mean; a chi-square has 2."""
        return float(fit_gamma(self.t)[1])

    def chi2_p_value(self, t: float) -> float:
        """Return the tail of the fitted chi-square: an extrapolation beyond the toys."""
        return upper_tail(t, 0.5 * self.chi2_dof, 2.0)

    def gamma_p_value(self, t: float) -> float:
        """Return the tail of the fitted gamma law: an extrapolation beyond the toys."""
        return upper_tail(t, self.gamma_shape, self.gamma_scale)

    def tail_p_value(self, tail: Tail, t: float) -> float:
        """Return the p-value of t from the law or toys that `tail` names."""
        if tail == "chi2":
            return self.chi2_p_value(t)
        return self.gamma_p_value(t) if tail == "gamma" else self.p_value(t)

    def _tail_z(self, tail: Tail, t: float) -> float:
        p_value = self.tail_p_value(tail, t)
        return z_score(min(p_value, 1.0 - self.resolution) if tail == "toys" else p_value)

    def z_shift(self, tail: Tail, t: float, offset: float) -> float:
        """Return by how much Z is off, either way, if t is off by `offset`.

        Half the difference of Z at t + offset and t - offset. Beyond the last toy the Z of `toys`
        stands still and so does this figure: it then says too little.
        """
        return 0.5 * (self._tail_z(tail, t + offset) - self._tail_z(tail, t - offset))

    @cached_property
    def chi2_ks_p(self) -> float:
        """KS p-value of the toys against the fitted chi-square, the fit being allowed for.

        It is not below 0.001. It tests the bulk: nothing tests the tail beyond the toys.
        """
        return ks_p_value(self.t, fit_chi2)

    @cached_property
    def gamma_ks_p(self) -> float:
        """KS p-value of the toys against the fitted gamma law, as `chi2_ks_p`."""
        return ks_p_value(self.t, fit_gamma)
