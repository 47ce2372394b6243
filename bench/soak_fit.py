"""How fast memory grows, and how well that is known."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from engines.types import Float64Array

__all__ = ["Slope", "slope"]

_FEWEST = 5


@dataclass(frozen=True)
class Slope:
    """A straight line through values over time.

    Attributes:
        per_s: its slope, a second.
        error_per_s: one standard deviation of it.
        at_zero: its value at time 0.
    """

    per_s: float
    error_per_s: float
    at_zero: float

    @property
    def is_flat(self) -> bool:
        """Whether the slope is within two of its errors of zero."""
        return abs(self.per_s) <= 2 * self.error_per_s


def slope(times_s: Float64Array, values: Float64Array) -> Slope | None:
    """Fit a straight line; None of fewer than five values.

    Values that follow each other are alike, so there is less in them than their number: the error
    of least squares is multiplied by sqrt((1 + r) / (1 - r)), with r their residuals' correlation
    from one to the next, where that is above 0.

    Args:
        times_s: when, (n,), in even steps.
        values: of what, (n,).

    Source: Santer et al., J. Geophys. Res. 105 (2000) 7337, Eqs. 5 and 6.

    >>> slope(np.arange(10.0), 3 * np.arange(10.0)).per_s
    3.0
    """
    if len(times_s) < _FEWEST:
        return None
    line = stats.linregress(times_s, values)
    residuals = values - line.slope * times_s - line.intercept
    power = float(residuals @ residuals)
    r = float(residuals[1:] @ residuals[:-1]) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 1 - 2 / len(values))
    error = float(line.stderr) * float(np.sqrt((1 + r) / (1 - r)))
    return Slope(float(line.slope), error, float(line.intercept))
