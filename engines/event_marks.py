"""Marks by which events are recognised wherever they are stored, in whatever order.

An event's mark is a 64-bit hash of its 57 float32 numbers: a copy of lower precision is not
recognised. Of the events that an encoder was trained on, the `N_MARKS` smallest marks are kept: a
random sample of them, since the hash does not care what an event is. Among m of N trained events,
at least one is in that sample with probability 1 - (1 - N_MARKS / N)^m: of half a million, 2,000
are recognised with 98 %.

Source: the bottom-k sketch of Cohen and Kaplan, doi:10.1145/1281100.1281133.
"""

import base64

import numpy as np

from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray

__all__ = ["N_MARKS", "count_marked", "mark_events"]

N_MARKS = 1024
_BLOCK = 65_536
#: The mixer of SplitMix64 (Steele, Lea and Flood, doi:10.1145/2660193.2660195).
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_GOLDEN = 0x9E3779B97F4A7C15


def mark_events(particles: FloatArray) -> str:
    """Return the smallest marks of events, (n, 19, 3) float32, as base64 text."""
    marks = np.unique(_marks(particles))[:N_MARKS]
    return base64.b64encode(marks.astype("<u8").tobytes()).decode()


def count_marked(particles: FloatArray, marks: str) -> int:
    """Return how many events, (n, 19, 3), have one of the marks that `mark_events` gave.

    Raises:
        ValueError: if the text is no such marks.
    """
    kept = np.frombuffer(base64.b64decode(marks, validate=True), "<u8")
    return int(np.isin(_marks(particles), kept).sum()) if len(kept) else 0


def _marks(particles: FloatArray) -> AnyArray:
    """Return the 64-bit hash of each event, (n,)."""
    factors = _mixed(np.arange(1, 1 + N_OBJECTS * N_FEATURES, dtype=np.uint64)) | np.uint64(1)
    found = []
    for first in range(0, len(particles), _BLOCK):
        block = np.ascontiguousarray(particles[first : first + _BLOCK], np.float32) + np.float32(0)
        words = block.reshape(len(block), -1).view(np.uint32).astype(np.uint64)
        # Mixed before they are added up, so that no two slots are alike.
        found.append(_mixed((_mixed(words + np.uint64(1)) * factors).sum(axis=1, dtype=np.uint64)))
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def _mixed(values: AnyArray) -> AnyArray:
    """Spread every bit of 64-bit numbers over all of them."""
    mixed = values * np.uint64(_GOLDEN)
    for shift, factor in _STEPS:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed
