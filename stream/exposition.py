"""What Prometheus sees of the consumer: one collector that reads its account when scraped.

Names start with `nplm_stream_`, units are base units, every series exists from the start.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from engines.nplm import z_score
from stream.durations import histogram
from stream.metrics import Metrics
from stream.stages import LATENCY, STAGES
from stream.window_result import WindowResult

__all__ = ["registry_of"]

_PREFIX = "nplm_stream_"
_Values: TypeAlias = float | Mapping[str, float]
#: Gauges of a scale's last window: name, text, the result's field.
_OF_WINDOW = (
    ("window_t", "Test statistic of the last window", "t"),
    ("window_p_value", "Empirical p-value of the last window", "p"),
    ("window_z_score", "Z of the empirical p-value", "z"),
    ("window_chi2_p_value", "Chi-square p-value of the last window", "p_chi2"),
    ("window_chi2_z_score", "Z of the chi-square p-value", "z_chi2"),
    ("window_alarm_p_value", "The p-value that alarms", "p_alarm"),
    ("window_alarm_z_score", "Z of the p-value that alarms", "z_alarm"),
    ("window_inverse_far_seconds", "Inverse false-alarm rate", "inverse_far_s"),
    ("run_global_z_score", "Z of the run, corrected for its trials", "z_global"),
)
#: The same of its last window over the threshold. A scrape sees a window only until the next one,
#: which comes at once where windows waited for the confirmation of an alarm: these stay.
_OF_ALARMING_WINDOW = (
    ("alarming_window_t", "Test statistic of the last window over the threshold", "t"),
    ("alarming_window_z_score", "Z of the last window over the threshold", "z_alarm"),
    ("alarming_window_inverse_far_seconds", "Its inverse false-alarm rate", "inverse_far_s"),
)


def registry_of(metrics: Metrics) -> CollectorRegistry:
    """Return a registry that shows an account, and the process."""
    registry = CollectorRegistry()
    registry.register(_Exposition(metrics))
    ProcessCollector(registry=registry)
    return registry


class _Exposition(Collector):
    """Yields every metric of an account.

    Args:
        metrics: the account.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Keep what will be read."""
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield everything as it is now."""
        yield from self._stream()
        yield from self._durations()
        yield from self._windows()
        yield from self._scales()
        yield from self._setup()

    def _stream(self) -> Iterator[Metric]:
        m = self._metrics
        yield _counter("events", "Events embedded", m.n_events)
        yield _counter("messages", "Messages accepted", m.n_messages)
        text = "Messages refused, by reason"
        yield _counter("rejected_messages", text, m.rejected.copy(), "reason")
        text = "Messages missing by sequence number"
        yield _counter("missing_messages", text, m.n_missing)
        text = "Messages that came again, not counted again"
        yield _counter("duplicate_messages", text, m.n_duplicates)
        yield _counter("recovered_events", "Events taken up from the state", m.n_recovered)
        text = "Messages whose time of production lay ahead, taken as that of arrival"
        yield _counter("restamped_messages", text, m.n_restamped)
        text = "Writes of the state that failed and were tried again"
        yield _counter("state_failures", text, m.n_state_failures)
        text = "Events accepted, by source; of many, the later ones are 'other'"
        yield _counter("source_events", text, m.by_source.copy(), "source")
        text = "Unix time of the last message accepted, 0 before the first"
        yield _gauge("last_event_timestamp_seconds", text, m.last_event_s)
        text = "Times that production time was set back"
        yield _counter("clock_jumps", text, m.n_clock_jumps)
        text = "Windows that could not alarm, as their time was charged for before"
        yield _counter("uncharged_windows", text, m.n_uncharged)
        queues = m.queues.copy().items()
        lengths = {name: queue.length() for name, queue in queues}
        text = "What waits: windows, batches, alarms, bytes of the state"
        yield _gauge("queue_length", text, lengths, "queue")
        capacities = {name: queue.capacity for name, queue in queues if queue.capacity}
        yield _gauge("queue_capacity", "How much of it may wait", capacities, "queue")

    def _durations(self) -> Iterator[Metric]:
        m = self._metrics
        of_messages = m.stages.durations
        for name, text, durations, kinds in (
            ("embedding", "Time to embed one micro-batch", m.embedding, None),
            ("features", "Time to compute one micro-batch's features", m.features, None),
            ("test", "Time of one NPLM test", m.test, None),
            ("relabelling", "Time to confirm one alarm by relabelling", m.relabelling, None),
            ("state_write", "Time of one write of the state to the disk", m.state, None),
            ("event_latency", "Production to embedding, once a message", of_messages, (LATENCY,)),
            ("stage", "What a message's time went into", of_messages, STAGES),
        ):
            label = ["stage"] if kinds == STAGES else []
            family = HistogramMetricFamily(f"{_PREFIX}{name}_seconds", text, labels=label)
            for kind, buckets, sum_s in histogram(durations, kinds or durations.names):
                family.add_metric([kind] if label else [], buckets, sum_s)
            yield family

    def _windows(self) -> Iterator[Metric]:
        m = self._metrics
        yield _gauge("window_fill_events", "Events in the open window", m.n_open())
        yield _gauge("window_fill_ratio", "Open window's events over those expected", m.fill)
        yield _counter("windows", "Windows closed, by outcome", m.windows.copy(), "outcome")
        text = "Unix time of the last test, 0 before the first"
        yield _gauge("last_window_timestamp_seconds", text, m.last_window_s)
        text = "Time of the last test over its window's spacing; above 1 for long, some are skipped"
        yield _gauge("test_saturation_ratio", text, m.saturation)
        yield _counter("unconverged_tests", "Tests whose fit did not converge", m.n_unconverged)
        text = "Windows that are discoveries at --fdr"
        yield _counter("discoveries", text, m.n_discoveries)
        text = "Relabelled p-value of the last alarm confirmed, or 1"
        yield _gauge("alarm_relabelled_p_value", text, m.p_relabelled)
        yield _counter("alarm_records", "Records of alarms", m.records.copy(), "outcome")
        text = "Notifications of alarms"
        yield _counter("notifications", text, m.notifications.copy(), "outcome")

    def _scales(self) -> Iterator[Metric]:
        counts = {str(scale): one for scale, one in sorted(self._metrics.scales.copy().items())}
        last = {scale: one.last for scale, one in counts.items()}
        for name, text, field in _OF_WINDOW:
            values = {scale: getattr(one, field, 0.0) for scale, one in last.items()}
            yield _gauge(name, text, values, "scale")
        for name, text, field in _OF_ALARMING_WINDOW:
            values = {
                scale: getattr(one.last_alarming, field, 0.0) for scale, one in counts.items()
            }
            yield _gauge(name, text, values, "scale")
        times_s = {scale: one.last_alarming_s for scale, one in counts.items()}
        text = "Unix time of its test, 0 before the first"
        yield _gauge("last_alarming_window_timestamp_seconds", text, times_s, "scale")
        thresholds = {scale: _threshold_z(one) for scale, one in last.items()}
        text = "Z at which the last window alarms"
        yield _gauge("window_threshold_z_score", text, thresholds, "scale")
        trials = {scale: one.trials if one else 0 for scale, one in last.items()}
        yield _counter("trials", "Windows that count as trials", trials, "scale")
        alarms = {scale: one.n_alarms for scale, one in counts.items()}
        text = "Alarms; windows next to each other are one"
        yield _counter("alarms", text, alarms, "scale")
        alarming = {scale: one.n_alarming for scale, one in counts.items()}
        yield _counter("alarming_windows", "Windows over the threshold", alarming, "scale")
        longer = {scale: one for scale, one in counts.items() if scale != "1"}
        merged = {scale: one.n_tested for scale, one in longer.items()}
        yield _counter("merged_windows", "Windows of longer scales, tested", merged, "scale")
        broken = {scale: one.n_broken for scale, one in longer.items()}
        text = "Longer windows given up before complete"
        yield _counter("broken_runs", text, broken, "scale")
        text = "Quantiles of the toys' t, of the first kernel width, by level"
        null = GaugeMetricFamily(f"{_PREFIX}null_t", text, labels=["scale", "level"])
        for scale, one in counts.items():
            for quantile, t in (one.null_t or {}).items():
                null.add_metric([scale, quantile], t)
        yield null

    def _setup(self) -> Iterator[Metric]:
        m = self._metrics
        yield _gauge("engine_fallback", "1 if the ONNX file runs in the plan's stead", m.fallback)
        yield _gauge("false_alarm_rate_hertz", "The operator's --far", m.far_hz)
        text = "Unix time of the calibration"
        yield _gauge("reference_created_timestamp_seconds", text, m.reference_created_s)
        yield InfoMetricFamily(f"{_PREFIX}build", "Version, engine and reference", m.build)
        text = "What windows are compared with"
        yield InfoMetricFamily(f"{_PREFIX}reference", text, m.reference)
        if m.gpu_memory is not None:
            used, total = m.gpu_memory()
            yield _gauge("gpu_memory_used_bytes", "Memory of the GPU in use, by anyone", used)
            yield _gauge("gpu_memory_total_bytes", "Memory of the GPU", total)


def _threshold_z(result: WindowResult | None) -> float:
    return z_score(result.threshold_p) if result is not None else 0.0


def _counter(name: str, text: str, values: _Values, label: str = "") -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=[label] if label else [])
    return _filled(family, values)


def _gauge(name: str, text: str, values: _Values, label: str = "") -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=[label] if label else [])
    return _filled(family, values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: _Values) -> Metric:
    if isinstance(values, Mapping):
        for key, value in values.items():
            family.add_metric([key], float(value))
    else:
        family.add_metric([], float(values))
    return family
