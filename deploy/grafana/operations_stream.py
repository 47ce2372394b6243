"""What comes in: rates by source, what is lost, and latency."""

from deploy.grafana.spec import (
    BLUE,
    GREEN,
    INSTANCE,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
)

__all__ = ["LATENCY", "NOW", "STREAM"]

_REFUSED = f"nplm_stream_rejected_messages_total{{{INSTANCE}}}"


def _rate(metric: str) -> str:
    """Return the rate of a counter."""
    return f"rate(nplm_stream_{metric}{{{INSTANCE}}}[$__rate_interval])"


NOW = Row(
    "Now",
    [
        Panel(
            "Consumer",
            "Whether Prometheus can scrape it.",
            [Query(f"up{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "none", 4),
            steps=[(0, RED), (1, GREEN)],
            words=[(0, "down"), (1, "up")],
        ),
        Panel(
            "Events",
            "Events embedded per second, over one minute.",
            [Query(f"instance:nplm_stream_events:rate1m{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "hertz", 4),
            steps=[(0, BLUE)],
        ),
        Panel(
            "Since the last event",
            "NplmStreamNoEvents fires after a minute.",
            [Query(f"instance:nplm_stream_last_event_age:seconds{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "s", 4),
            steps=[(0, GREEN), (15, ORANGE), (60, RED)],
        ),
        Panel(
            "Since the last window",
            "Age of the last window that was closed and tested.",
            [Query(f"instance:nplm_stream_last_window_age:seconds{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "s", 4),
            steps=[(0, BLUE)],
        ),
        Panel(
            "Saturation of the tests",
            "Share of five minutes that tests took, confirmations of alarms with them. "
            "Near 100 % windows will be skipped.",
            [Query(f"instance:nplm_stream_testing:ratio_rate5m{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "percentunit", 4),
            steps=[(0, GREEN), (0.7, ORANGE), (0.95, RED)],
        ),
        Panel(
            "Engine",
            "Whether the compiled plan runs, or the ONNX file in its stead.",
            [Query(f"nplm_stream_engine_fallback{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "none", 4),
            steps=[(0, GREEN), (1, ORANGE)],
            words=[(0, "as asked"), (1, "ONNX fallback")],
        ),
    ],
)

STREAM = Row(
    "Stream",
    [
        Panel(
            "Events by source",
            "Events per second of each source, stacked; beyond 100 sources the rest is `other`.",
            [
                Query(
                    f"instance_source:nplm_stream_events:rate1m{{{INSTANCE}}}",
                    "{{source}}",
                )
            ],
            unit="hertz",
            stacked=True,
            floor=0,
        ),
        Panel(
            "Messages",
            "Messages per second: accepted, missing by sequence number, refused.",
            [
                Query(_rate("messages_total"), "accepted", colour=BLUE),
                Query(_rate("missing_messages_total"), "missing", colour=ORANGE),
                Query(
                    f"sum without (reason) ({_rate('rejected_messages_total')})",
                    "refused",
                    colour=RED,
                ),
            ],
            unit="cps",
            floor=0,
        ),
        Panel(
            "Refused messages by reason",
            "Messages refused since the start; the log names the source.",
            [
                Query(
                    f"{_REFUSED} > 0 or label_replace("
                    f'sum without (reason) ({_REFUSED}) == 0, "reason", "none", "", "")',
                    "{{reason}}",
                    "step",
                )
            ],
            unit="none",
            floor=0,
        ),
    ],
)

LATENCY = Row(
    "Latency",
    [
        Panel(
            "Latency: production to embedding",
            "Messages per second by latency. Two bands are two kinds of producers; a band that "
            "climbs is a queue that grows.",
            [
                Query(
                    f"sum by (le) ({_rate('event_latency_seconds_bucket')})",
                    "{{le}}",
                )
            ],
            *("heatmap", "s", 12),
        ),
        Panel(
            "Latency quantiles and budget",
            "Of event latency over one minute; the dashed line is the budget for 99 %.",
            [
                Query(
                    f"instance_quantile:nplm_stream_event_latency_seconds:rate1m{{{INSTANCE}}}",
                    "quantile {{quantile}}",
                ),
                Query("nplm_stream:latency_budget:seconds", "budget", "dashed", RED),
            ],
            unit="s",
            span=12,
            log=True,
        ),
        Panel(
            "Where the time goes, 99 % of messages",
            "wire: production to reception; decode: to checked events; wait: for the micro-batch; "
            "embed: the encoder; window: placed in a window.",
            [
                Query(
                    "instance_stage_quantile:nplm_stream_stage_seconds:rate1m"
                    f'{{{INSTANCE},quantile="0.99"}}',
                    "{{stage}}",
                )
            ],
            unit="s",
            span=12,
            log=True,
        ),
        Panel(
            "Mean time by stage",
            "Stacked: the stages up to the embedding add up to the mean latency.",
            [
                Query(
                    f"{_rate('stage_seconds_sum')} / {_rate('stage_seconds_count')}",
                    "{{stage}}",
                )
            ],
            unit="s",
            span=12,
            stacked=True,
            floor=0,
        ),
    ],
)
