"""Latencies as a consumer records them: sparse buckets, each with the events that fell into it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from engines.errors import ArtifactError, ParameterError
from engines.types import Float64Array

__all__ = ["QUANTILES", "Recording"]

#: By the names that they have in a summary.
QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}
_CURVE_POINTS = 60
_NS = 1e9


class Recording:
    """Durations of events, to the precision of the buckets that they were counted in.

    Args:
        counts: events by duration, ns; a duration stands for its bucket, by its upper end.

    Raises:
        ParameterError: if there is no event, a negative duration or a negative number of events.
    """

    def __init__(self, counts: Mapping[int, int]) -> None:
        """Sort the durations."""
        self._ns = np.array(sorted(counts), dtype=np.int64)
        n = np.array([counts[value] for value in self._ns.tolist()], dtype=np.int64)
        if not n.sum() or n.min() < 0 or self._ns[0] < 0:
            msg = f"a recording must count at least one event, all at 0 ns or above; got {counts!r}"
            raise ParameterError(msg)
        self._n, self._up_to = n, np.cumsum(n)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int] | Mapping[int, int]) -> Self:
        """Return what JSON holds, whose keys are strings.

        Raises:
            ArtifactError: if it is damaged.

        >>> Recording.from_counts({"1000": 1, "3000": 3}).quantile_s(0.5)
        3e-06
        """
        try:
            return cls({int(value): int(n) for value, n in counts.items()})
        except (ValueError, TypeError, AttributeError) as exc:
            msg = f"the counts of a recording must be events by ns ({exc}); measure again"
            raise ArtifactError(msg) from exc

    @classmethod
    def merged(cls, recordings: Iterable["Recording"]) -> Self:
        """Return all events of several recordings."""
        counts: Counter[int] = Counter()
        for one in recordings:
            counts.update(dict(zip(one._ns.tolist(), one._n.tolist(), strict=True)))
        return cls(counts)

    def __len__(self) -> int:
        """Return the number of events."""
        return int(self._up_to[-1])

    def quantile_s(self, q: float) -> float:
        """Return the shortest duration, in seconds, that a share q of the events stays within."""
        if not 0 <= q <= 1:
            msg = f"a quantile must lie between 0 and 1; got {q}"
            raise ParameterError(msg)
        # The tolerance is of the product: 0.9 * 10 must not ask for a tenth event.
        wanted = max(1, int(np.ceil(q * len(self) * (1 - 1e-12))))
        return float(self._ns[np.searchsorted(self._up_to, wanted)] / _NS)

    @property
    def max_s(self) -> float:
        """The longest duration in seconds."""
        return float(self._ns[self._n > 0][-1] / _NS)

    @property
    def mean_s(self) -> float:
        """The mean duration in seconds."""
        return float(self._ns @ self._n / len(self) / _NS)

    def summary(self) -> dict[str, Any]:
        """Return number, mean, quantiles and maximum, JSON-able."""
        quantiles = {name: self.quantile_s(q) for name, q in QUANTILES.items()}
        return {"events": len(self), "mean_s": self.mean_s, **quantiles, "max_s": self.max_s}

    def curve(self) -> tuple[Float64Array, Float64Array]:
        """Return quantiles from 0 to 1 - 1/events, ever closer, and their durations in seconds."""
        q = 1 - np.geomspace(1.0, 1 / len(self), _CURVE_POINTS)
        return q, np.array([self.quantile_s(one) for one in q.clip(0.0, 1.0)])
