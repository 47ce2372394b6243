"""A detector that drifts: the jet energy scale moves, and what is missing in pT moves with it."""

import numpy as np

from engines.types import FloatArray

__all__ = ["scale_jets"]

_MET = 0
_JETS = slice(9, 19)


def scale_jets(particles: FloatArray, factor: FloatArray) -> FloatArray:
    """Return events whose jets have another energy scale, with MET recomputed.

    No jet enters or leaves at the edge of the selection; the trigger is on leptons.

    Args:
        particles: (n, 19, 3), pT in GeV.
        factor: (n,) of each event's jet pT.

    >>> event = np.zeros((1, 19, 3), np.float32)
    >>> event[0, 9] = 100.0, 0.0, 0.0
    >>> scaled = scale_jets(event, np.array([1.01], np.float32))
    >>> np.round(scaled[0, [0, 9]], 3).tolist()
    [[1.0, 0.0, 3.1419999599456787], [101.0, 0.0, 0.0]]
    """
    scaled = particles.copy()
    pt, phi = particles[:, _JETS, 0], particles[:, _JETS, 2]
    scaled[:, _JETS, 0] = pt * factor[:, None]
    gained = pt * (factor[:, None] - 1.0)
    met, met_phi = particles[:, _MET, 0], particles[:, _MET, 2]
    x = met * np.cos(met_phi) - (gained * np.cos(phi)).sum(axis=1)
    y = met * np.sin(met_phi) - (gained * np.sin(phi)).sum(axis=1)
    scaled[:, _MET, 0] = np.hypot(x, y)
    # Where nothing moved, the angle stays as it was written.
    moved = (factor != 1.0) & (scaled[:, _MET, 0] > 0)
    scaled[:, _MET, 2] = np.where(moved, np.arctan2(y, x), met_phi)
    return scaled
