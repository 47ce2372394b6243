"""The demo's picture is drawn from results, alarms and metrics."""

from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from stream.metrics import Metrics
from stream.report import draw_report, histogram_counts


def exposition() -> str:
    metrics = Metrics(CollectorRegistry())
    for seconds in (0.0015, 0.0016, 0.03, 100.0):
        metrics.latency.observe(seconds)
    return generate_latest(metrics.registry).decode()


def test_histogram_counts_are_per_bucket() -> None:
    bounds, counts = histogram_counts(exposition(), "nplm_stream_event_latency_seconds")
    filled = {
        float(bound): int(count) for bound, count in zip(bounds, counts, strict=True) if count
    }
    assert filled == {0.002: 2, 0.05: 1, np.inf: 1}


def test_report_without_an_alarm_is_a_png(tmp_path: Path) -> None:
    lines = [
        {"window": i, "z_chi2": z, "alarm": False, "threshold_p": 1e-6, "n_injected": i, "t": 1.0}
        | {"n_events": 10, "run": "r"}
        for i, z in enumerate((0.1, -0.5))
    ]
    draw_report(lines, tmp_path, exposition(), tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
