"""The consumer's metrics, on a registry of the test's own."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from prometheus_client import generate_latest

from engines.nplm import z_score
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.exposition import registry_of
from stream.header import REASONS, Header
from stream.metrics import OUTCOMES, Metrics
from stream.monitor import Monitor
from stream.stages import Arrival
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def result() -> WindowResult:
    artifact = small_artifact(n_toys=9)
    monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")))
    events = gaussians(200, np.random.default_rng(1))
    return monitor.examine(closed_window(events, artifact.reference))[0]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return registry_of(metrics).get_sample_value(f"nplm_stream_{name}", labels)


def test_registries_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.n_events += 3
    assert value(one, "events_total") == 3
    assert value(other, "events_total") == 0


def test_every_series_exists_from_the_start(metrics: Metrics) -> None:
    for reason in REASONS:
        assert value(metrics, "rejected_messages_total", reason=reason) == 0
    for outcome in OUTCOMES:
        assert value(metrics, "windows_total", outcome=outcome) == 0
    for outcome in ("kept", "failed"):
        assert value(metrics, "alarm_records_total", outcome=outcome) == 0
    for outcome in ("delivered", "failed", "dropped"):
        assert value(metrics, "notifications_total", outcome=outcome) == 0
    for queue in ("tests", "features", "notifications"):
        assert value(metrics, "queue_length", queue=queue) == 0
    for name in ("events_total", "messages_total", "missing_messages_total", "clock_jumps_total",
                 "embedding_seconds_count", "features_seconds_count", "discoveries_total",
                 "event_latency_seconds_count", "test_seconds_count", "relabelling_seconds_count",
                 "window_fill_events", "window_fill_ratio", "test_saturation_ratio",
                 "last_event_timestamp_seconds", "last_window_timestamp_seconds"):  # fmt: skip
        assert value(metrics, name) == 0, name
    for name in ("alarms_total", "alarming_windows_total", "trials_total", "window_t",
                 "run_global_z_score", "window_threshold_z_score"):  # fmt: skip
        assert value(metrics, name, scale="1") == 0, name
    assert value(metrics, "stage_seconds_count", stage="embed") == 0


def test_names_and_units(metrics: Metrics) -> None:
    names = [family.name for family in registry_of(metrics).collect()]
    assert all(name.startswith(("nplm_stream_", "process_")) for name in names)
    assert not any(name.endswith(("_ms", "_us", "_ns", "_percent")) for name in names)
    assert "process_resident_memory_bytes" in names
    assert b"# HELP nplm_stream_events_total" in generate_latest(registry_of(metrics))


def test_buckets_reach_from_ten_microseconds_to_a_minute(metrics: Metrics) -> None:
    metrics.embedding.add([5e-6])
    metrics.embedding.add([59.0])
    assert value(metrics, "embedding_seconds_bucket", le="1e-05") == 1
    assert value(metrics, "embedding_seconds_bucket", le="60.0") == 2


def test_result_is_shown(metrics: Metrics, result: WindowResult) -> None:
    metrics.observe_result(replace(result, alarm=True, onset=True, spacing_s=2.0, test_s=1.0), 5.0)
    assert value(metrics, "test_saturation_ratio") == 0.5
    metrics.observe_result(replace(result, alarm=True, onset=False, spacing_s=0.0), 6.0)
    metrics.observe_result(replace(result, t=-3.0, converged=False, discovery=True), 7.0)
    assert value(metrics, "windows_total", outcome="tested") == 3
    assert value(metrics, "test_seconds_count") == 3
    assert value(metrics, "alarms_total", scale="1") == 1
    assert value(metrics, "alarming_windows_total", scale="1") == 2
    assert value(metrics, "alarming_window_z_score", scale="1") == result.z_alarm
    assert value(metrics, "alarming_window_t", scale="1") == result.t
    assert value(metrics, "last_alarming_window_timestamp_seconds", scale="1") == 6.0
    assert value(metrics, "unconverged_tests_total") == 1
    assert value(metrics, "discoveries_total") == 1
    assert value(metrics, "last_window_timestamp_seconds") == 7.0
    assert value(metrics, "window_t", scale="1") == -3.0
    for name, wanted in (
        ("window_p_value", result.p), ("window_z_score", result.z),
        ("window_chi2_p_value", result.p_chi2), ("window_chi2_z_score", result.z_chi2),
        ("window_alarm_p_value", result.p_alarm), ("window_alarm_z_score", result.z_alarm),
        ("window_inverse_far_seconds", result.inverse_far_s),
        ("run_global_z_score", result.z_global), ("trials_total", result.trials),
        ("window_threshold_z_score", z_score(result.threshold_p)),
    ):  # fmt: skip
        assert value(metrics, name, scale="1") == wanted, name


def test_reference_is_described(metrics: Metrics) -> None:
    artifact = small_artifact(n_toys=99, scales=(10,))
    metrics.describe(replace(artifact, fingerprint="ab12"), FalseAlarmRate.parse("1/day"))
    assert value(metrics, "false_alarm_rate_hertz") == pytest.approx(1 / 86_400)
    created = datetime.fromisoformat(artifact.facts.created).timestamp()
    assert value(metrics, "reference_created_timestamp_seconds") == created
    labels = {
        "fingerprint": "ab12", "engine": artifact.facts.engine_fingerprint, "precision": "fp32",
        "window": str(artifact.facts.window), "n_ref": str(artifact.facts.n_ref), "n_toys": "99",
    }  # fmt: skip
    assert value(metrics, "reference_info", **labels) == 1
    for scale, nulls in artifact.nulls.items():
        median = value(metrics, "null_t", scale=str(scale), level="0.5")
        assert median == pytest.approx(float(np.median(nulls.t)))


def test_longer_scales_have_series_of_their_own(metrics: Metrics, result: WindowResult) -> None:
    assert value(metrics, "window_t", scale="10") is None
    metrics.describe(small_artifact(n_toys=9, scales=(10,)), FalseAlarmRate.parse("1/day"))
    for name in ("window_t", "alarms_total", "merged_windows_total", "broken_runs_total"):
        assert value(metrics, name, scale="10") == 0, name
    longer = replace(result, scale=10, t=7.0, alarm=True, onset=True, converged=None)
    metrics.observe_result(longer, 1.0)
    assert value(metrics, "merged_windows_total", scale="10") == 1
    assert value(metrics, "alarms_total", scale="10") == 1
    assert value(metrics, "window_t", scale="10") == 7.0
    assert value(metrics, "windows_total", outcome="tested") == 0
    assert value(metrics, "window_t", scale="1") == value(metrics, "unconverged_tests_total") == 0


def test_confirmation_is_shown(metrics: Metrics, result: WindowResult) -> None:
    assert value(metrics, "alarm_relabelled_p_value") == 1.0
    confirmed = replace(result, p_relabelled=0.02, n_relabellings=99, relabel_s=1.5)
    metrics.observe_result(confirmed, 1.0)
    metrics.observe_result(result, 2.0)
    assert value(metrics, "alarm_relabelled_p_value") == 0.02
    assert value(metrics, "relabelling_seconds_count") == 1
    assert value(metrics, "relabelling_seconds_sum") == 1.5


def arrivals(*sources: str, n: int = 10) -> list[Arrival]:
    return [Arrival(Header(s, 0, n, "<f4", 0, False), 0, 0.0, 0.0, 0.0) for s in sources]


def test_events_are_counted_by_source_and_strangers_together(metrics: Metrics) -> None:
    """No producer can fill Prometheus with names."""
    metrics.observe_messages(arrivals('a"\n} 1', "b", "b"), 3.0)
    metrics.observe_messages(arrivals(*(f"name {i}" for i in range(500))), 4.0)
    assert value(metrics, "source_events_total", source='a"\n} 1') == 10
    assert value(metrics, "source_events_total", source="b") == 20
    assert value(metrics, "source_events_total", source="other") == 10 * (500 - 98)
    assert value(metrics, "messages_total") == 503
    assert value(metrics, "last_event_timestamp_seconds") == 4.0
    assert len(metrics.by_source) == 101


def test_memory_of_a_gpu_is_shown_where_there_is_one(metrics: Metrics) -> None:
    assert value(metrics, "gpu_memory_used_bytes") is None
    metrics.gpu_memory = lambda: (3, 8)
    assert value(metrics, "gpu_memory_used_bytes") == 3
    assert value(metrics, "gpu_memory_total_bytes") == 8
