"""The consumer's Prometheus metrics, on a registry passed in."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from stream.durations import BUCKETS_S, DurationHistogram
from stream.message import REASONS
from stream.stages import LATENCY, STAGES, Stages
from stream.window_result import WindowResult

__all__ = ["OUTCOMES", "Metrics"]

OUTCOMES = ("tested", "skipped", "failed", "empty")


class Metrics:
    """Every metric of the consumer; names start with `nplm_stream_`, units are base units.

    Args:
        registry: where they are registered; injected, so that tests have one each.
        stages: where the time of messages is kept; its own if None.
    """

    def __init__(self, registry: CollectorRegistry, stages: Stages | None = None) -> None:
        """Register everything, so that each series exists from the start."""
        self.registry, self.stages = registry, stages or Stages()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nplm_stream_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"nplm_stream_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(
                f"nplm_stream_{name}_seconds", text, buckets=BUCKETS_S, registry=registry
            )

        self.events = counter("events", "Events embedded")
        self.messages = counter("messages", "Messages accepted")
        self.rejected = counter("rejected_messages", "Messages refused, by reason", "reason")
        self.missing = counter("missing_messages", "Messages missing by sequence number")
        self.embedding = seconds("embedding", "Time to embed one micro-batch")
        self.features = seconds("features", "Time to compute one micro-batch's features")
        for name, text, label, kinds in (
            ("event_latency", "Production (t_ns) to embedding, once a message", "", [LATENCY]),
            ("stage", "What a message's time went into", "stage", STAGES),
        ):
            full_name, durations = f"nplm_stream_{name}_seconds", self.stages.durations
            registry.register(DurationHistogram(full_name, text, durations, label, kinds))
        self.fill = gauge("window_fill_events", "Events in the open window")
        self.fill_ratio = gauge("window_fill_ratio", "Open window's events over those expected")
        self.waiting = gauge("windows_waiting", "Windows that wait for their test")
        self.windows = counter("windows", "Windows closed, by outcome", "outcome")
        self.test = seconds("test", "Time of one NPLM test")
        self.t = gauge("window_t", "Test statistic of the last window", "scale")
        self.p = gauge("window_p_value", "Empirical p-value of the last window", "scale")
        self.z = gauge("window_z_score", "Z of the empirical p-value", "scale")
        self.p_chi2 = gauge("window_chi2_p_value", "Chi-square p-value of the last one", "scale")
        self.z_chi2 = gauge("window_chi2_z_score", "Z of the chi-square p-value", "scale")
        self.p_alarm = gauge("window_alarm_p_value", "The p-value that alarms", "scale")
        self.z_alarm = gauge("window_alarm_z_score", "Z of the p-value that alarms", "scale")
        self.inverse_far = gauge("window_inverse_far_seconds", "Inverse FAR", "scale")
        self.z_global = gauge("run_global_z_score", "Z of the run, with its trials", "scale")
        self.alarms = counter("alarms", "Windows that alarmed", "scale")
        self.unconverged = counter("unconverged_tests", "Tests whose fit did not converge")
        self.merged = counter("merged_windows", "Windows of longer scales, tested", "scale")
        self.broken = counter("broken_runs", "Longer windows given up before complete", "scale")
        self.relabelling = seconds("relabelling", "Time to confirm one alarm by relabelling")
        self.p_relabelled = gauge("alarm_relabelled_p_value", "Of the last one confirmed, or 1")
        self.fallback = gauge("engine_fallback", "1 if the ONNX file runs in the plan's stead")
        self.build = Info("nplm_stream_build", "Version, engine and reference", registry=registry)
        self.p_relabelled.set(1.0)
        for reason in REASONS:
            self.rejected.labels(reason)
        for outcome in OUTCOMES:
            self.windows.labels(outcome)
        self._open_scale(1)

    def open_scales(self, scales: Iterable[int]) -> None:
        """Let the series of these longer time scales exist before their first window."""
        for scale in scales:
            self._open_scale(scale)
            self.merged.labels(str(scale))
            self.broken.labels(str(scale))

    def _open_scale(self, scale: int) -> None:
        for metric in (self.t, self.p, self.z, self.p_chi2, self.z_chi2, self.p_alarm,
                       self.z_alarm, self.inverse_far, self.z_global, self.alarms):  # fmt: skip
            metric.labels(str(scale))

    def observe_result(self, result: WindowResult) -> None:
        """Show a tested window."""
        scale = str(result.scale)
        if result.scale == 1:
            self.windows.labels("tested").inc()
        else:
            self.merged.labels(scale).inc()
        self.test.observe(result.test_s)
        self.unconverged.inc(result.converged is False)
        self.alarms.labels(scale).inc(result.alarm)
        for gauge, value in (
            (self.t, result.t),
            (self.p, result.p),
            (self.z, result.z),
            (self.p_chi2, result.p_chi2),
            (self.z_chi2, result.z_chi2),
            (self.p_alarm, result.p_alarm),
            (self.z_alarm, result.z_alarm),
            (self.inverse_far, result.inverse_far_s),
            (self.z_global, result.z_global),
        ):
            gauge.labels(scale).set(value)
        if result.p_relabelled is not None:
            self.relabelling.observe(result.relabel_s)
            self.p_relabelled.set(result.p_relabelled)
