"""The demo's picture is drawn from results, alarms and metrics."""

from pathlib import Path

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from prometheus_client.exposition import generate_latest

from stream.exposition import registry_of
from stream.metrics import Metrics
from stream.report import ALARM_COLOUR, draw_report, draw_significance, histogram_counts


def exposition() -> str:
    metrics = Metrics()
    for seconds in (0.0015, 0.0016, 0.03, 100.0):
        metrics.stages.durations.add([0, 0, 0, 0, 0, seconds])
    return generate_latest(registry_of(metrics)).decode()


def test_histogram_counts_are_per_bucket() -> None:
    bounds, counts = histogram_counts(exposition(), "nplm_stream_event_latency_seconds")
    filled = {
        float(bound): int(count) for bound, count in zip(bounds, counts, strict=True) if count
    }
    assert filled == {0.002: 2, 0.05: 1, np.inf: 1}


def result(window: int, z: float, *, alarm: bool) -> dict[str, object]:
    line: dict[str, object] = {
        "window": window,
        "z_alarm": z,
        "alarm": alarm,
        "threshold_p": 1e-6,
        "t": 1.0,
    }
    line |= {"alarm_on": "chi2", "scale": 1}
    return line | {"n_injected": window, "n_events": 10, "run": "r"}


def test_windows_that_alarm_are_drawn_in_the_alarm_colour() -> None:
    axes = Figure().subplots()
    heights = (0.1, 6.0, -0.5, 7.0)
    draw_significance(axes, [result(i, z, alarm=z > 5) for i, z in enumerate(heights)])
    drawn = {
        (float(x), float(z)): to_hex(np.asarray(points.get_facecolor())[0])
        for points in axes.collections
        if isinstance(points, PathCollection)
        for x, z in np.asarray(points.get_offsets())
    }
    assert {place for place, colour in drawn.items() if colour == ALARM_COLOUR} == {(1, 6), (3, 7)}
    assert set(drawn) == set(enumerate(heights))


def test_report_without_an_alarm_is_a_png(tmp_path: Path) -> None:
    lines = [result(i, z, alarm=False) for i, z in enumerate((0.1, -0.5))]
    lines.append(result(0, 9.0, alarm=True) | {"scale": 10})  # has no record of its events
    draw_report(lines, tmp_path, exposition(), tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
