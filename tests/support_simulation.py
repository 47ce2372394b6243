"""A pool of soft events made by hand, and particles to build events of."""

import numpy as np

from engines.types import Float64Array, IntArray
from training.simulation.particles import EventBlock

__all__ = ["block", "four_momentum", "soft_pool"]

_PION = 211


def four_momentum(pt: float, eta: float, phi: float) -> Float64Array:
    """Return px, py, pz and energy of a massless particle."""
    return np.array(
        [pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], np.float64
    )


def block(*events: list[tuple[int, float, float, float]]) -> EventBlock:
    """Make a block of events, each a list of (code, pT, eta, phi)."""
    parts: list[tuple[IntArray, Float64Array]] = []
    for event in events:
        codes = np.array([code for code, *_ in event], np.int64)
        p4 = np.array([four_momentum(*motion) for _, *motion in event], np.float64)
        parts.append((codes, p4.reshape(-1, 4)))
    return EventBlock.stack(parts)


def soft_pool(n: int, seed: int = 0) -> EventBlock:
    """Return n events of a few soft pions."""
    rng = np.random.default_rng(seed)
    return block(
        *(
            [
                (_PION, float(rng.exponential(0.7)), float(rng.uniform(-4, 4)), float(phi))
                for phi in rng.uniform(-np.pi, np.pi, rng.integers(5, 30))
            ]
            for _ in range(n)
        )
    )
