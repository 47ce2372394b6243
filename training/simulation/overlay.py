"""Soft events laid over hard ones: the underlying event and a little pile-up.

The pool is finite, so a soft event comes back; each time it is turned about the beam by a random
angle, reflected along the beam with probability one half and boosted along it, which gives another
event that is as likely.
"""

import numpy as np

from engines.types import Float64Array
from training.simulation.particles import EventBlock

__all__ = ["overlay"]


def overlay(
    hard: EventBlock, pool: EventBlock, n_soft: int, max_boost: float, rng: np.random.Generator
) -> EventBlock:
    """Add soft events to each hard event.

    Args:
        hard: n events.
        pool: soft events to draw from, with replacement.
        n_soft: how many are added to each.
        max_boost: the largest change of rapidity.
        rng: draws them.

    Returns:
        n events; the particles of the hard one come first in each.
    """
    if n_soft == 0:
        return hard
    n = len(hard)
    soft = pool.take(rng.integers(len(pool), size=n * n_soft))
    turned = _move(soft, max_boost, rng)
    per_event = np.add.reduceat(soft.counts, np.arange(0, n * n_soft, n_soft))
    order = np.argsort(
        np.concatenate([hard.events, np.repeat(np.arange(n), per_event)]), kind="stable"
    )
    offsets = np.concatenate([[0], np.cumsum(hard.counts + per_event)])
    return EventBlock(
        np.concatenate([hard.pdg, soft.pdg])[order],
        np.concatenate([hard.p4, turned])[order],
        offsets,
    )


def _move(soft: EventBlock, max_boost: float, rng: np.random.Generator) -> Float64Array:
    n = len(soft)
    of = soft.events
    angle = rng.uniform(-np.pi, np.pi, n)
    sign = rng.choice(np.array([-1.0, 1.0]), n)
    rapidity = rng.uniform(-max_boost, max_boost, n)
    return _moved(soft.p4, angle[of], sign[of], rapidity[of])


def _moved(
    p4: Float64Array, angle: Float64Array, sign: Float64Array, rapidity: Float64Array
) -> Float64Array:
    px, py, pz, energy = p4.T
    cos, sin = np.cos(angle), np.sin(angle)
    cosh, sinh = np.cosh(rapidity), np.sinh(rapidity)
    pz = sign * pz
    columns = (
        *(cos * px - sin * py, sin * px + cos * py),
        *(cosh * pz + sinh * energy, sinh * pz + cosh * energy),
    )
    return np.stack(columns, axis=1)
