"""A consumer's metrics, read over HTTP as Prometheus reads them."""

import time
import urllib.request
from collections.abc import Sequence

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import Process
from engines.errors import WorkerError
from engines.types import Float64Array

__all__ = ["Scrape", "quantile_s", "scrape", "wait_until_ready"]

_PREFIX = "nplm_stream_"
_READY_S, _ANSWER_S, _POLL_S = 60.0, 30.0, 0.1


class Scrape:
    """All series at one instant.

    Args:
        text: of /metrics.
    """

    def __init__(self, text: str) -> None:
        """Read it."""
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self._samples)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the series of a name that have these labels; 0 if there is none.

        >>> Scrape('nplm_stream_windows_total{outcome="tested"} 3.0').total("windows_total")
        3.0
        """
        wanted = labels.items()
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == _PREFIX + name and wanted <= sample.labels.items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the values above 0 of a name's series, by one of their labels."""
        return {
            sample.labels[label]: sample.value
            for sample in self._samples
            if sample.name == _PREFIX + name and sample.value
        }

    def buckets(self, name: str) -> tuple[Float64Array, Float64Array]:
        """Return a histogram's upper bounds, s, the last infinite, and counts up to each."""
        rows = [
            (float(sample.labels["le"]), sample.value)
            for sample in self._samples
            if sample.name == f"{_PREFIX}{name}_bucket"
        ]
        bounds, counts = np.array(rows, dtype=np.float64).reshape(-1, 2).T
        return bounds, counts


def quantile_s(bounds_s: Float64Array, counts: Float64Array, q: float) -> float | None:
    """Return a quantile of a histogram as Prometheus does: linear within its bucket.

    Args:
        bounds_s: upper bounds, (n,), the last infinite, for which the one before it stands.
        counts: up to each bound, (n,).
        q: the quantile.

    Returns:
        Seconds; None of nothing.

    >>> quantile_s(np.array([1.0, 2.0, np.inf]), np.array([0.0, 10.0, 10.0]), 0.5)
    1.5
    """
    if not counts[-1]:
        return None
    wanted = q * counts[-1]
    place = int(np.searchsorted(counts, wanted))
    if place >= len(bounds_s) - 1:
        return float(bounds_s[-2])
    low, before = (bounds_s[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    share = (wanted - before) / (counts[place] - before)
    return float(low + share * (bounds_s[place] - low))


def scrape(address: str, timeout_s: float = _ANSWER_S) -> Scrape:
    """Read the metrics of a consumer.

    Args:
        address: host:port of its `--http`.
        timeout_s: while it may be busy with others.

    Raises:
        WorkerError: if it does not answer in time.
    """
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            return Scrape(_get(f"http://{address}/metrics", timeout_s))
        except OSError as exc:
            if time.monotonic() > until_s:
                msg = f"http://{address}/metrics must answer within {timeout_s:.0f} s; got {exc}"
                raise WorkerError(msg) from exc
            time.sleep(_POLL_S)


def wait_until_ready(address: str, *consumers: Process) -> None:
    """Wait until a consumer says that it is ready.

    Args:
        address: host:port of its `--http`.
        consumers: processes that must not fail meanwhile.

    Raises:
        WorkerError: if one fails, or is not ready in a minute.
    """
    until_s = time.monotonic() + _READY_S
    while True:
        _check(consumers)
        try:
            _get(f"http://{address}/readyz", 5.0)
        except OSError as exc:
            if time.monotonic() > until_s:
                msg = f"a consumer must be ready within {_READY_S:.0f} s; it is not ({exc})"
                raise WorkerError(msg) from exc
            time.sleep(_POLL_S)
        else:
            return


def _check(processes: Sequence[Process]) -> None:
    for process in processes:
        process.check()


def _get(url: str, timeout_s: float) -> str:
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - ours
        text: str = answer.read().decode()
    return text
