"""Durations as Prometheus histograms that cost the stream next to nothing to keep."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from engines.types import Float64Array

__all__ = ["BUCKETS_S", "Durations", "histogram"]

#: Upper bounds, in seconds.
BUCKETS_S = (
    *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
_BOUNDS = (*map(str, BUCKETS_S), "+Inf")
#: Durations are sorted into buckets so many at a time.
_FOLD = 1024


class Durations:
    """Durations of several kinds, counted by bucket; one thread adds rows, any may read.

    Args:
        names: of the kinds, in the order of a row.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start empty."""
        self.names = tuple(names)
        self._counts = np.zeros((len(names), len(_BOUNDS)))
        self._sums_s = np.zeros(len(names))
        self._rows: list[Sequence[float]] = []
        self._lock = threading.Lock()

    def add(self, row: Sequence[float]) -> None:
        """Count one duration of each kind, in seconds."""
        self._rows.append(row)
        if len(self._rows) >= _FOLD:
            with self._lock:
                self._counts, self._sums_s = self._folded(self._rows)
                self._rows.clear()

    def cumulative(self) -> tuple[Float64Array, Float64Array]:
        """Return counts up to each bound and infinity, (kinds, bounds + 1), and sums in seconds."""
        with self._lock:
            counts, sums_s = self._folded(list(self._rows))
        return counts.cumsum(axis=1), sums_s

    def _folded(self, rows: Sequence[Sequence[float]]) -> tuple[Float64Array, Float64Array]:
        """Return counts and sums with these rows in them."""
        seconds = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.names))
        places = np.searchsorted(BUCKETS_S, seconds)
        counts = [np.bincount(column, minlength=len(_BOUNDS)) for column in places.T]
        return self._counts + np.array(counts), self._sums_s + seconds.sum(axis=0)


def histogram(
    durations: Durations, names: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, float]], float]]:
    """Yield of each kind its name, cumulative counts by upper bound, and sum in seconds."""
    counts, sums_s = durations.cumulative()
    for name in names:
        kind = durations.names.index(name)
        yield name, list(zip(_BOUNDS, counts[kind].tolist(), strict=True)), float(sums_s[kind])
