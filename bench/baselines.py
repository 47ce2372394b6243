"""Representations that need no training, to be beaten: raw inputs and six leading-object pT."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from engines.types import FloatArray

__all__ = ["BASELINES", "Embedding", "leading_pt", "raw_inputs"]

Embedding: TypeAlias = Callable[[FloatArray], FloatArray]


def raw_inputs(particles: FloatArray) -> FloatArray:
    """Return the 57 inputs, (n, 57), of particles, (n, 19, 3): pT in GeV, eta, phi."""
    return particles.reshape(len(particles), -1)


def leading_pt(particles: FloatArray) -> FloatArray:
    """Return six pT [GeV], (n, 6): MET, two muons, two electrons, one jet; 0 where absent.

    Source: the physics-informed selection of arXiv:2502.15926.
    """
    return np.ascontiguousarray(particles[:, [0, 5, 6, 1, 2, 9], 0])


BASELINES: dict[str, Embedding] = {"57 raw inputs": raw_inputs, "6 leading pT": leading_pt}
