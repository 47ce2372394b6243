"""The consumer's metrics, on a registry of the test's own."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stream.alarms import FalseAlarmRate
from stream.message import REASONS
from stream.metrics import OUTCOMES, Metrics
from stream.monitor import Monitor
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture(scope="module")
def result() -> WindowResult:
    artifact = small_artifact(n_toys=9)
    monitor = Monitor(artifact, FalseAlarmRate.parse("1/day"))
    events = gaussians(200, np.random.default_rng(1))
    return monitor.examine(closed_window(events, artifact.reference))[0]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"nplm_stream_{name}", labels)


def test_registries_do_not_meet() -> None:
    one, other = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.events.inc(3)
    assert value(one, "events_total") == 3
    assert value(other, "events_total") == 0


def test_every_series_exists_from_the_start(metrics: Metrics) -> None:
    for reason in REASONS:
        assert value(metrics, "rejected_messages_total", reason=reason) == 0
    for outcome in OUTCOMES:
        assert value(metrics, "windows_total", outcome=outcome) == 0
    for name in ("events_total", "messages_total", "missing_messages_total",
                 "embedding_seconds_count", "features_seconds_count",
                 "event_latency_seconds_count", "test_seconds_count", "relabelling_seconds_count",
                 "window_fill_events", "window_fill_ratio", "windows_waiting"):  # fmt: skip
        assert value(metrics, name) == 0, name
    for name in ("alarms_total", "window_t", "run_global_z_score"):
        assert value(metrics, name, scale="1") == 0, name


def test_names_and_units(metrics: Metrics) -> None:
    names = [family.name for family in metrics.registry.collect()]
    assert all(name.startswith("nplm_stream_") for name in names)
    assert not any(name.endswith(("_ms", "_us", "_ns", "_percent")) for name in names)
    assert b"# HELP nplm_stream_events_total" in generate_latest(metrics.registry)


def test_buckets_reach_from_ten_microseconds_to_a_minute(metrics: Metrics) -> None:
    metrics.embedding.observe(5e-6)
    metrics.embedding.observe(59.0)
    assert value(metrics, "embedding_seconds_bucket", le="1e-05") == 1
    assert value(metrics, "embedding_seconds_bucket", le="60.0") == 2


def test_result_is_shown(metrics: Metrics, result: WindowResult) -> None:
    metrics.observe_result(replace(result, alarm=True))
    metrics.observe_result(replace(result, alarm=False, t=-3.0, converged=False))
    assert value(metrics, "windows_total", outcome="tested") == 2
    assert value(metrics, "test_seconds_count") == 2
    assert value(metrics, "alarms_total", scale="1") == 1
    assert value(metrics, "unconverged_tests_total") == 1
    assert value(metrics, "window_t", scale="1") == -3.0
    for name, wanted in (
        ("window_p_value", result.p), ("window_z_score", result.z),
        ("window_chi2_p_value", result.p_chi2), ("window_chi2_z_score", result.z_chi2),
        ("window_alarm_p_value", result.p_alarm), ("window_alarm_z_score", result.z_alarm),
        ("window_inverse_far_seconds", result.inverse_far_s),
        ("run_global_z_score", result.z_global),
    ):  # fmt: skip
        assert value(metrics, name, scale="1") == wanted, name


def test_longer_scales_have_series_of_their_own(metrics: Metrics, result: WindowResult) -> None:
    assert value(metrics, "window_t", scale="10") is None
    metrics.open_scales([10, 100])
    for name in ("window_t", "alarms_total", "merged_windows_total", "broken_runs_total"):
        assert value(metrics, name, scale="10") == value(metrics, name, scale="100") == 0, name
    metrics.observe_result(replace(result, scale=10, t=7.0, alarm=True, converged=None))
    assert value(metrics, "merged_windows_total", scale="10") == 1
    assert value(metrics, "alarms_total", scale="10") == 1
    assert value(metrics, "window_t", scale="10") == 7.0
    assert value(metrics, "windows_total", outcome="tested") == 0
    assert value(metrics, "window_t", scale="1") == value(metrics, "unconverged_tests_total") == 0


def test_confirmation_is_shown(metrics: Metrics, result: WindowResult) -> None:
    assert value(metrics, "alarm_relabelled_p_value") == 1.0
    metrics.observe_result(replace(result, p_relabelled=0.02, n_relabellings=99, relabel_s=1.5))
    metrics.observe_result(result)
    assert value(metrics, "alarm_relabelled_p_value") == 0.02
    assert value(metrics, "relabelling_seconds_count") == 1
    assert value(metrics, "relabelling_seconds_sum") == 1.5
