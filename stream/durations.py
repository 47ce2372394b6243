"""Durations as Prometheus histograms that cost the stream next to nothing to keep."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

__all__ = ["BUCKETS_S", "DurationHistogram", "Durations"]

#: Upper bounds, in seconds.
BUCKETS_S = (
    *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)


class Durations:
    """Counts of durations by bucket; one thread observes, any may read."""

    def __init__(self) -> None:
        """Start empty."""
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative count up to each bound, the last +Inf, and the sum in seconds."""
        counts, total = list(self._counts), 0
        buckets = []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._sum_s


class DurationHistogram(Collector):
    """A histogram whose buckets are made when they are scraped, not when durations are observed.

    Args:
        name: of the metric.
        text: its help.
        label: name of its label, or "" for none.
        series: durations by the label's value; one, under "", without a label.
    """

    def __init__(self, name: str, text: str, label: str, series: Mapping[str, Durations]) -> None:
        """Keep what will be read."""
        self._name, self._text = name, text
        self._labels = [label] if label else []
        self._series = series

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for value, durations in self._series.items():
            buckets, sum_s = durations.cumulative()
            family.add_metric([value] if self._labels else [], buckets, sum_s)
        yield family
