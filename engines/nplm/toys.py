"""Toys: null windows drawn from a pool of background events that serves for nothing else.

A toy is drawn without replacement, and toys are disjoint until the pool is used up; then it is
shuffled and cut again, so later toys share events with earlier ones. A finite pool also leaves an
offset of t common to all toys, which no reshuffling removes: `offset_share` estimates its size.
"""

import math
from collections.abc import Iterator

import numpy as np

from engines.errors import SampleSizeError
from engines.types import IntArray
from engines.windows import WindowSpec

__all__ = [
    "MAX_OFFSET_SHARE",
    "WARN_OFFSET_SHARE",
    "draw_toys",
    "events_for_each",
    "events_for_pool",
    "offset_share",
]

#: A calibration is refused when its offset may exceed this share of the null's spread.
MAX_OFFSET_SHARE = 0.5
#: It is warned of above this one.
WARN_OFFSET_SHARE = 0.25


def offset_share(n_data: float, n_pool: int, n_ref: int) -> float:
    """Return the offset's standard deviation over the null's.

        share = n_data sqrt( 2 / (n_pool n_ref) + 1 / n_pool^2 )

    In units of the null's spread, sqrt(2 dof), the first term is the pool's deviation from the
    truth times the reference's, the second the pool's own deviation squared (its mean is cancelled
    by drawing without replacement, its fluctuation is not).

    >>> round(offset_share(5000, 20000, 20000), 3)
    0.433
    """
    return n_data * math.sqrt(2.0 / (n_pool * n_ref) + 1.0 / n_pool**2)


def events_for_pool(n_data: float, n_ref: int, share: float = MAX_OFFSET_SHARE) -> int:
    """Return the least pool that keeps the offset within `share` and holds two windows.

    >>> events_for_pool(5000, 20000)
    16181
    """
    windows = n_data / share
    least = windows * math.hypot(1.0, windows / n_ref) + windows**2 / n_ref
    return max(math.ceil(least), math.ceil(2 * n_data))


def events_for_each(n_data: float, share: float = MAX_OFFSET_SHARE) -> int:
    """Return the size at which reference and pool, made equal, keep the offset within `share`.

    >>> offset_share(5000, events_for_each(5000), events_for_each(5000)) <= 0.5
    True
    """
    return math.ceil(math.sqrt(3.0) * n_data / share)


def draw_toys(
    window: WindowSpec,
    n_pool: int,
    n_toys: int,
    rng: np.random.Generator,
    *,
    scale: int = 1,
) -> Iterator[IntArray]:
    """Yield the pool indices of each toy; `rng` is drawn from as toys are taken.

    Args:
        window: a count window has exactly N(R) events; a time window a Poisson number.
        n_pool: events in the pool.
        n_toys: how many toys.
        rng: generator of the shuffles and counts.
        scale: how many windows a toy merges.

    Raises:
        SampleSizeError: if the pool cannot fill one window.
    """
    order, used = rng.permutation(n_pool), 0
    for _ in range(n_toys):
        n_data = scale * round(window.n_expected)
        if window.mode == "time":
            n_data = max(1, int(rng.poisson(scale * window.n_expected)))
        if n_data > n_pool:
            msg = f"a toy needs {n_data} events; the pool holds {n_pool}; give more events"
            raise SampleSizeError(msg)
        if used + n_data > n_pool:
            order, used = rng.permutation(n_pool), 0
        yield order[used : used + n_data]
        used += n_data
