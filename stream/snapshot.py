"""What the live page shows: the account, with rates and latencies of the last seconds."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engines.types import Float64Array
from stream.durations import BUCKETS_S
from stream.metrics import Metrics
from stream.stages import LATENCY

__all__ = ["Recent"]

_SPAN_S = 10.0
#: The page may be open many times; samples are no closer than this.
_LEAST_STEP_S = 0.5


@dataclass(frozen=True)
class _Sample:
    at_s: float
    n_events: int
    by_source: dict[str, int] = field(default_factory=dict)
    latencies: Float64Array = field(default_factory=lambda: np.zeros(len(BUCKETS_S) + 1))


class Recent:
    """Differences between the account now and some seconds ago; costs nothing unless asked.

    Args:
        metrics: the account.
        clock: monotonic seconds.
        now: unix seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the first sample."""
        self._metrics, self._clock, self._now = metrics, clock, now
        self._samples: deque[_Sample] = deque([self._sample()])

    def snapshot(self) -> dict[str, object]:
        """Return the stream's part of the live page's data, JSON-able."""
        m, latest = self._metrics, self._sample()
        before = self._before(latest)
        span_s = latest.at_s - before.at_s
        counts = latest.latencies - before.latencies
        sources = [
            {
                "source": source,
                "events": n,
                "events_hz": _rate(n - before.by_source.get(source, 0), span_s),
            }
            for source, n in latest.by_source.items()
        ]
        return {
            "events": m.n_events,
            "events_hz": _rate(latest.n_events - before.n_events, span_s),
            "latency_p50_s": _quantile_s(counts, 0.5),
            "latency_p99_s": _quantile_s(counts, 0.99),
            "fill": m.fill,
            "waiting": m.queues["tests"].length(),
            "saturation": m.saturation if m.last_window_s else None,
            "since_event_s": max(0.0, self._now() - m.last_event_s) if m.last_event_s else None,
            "sources": sources,
            "rejected": m.n_rejected,
            "missing": m.n_missing,
            "skipped": m.windows["skipped"],
        }

    def _sample(self) -> _Sample:
        durations = self._metrics.stages.durations
        cumulative = durations.cumulative()[0][durations.names.index(LATENCY)]
        latencies = np.diff(cumulative, prepend=0.0)
        by_source = dict(self._metrics.by_source.copy())
        return _Sample(self._clock(), self._metrics.n_events, by_source, latencies)

    def _before(self, latest: _Sample) -> _Sample:
        """Return the sample to compare with, the oldest of the last seconds; keep this one."""
        samples = self._samples
        while len(samples) > 1 and latest.at_s - samples[1].at_s >= _SPAN_S:
            samples.popleft()
        if latest.at_s - samples[-1].at_s >= _LEAST_STEP_S:
            samples.append(latest)
        return samples[0]


def _rate(n: int, span_s: float) -> float | None:
    return n / span_s if span_s > 0 else None


def _quantile_s(counts: Float64Array, level: float) -> float | None:
    """Return a quantile of a histogram, on a straight line within its bucket; None without one."""
    total = counts.sum()
    if total <= 0:
        return None
    upper = np.array([*BUCKETS_S, BUCKETS_S[-1]])
    lower = np.array([0.0, *BUCKETS_S])
    cumulative = np.cumsum(counts)
    place = int(np.searchsorted(cumulative, level * total))
    below = cumulative[place] - counts[place]
    inside = (level * total - below) / counts[place]
    return float(lower[place] + inside * (upper[place] - lower[place]))
