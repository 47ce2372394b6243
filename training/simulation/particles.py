"""Particles of many events in flat arrays, so that the detector handles them all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from engines.types import AnyArray, Float64Array, IntArray

__all__ = ["EventBlock", "kinematics", "ranges", "wrapped"]


def ranges(starts: AnyArray, counts: AnyArray) -> IntArray:
    """Return start, start + 1, ... of each pair, `counts` numbers each, one after the other.

    >>> ranges(np.array([10, 50]), np.array([2, 3]))
    array([10, 11, 50, 51, 52])
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    inside = np.arange(total) - np.repeat(ends - counts, counts)
    return np.asarray(np.repeat(starts, counts) + inside, np.int64)


def kinematics(p4: Float64Array) -> Float64Array:
    """Return pT, pseudorapidity and azimuth, (m, 3), of momenta, (m, 4)."""
    pt = np.hypot(p4[:, 0], p4[:, 1])
    eta = np.arcsinh(p4[:, 2] / np.maximum(pt, 1e-12))
    return np.stack([pt, eta, np.arctan2(p4[:, 1], p4[:, 0])], axis=1)


def wrapped(angle: Float64Array) -> Float64Array:
    """Return angles between -pi and pi.

    >>> wrapped(np.array([-4.0, 1.0])).round(3)
    array([2.283, 1.   ])
    """
    return np.asarray((angle + np.pi) % (2.0 * np.pi) - np.pi)


@dataclass(frozen=True)
class EventBlock:
    """Stable, visible particles of n events.

    Attributes:
        pdg: particle codes, (m,).
        p4: px, py, pz and energy in GeV, (m, 4).
        offsets: particles offsets[i] to offsets[i + 1] are those of event i, (n + 1,).
    """

    pdg: IntArray
    p4: Float64Array
    offsets: IntArray

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> IntArray:
        """Particles of each event, (n,)."""
        return np.diff(self.offsets)

    @property
    def events(self) -> IntArray:
        """The event of each particle, (m,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def take(self, chosen: IntArray) -> Self:
        """Return the events with these indices, in that order; one may come several times."""
        counts = self.counts[chosen]
        index = ranges(self.offsets[:-1][chosen], counts)
        return type(self)(self.pdg[index], self.p4[index], np.concatenate([[0], np.cumsum(counts)]))

    @classmethod
    def stack(cls, events: Sequence[tuple[IntArray, Float64Array]]) -> Self:
        """Make a block of events given one by one as codes, (k,), and momenta, (k, 4)."""
        counts = [len(pdg) for pdg, _ in events]
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(pdg for pdg, _ in events)]),
            np.concatenate([np.zeros((0, 4)), *(p4 for _, p4 in events)]),
            np.concatenate([[0], np.cumsum(np.array(counts, np.int64))]),
        )
