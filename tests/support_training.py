"""Events that tests of training share."""

import numpy as np
import torch

from engines.types import FloatArray

__all__ = ["make_events", "with_empty_events"]


def make_events(n: int = 64, seed: int = 0) -> FloatArray:
    """Events with the MET and about 40 % of the other objects, (n, 19, 3)."""
    rng = np.random.default_rng(seed)
    particles = rng.uniform(20, 90, (n, 19, 3)).astype(np.float32)
    particles[:, :, 1] = rng.normal(0, 1, (n, 19))
    particles[:, :, 2] = rng.uniform(-np.pi, np.pi, (n, 19))
    particles[:, 1:][rng.random((n, 18)) < 0.6] = 0
    particles[:, 0, 1] = 0
    return particles


def with_empty_events(n: int = 40) -> torch.Tensor:
    """Events of every kind: full, with the MET alone, and with nothing."""
    particles = torch.from_numpy(make_events(n))
    particles[3, 1:] = 0
    particles[5] = 0
    particles[7] = torch.from_numpy(np.random.default_rng(1).uniform(1, 3, (19, 3)))
    return particles
