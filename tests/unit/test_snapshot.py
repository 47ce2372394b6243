"""Rates and latencies of the last seconds, for the live page."""

import json

import pytest

from stream.header import Header
from stream.metrics import Metrics, Queue
from stream.snapshot import Recent
from stream.stages import Arrival


class Clock:
    """Both clocks, set by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.n_expected = 100.0
    return made


def receive(metrics: Metrics, source: str, n: int, latency_s: float, now_s: float) -> None:
    header = Header(source, 0, n, "<f4", 0, False)
    arrival = Arrival(header, 0, latency_s, 0.0, 0.0)
    metrics.n_events += n
    metrics.observe_messages([arrival], now_s)
    metrics.stages.observe([arrival], 0.0, 0.0, 0.0)


def test_before_anything_there_are_no_rates(metrics: Metrics) -> None:
    shown = Recent(metrics, Clock(), Clock()).snapshot()
    json.dumps(shown, allow_nan=False)
    assert shown["events_hz"] is None
    assert shown["latency_p99_s"] is None
    assert shown["since_event_s"] is None
    assert shown["saturation"] is None
    assert shown["sources"] == []


def test_rates_are_of_the_last_seconds(metrics: Metrics) -> None:
    clock = Clock()
    recent = Recent(metrics, clock, clock)
    shown = recent.snapshot()
    for second in range(30):
        clock.s += 1.0
        receive(metrics, "a", 100 if second < 15 else 500, 0.003, clock.s)
        shown = recent.snapshot()
    assert shown["events_hz"] == pytest.approx(500.0)
    assert shown["events"] == metrics.n_events == 9000
    assert shown["sources"] == [{"source": "a", "events": 9000, "events_hz": 500.0}]
    clock.s += 4.0
    assert recent.snapshot()["since_event_s"] == 4.0


def test_many_viewers_do_not_shorten_the_span(metrics: Metrics) -> None:
    clock = Clock()
    recent = Recent(metrics, clock, clock)
    shown = recent.snapshot()
    for step in range(2000):
        clock.s += 0.01
        if step % 100 == 0:
            receive(metrics, "a", 50, 0.003, clock.s)
        shown = recent.snapshot()
    assert shown["events_hz"] == pytest.approx(50.0, rel=0.12)


def test_latencies_are_quantiles_of_the_last_seconds(metrics: Metrics) -> None:
    clock = Clock()
    recent = Recent(metrics, clock, clock)
    for _ in range(50):
        receive(metrics, "a", 1, 20.0, clock.s)
    for _ in range(12):
        clock.s += 1.0
        recent.snapshot()
    for i in range(100):
        receive(metrics, "a", 1, 0.0015 if i < 98 else 0.15, clock.s)
    shown = recent.snapshot()
    assert shown["latency_p50_s"] == pytest.approx(0.0015, rel=0.35)
    assert shown["latency_p99_s"] == pytest.approx(0.15, rel=0.35)


def test_the_account_is_shown(metrics: Metrics) -> None:
    metrics.n_open = lambda: 25
    metrics.queues["tests"] = Queue(lambda: 3, 16)
    metrics.rejected["clock"] = 2
    metrics.n_missing, metrics.windows["skipped"] = 4, 5
    shown = Recent(metrics, Clock(), Clock()).snapshot()
    names = ("fill", "waiting", "rejected", "missing", "skipped")
    assert [shown[name] for name in names] == [0.25, 3, 2, 4, 5]
