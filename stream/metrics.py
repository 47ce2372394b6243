"""The consumer's Prometheus metrics, on a registry passed in."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from stream.message import REASONS
from stream.monitor import WindowResult

__all__ = ["OUTCOMES", "Metrics"]

_SECONDS = (
    *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
OUTCOMES = ("tested", "skipped", "failed", "empty")


class Metrics:
    """Every metric of the consumer; names start with `nplm_stream_`, units are base units.

    Args:
        registry: where they are registered; injected, so that tests have one each.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything, so that each series exists from the start."""
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nplm_stream_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"nplm_stream_{name}", text, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(
                f"nplm_stream_{name}_seconds", text, buckets=_SECONDS, registry=registry
            )

        self.events = counter("events", "Events embedded")
        self.messages = counter("messages", "Messages accepted")
        self.rejected = counter("rejected_messages", "Messages refused, by reason", "reason")
        self.missing = counter("missing_messages", "Messages missing by sequence number")
        self.embedding = seconds("embedding", "Time to embed one micro-batch")
        self.latency = seconds("event_latency", "Production (t_ns) to embedding, once a message")
        self.fill = gauge("window_fill_events", "Events in the open window")
        self.fill_ratio = gauge("window_fill_ratio", "Open window's events over those expected")
        self.waiting = gauge("windows_waiting", "Windows that wait for their test")
        self.windows = counter("windows", "Windows closed, by outcome", "outcome")
        self.test = seconds("test", "Time of one NPLM test")
        self.t = gauge("window_t", "Test statistic of the last window")
        self.p = gauge("window_p_value", "Empirical p-value of the last window")
        self.z = gauge("window_z_score", "Z of the empirical p-value of the last window")
        self.p_chi2 = gauge("window_chi2_p_value", "Chi-square tail p-value of the last window")
        self.z_chi2 = gauge("window_chi2_z_score", "Z of the chi-square tail of the last window")
        self.inverse_far = gauge("window_inverse_far_seconds", "Inverse FAR of the last window")
        self.z_global = gauge("run_global_z_score", "Z of the run, corrected for its trials")
        self.unconverged = counter("unconverged_tests", "Tests whose fit did not converge")
        self.alarms = counter("alarms", "Windows that alarmed")
        self.build = Info("nplm_stream_build", "Version, engine and reference", registry=registry)
        for reason in REASONS:
            self.rejected.labels(reason)
        for outcome in OUTCOMES:
            self.windows.labels(outcome)

    def observe_result(self, result: WindowResult) -> None:
        """Show a tested window."""
        self.windows.labels("tested").inc()
        self.test.observe(result.test_s)
        self.t.set(result.t)
        self.p.set(result.p)
        self.z.set(result.z)
        self.p_chi2.set(result.p_chi2)
        self.z_chi2.set(result.z_chi2)
        self.inverse_far.set(result.inverse_far_s)
        self.z_global.set(result.z_global)
        if result.alarm:
            self.alarms.inc()
