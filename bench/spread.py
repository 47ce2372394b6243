"""A figure measured again and again: its median, and the band that 68 % of the values lie in."""

from collections.abc import Sequence

import numpy as np

__all__ = ["Spread", "spread", "spread_text"]

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    """Return median, low and high of at least one value, JSON-able.

    >>> spread([1.0, 2.0, 3.0])["median"]
    2.0
    """
    low, median, high = np.quantile(values, (0.16, 0.5, 0.84))
    return {"median": float(median), "low": float(low), "high": float(high)}


def spread_text(figure: Spread, scale: float = 1.0, digits: int = 2) -> str:
    """Return a figure for people, in units of 1/scale.

    >>> spread_text({"median": 0.5, "low": 0.4, "high": 0.6}, 100, 0)
    '50 (40 to 60)'
    """
    median, low, high = (scale * figure[key] for key in ("median", "low", "high"))
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
