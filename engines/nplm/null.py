"""The distribution of t under the null, from toys: p-values and significances."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special, stats

from engines.errors import SampleSizeError
from engines.types import Float64Array

__all__ = ["NullDistribution", "z_score"]

_SMALLEST_P = 1e-300


def z_score(p_value: float) -> float:
    """Return Z = Phi^-1(1 - p), finite for p from 1e-300 to 1 - 1e-16.

    >>> round(z_score(0.0013498980316301), 3)
    3.0
    """
    p_value = min(max(p_value, _SMALLEST_P), 1.0 - 1e-16)
    return float(-special.ndtri(p_value))


@dataclass(frozen=True)
class NullDistribution:
    """The toys' t values, sorted or not.

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

    @property
    def mean(self) -> float:
        """Mean of the toys' t."""
        return float(self.t.mean())

    @property
    def std(self) -> float:
        """Spread of the toys' t."""
        return float(self.t.std(ddof=1))

    def p_value(self, t: float) -> float:
        """Return the empirical p = (k + 1) / (n_toys + 1), k toys at or above t; never 0.

        >>> NullDistribution(np.arange(9.0)).p_value(7.5)
        0.2
        """
        return float((int((self.t >= t).sum()) + 1) * self.resolution)

    def z_score(self, t: float) -> float:
        """Return Z of the empirical p; p = 1 is taken as n / (n + 1) so that Z is finite."""
        return z_score(min(self.p_value(t), 1.0 - self.resolution))

    def is_below(self, t: float) -> bool:
        """Whether t lies more than six spreads below the null's mean.

        The cross-entropy fit can leave t far below the null where data are nothing like the
        reference (all events in one narrow spot, say): e^f then explodes on a few reference events.
        Neither p-value sees that, both being of the upper tail.
        """
        return t < self.mean - 6.0 * self.std

    @cached_property
    def chi2_dof(self) -> float:
        """Degrees of freedom of the chi-square with the toys' mean.

        Source: arXiv:2204.02317 (t is chi-square under the null to good approximation).
        """
        return max(self.mean, 1e-3)

    def chi2_p_value(self, t: float) -> float:
        """Return the tail of the fitted chi-square: an extrapolation beyond the toys."""
        return max(float(stats.chi2.sf(t, self.chi2_dof)), _SMALLEST_P)

    def chi2_z_shift(self, t: float, offset: float) -> float:
        """Return by how much the chi-square's Z is off, either way, if t is off by `offset`."""
        above, below = self.chi2_p_value(t + offset), self.chi2_p_value(t - offset)
        return 0.5 * (z_score(above) - z_score(below))

    @cached_property
    def chi2_ks_p(self) -> float:
        """KS p-value of the toys against the fitted chi-square.

        The one parameter was fitted to the same toys, so this p-value is somewhat too large. It
        tests the bulk: nothing tests the tail beyond the toys.
        """
        return float(stats.kstest(self.t, stats.chi2(self.chi2_dof).cdf).pvalue)
