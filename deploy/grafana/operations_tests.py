"""What is made of it: windows, tests, queues, faults, and the process."""

from deploy.grafana.spec import (
    BLUE,
    GREEN,
    INSTANCE,
    RED,
    Panel,
    Query,
    Row,
)

__all__ = ["FAULTS", "PROCESS", "TESTS"]


def _rate(metric: str) -> str:
    """Return the rate of a counter."""
    return f"rate(nplm_stream_{metric}{{{INSTANCE}}}[$__rate_interval])"


TESTS = Row(
    "Windows and tests",
    [
        Panel(
            "Windows by outcome",
            "Windows per second over five minutes. Only tested is good; empty ones held no event.",
            [
                Query(
                    f"instance_outcome:nplm_stream_windows:rate5m{{{INSTANCE}}}",
                    "{{outcome}}",
                )
            ],
            unit="cps",
            floor=0,
        ),
        Panel(
            "Saturation",
            "Share of five minutes that tests took, confirmations of alarms with them: near 100 % "
            "they fall behind. And duration of the last test over the spacing of its window, which "
            "a burst of events takes above 100 % for a while.",
            [
                Query(
                    f"nplm_stream_test_saturation_ratio{{{INSTANCE}}}",
                    "last window, {{instance}}",
                    "points",
                ),
                Query(
                    f"instance:nplm_stream_testing:ratio_rate5m{{{INSTANCE}}}",
                    "testing, share of 5 min, {{instance}}",
                    colour=BLUE,
                ),
            ],
            unit="percentunit",
            steps=[(0, GREEN), (1, RED)],
            floor=0,
        ),
        Panel(
            "Duration of tests, features and micro-batches",
            "Quantiles of the NPLM test over five minutes; means of the others.",
            [
                Query(
                    f"instance_quantile:nplm_stream_test_seconds:rate5m{{{INSTANCE}}}",
                    "test, quantile {{quantile}}",
                ),
                Query(
                    f"{_rate('features_seconds_sum')} / {_rate('features_seconds_count')}",
                    "features, mean",
                ),
                Query(
                    f"{_rate('embedding_seconds_sum')} / {_rate('embedding_seconds_count')}",
                    "embedding, mean",
                ),
            ],
            unit="s",
            log=True,
        ),
        Panel(
            "Queues",
            "Windows that wait for their test, micro-batches for their features, alarms for their "
            "notification.",
            [Query(f"nplm_stream_queue_length{{{INSTANCE}}}", "{{queue}}")],
            unit="none",
            floor=0,
        ),
        Panel(
            "Queues over capacity",
            "Where it reaches 100 %, windows are skipped or notifications dropped.",
            [Query(f"instance_queue:nplm_stream_queue_fill:ratio{{{INSTANCE}}}", "{{queue}}")],
            unit="percentunit",
            steps=[(0, GREEN), (0.8, RED)],
            floor=0,
        ),
        Panel(
            "Fill of the open window",
            "Events over those expected in a window. A time window that ends far from 1 says that "
            "the rate has changed.",
            [Query(f"nplm_stream_window_fill_ratio{{{INSTANCE}}}", "{{instance}}")],
            unit="percentunit",
            floor=0,
        ),
    ],
)

FAULTS = Row(
    "Faults",
    [
        Panel(
            "Faults since the start",
            "Each of these should stay at 0.",
            [
                Query(
                    f'nplm_stream_windows_total{{{INSTANCE},outcome=~"skipped|failed"}}',
                    "windows {{outcome}}",
                    "step",
                ),
                Query(
                    f"nplm_stream_unconverged_tests_total{{{INSTANCE}}}",
                    "fits not converged",
                    "step",
                ),
                Query(
                    f'nplm_stream_alarm_records_total{{{INSTANCE},outcome="failed"}}',
                    "alarm records not kept",
                    "step",
                ),
                Query(
                    f'nplm_stream_notifications_total{{{INSTANCE},outcome!="delivered"}}',
                    "notifications {{outcome}}",
                    "step",
                ),
                Query(f"nplm_stream_clock_jumps_total{{{INSTANCE}}}", "clock jumps", "step"),
            ],
            unit="none",
            floor=0,
        ),
        Panel(
            "Lost shares",
            "Messages refused and missing, windows skipped, over five minutes.",
            [
                Query(
                    f"instance:nplm_stream_rejected_messages:ratio_rate5m{{{INSTANCE}}}",
                    "refused messages",
                ),
                Query(
                    f"instance:nplm_stream_missing_messages:ratio_rate5m{{{INSTANCE}}}",
                    "missing messages",
                ),
                Query(
                    f"instance:nplm_stream_skipped_windows:ratio_rate5m{{{INSTANCE}}}",
                    "skipped windows",
                ),
            ],
            unit="percentunit",
            floor=0,
        ),
        Panel(
            "Firing alerts",
            "Alerts of the rules in deploy/prometheus/rules; 0 where all is well.",
            [
                Query(
                    'count by (alertname) (ALERTS{alertname=~"NplmStream.*",alertstate="firing"})'
                    ' or label_replace(vector(0), "alertname", "none", "", "")',
                    "{{alertname}}",
                    "step",
                )
            ],
            unit="none",
            floor=0,
        ),
    ],
)

PROCESS = Row(
    "Process",
    [
        Panel(
            "Memory",
            "Resident memory of the consumer.",
            [Query(f"process_resident_memory_bytes{{{INSTANCE}}}", "{{instance}}")],
            *("lines", "bytes", 6),
            floor=0,
        ),
        Panel(
            "CPU",
            "Cores in use; the stream, the features and the test have threads of their own.",
            [
                Query(
                    f"rate(process_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval])",
                    "{{instance}}",
                )
            ],
            *("lines", "none", 6),
            floor=0,
        ),
        Panel(
            "Open files",
            "File descriptors: sockets, results, alarm records.",
            [Query(f"process_open_fds{{{INSTANCE}}}", "{{instance}}")],
            *("lines", "none", 6),
            floor=0,
        ),
        Panel(
            "GPU memory",
            "In use and in all; empty where the consumer runs on a CPU.",
            [
                Query(f"nplm_stream_gpu_memory_used_bytes{{{INSTANCE}}}", "used, {{instance}}"),
                Query(
                    f"nplm_stream_gpu_memory_total_bytes{{{INSTANCE}}}",
                    "total, {{instance}}",
                    "dashed",
                ),
            ],
            *("lines", "bytes", 6),
            floor=0,
            needs_gpu=True,
        ),
    ],
)
