"""The dashboard for physicists: what the test says of the data, and whether to believe it."""

from deploy.grafana.spec import (
    BLUE,
    GREEN,
    GREY,
    INSTANCE,
    ORANGE,
    RED,
    SCALE,
    Dashboard,
    Panel,
    Query,
    Row,
)

__all__ = ["PHYSICS"]


def _last(metric: str) -> str:
    """Return a gauge of the last window, from the first window on."""
    tested = f"nplm_stream_trials_total{{{SCALE}}} > 0"
    return f"{metric}{{{SCALE}}} and on (job, instance, scale) {tested}"


def _alarming(metric: str) -> Query:
    """Return a gauge of the last window over the threshold, for a step and two scrapes after it.

    At any step of the picture the window is at one point or two: never at none, as it would be if
    it were shown for a fixed time and steps were longer.
    """
    tested_s = f"nplm_stream_last_alarming_window_timestamp_seconds{{{SCALE}}}"
    age_s = f"time() - last_over_time({tested_s}[$__rate_interval])"
    expr = (
        f"last_over_time({metric}{{{SCALE}}}[$__rate_interval])"
        f" and on (job, instance, scale) {age_s} < $__interval_ms / 1000 + 12"
    )
    return Query(expr, "over the threshold, scale {{scale}}", "dots", RED)


_LAST = (
    "The last window of each time scale at each step of the picture; --results has every window. "
    "Red dots are windows over the threshold, at any range of time; of several in one step, the "
    "last."
)

_NOW = Row(
    "Now",
    [
        Panel(
            "Z of the last window",
            "Significance of the last window by the p-value that alarms. Red at or above 5.",
            [Query(_last("nplm_stream_window_alarm_z_score"), "scale {{scale}}")],
            *("stat", "none", 4),
            steps=[(0, GREEN), (3, ORANGE), (5, RED)],
            decimals=2,
        ),
        Panel(
            "Inverse FAR of the last window",
            "How long background alone streams, on average, until a window looks like this one.",
            [Query(_last("nplm_stream_window_inverse_far_seconds"), "scale {{scale}}")],
            *("stat", "s", 4),
            steps=[(0, BLUE)],
        ),
        Panel(
            "Alarms",
            "Alarms since the consumer started; adjacent windows of one alarm count once.",
            [Query(f"nplm_stream_alarms_total{{{SCALE}}}", "scale {{scale}}")],
            *("stat", "none", 4),
            steps=[(0, GREEN), (1, RED)],
            words=[(0, "none")],
        ),
        Panel(
            "False alarms promised",
            "Expected by chance since the start: the operator's rate times the time so far.",
            [
                Query(
                    f"instance:nplm_stream_expected_false_alarms:sum{{{INSTANCE}}}",
                    "{{instance}}",
                )
            ],
            *("stat", "none", 4),
            steps=[(0, BLUE)],
        ),
        Panel(
            "Z of the run",
            "Of the smallest p so far, corrected for its trials (Sidak, within a time scale).",
            [Query(_last("nplm_stream_run_global_z_score"), "scale {{scale}}")],
            *("stat", "none", 4),
            steps=[(0, GREEN), (3, ORANGE), (5, RED)],
            decimals=2,
        ),
        Panel(
            "Relabelled p of the last alarm",
            "Share of random relabellings of window and reference events with a t as large; "
            "1 before any alarm was confirmed. It needs no asymptotic law, and cannot be below "
            "1 / (relabellings + 1).",
            [Query(f"nplm_stream_alarm_relabelled_p_value{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "none", 4),
            steps=[(0, RED), (0.05, ORANGE), (0.5, GREEN)],
        ),
    ],
)

_SIGNIFICANCE = Row(
    "Significance",
    [
        Panel(
            "Z per window and the alarm threshold",
            f"{_LAST} A window at or above the dashed line alarms.",
            [
                Query(_last("nplm_stream_window_alarm_z_score"), "Z, scale {{scale}}", "points"),
                Query(
                    _last("nplm_stream_window_threshold_z_score"),
                    "alarm threshold, scale {{scale}}",
                    *("dashed", RED),
                ),
                _alarming("nplm_stream_alarming_window_z_score"),
            ],
            unit="none",
            span=12,
        ),
        Panel(
            "Inverse false-alarm rate per window",
            f"{_LAST} The dashed line is the operator's budget: a window that is rarer alarms.",
            [
                Query(
                    _last("nplm_stream_window_inverse_far_seconds"),
                    "1 / FAR, scale {{scale}}",
                    "points",
                ),
                Query(
                    f"1 / nplm_stream_false_alarm_rate_hertz{{{INSTANCE}}}",
                    "1 / budget",
                    *("dashed", RED),
                ),
                _alarming("nplm_stream_alarming_window_inverse_far_seconds"),
            ],
            unit="s",
            span=12,
            log=True,
        ),
        Panel(
            "Observed t and its null",
            f"{_LAST} The grey lines are quantiles of t over the toys of the calibration: half of "
            "all background windows lie above the first, one in a hundred above the last. "
            "With several kernel widths they are those of the first.",
            [
                Query(_last("nplm_stream_window_t"), "t, scale {{scale}}", "points"),
                Query(
                    f"nplm_stream_null_t{{{SCALE}}}",
                    "null {{level}}, scale {{scale}}",
                    *("dashed", GREY),
                ),
                _alarming("nplm_stream_alarming_window_t"),
            ],
            unit="none",
            span=12,
        ),
        Panel(
            "p-values of the last window",
            "Of the toys alone (they cannot resolve less than about one over their number), of the "
            "chi-square law fitted to them, and the one that alarms.",
            [
                Query(_last("nplm_stream_window_p_value"), "toys, scale {{scale}}", "points"),
                Query(
                    _last("nplm_stream_window_chi2_p_value"),
                    "chi-square, scale {{scale}}",
                    "points",
                ),
                Query(
                    _last("nplm_stream_window_alarm_p_value"),
                    "alarms, scale {{scale}}",
                    "line",
                ),
            ],
            unit="none",
            span=12,
            log=True,
            ceiling=1,
        ),
    ],
)

_RUN = Row(
    "The run",
    [
        Panel(
            "Event yield",
            "Events embedded per second, over one minute. Compare with the expected rate before "
            "believing a window: a change of trigger or prescale changes the sample.",
            [Query(f"instance:nplm_stream_events:rate1m{{{INSTANCE}}}", "{{instance}}")],
            unit="hertz",
            floor=0,
        ),
        Panel(
            "Alarms against promised false alarms",
            "Alarms of all time scales since the start, and how many chance promises. More than "
            "the promise is a signal, or a reference that no longer describes the background.",
            [
                Query(
                    f"instance:nplm_stream_alarms:sum{{{INSTANCE}}}",
                    "alarms, {{instance}}",
                    *("step", RED),
                ),
                Query(
                    f"sum without (scale) (nplm_stream_alarming_windows_total{{{INSTANCE}}})",
                    "windows over the threshold, {{instance}}",
                    *("step", ORANGE),
                ),
                Query(
                    f"nplm_stream_discoveries_total{{{INSTANCE}}}",
                    "discoveries (FDR), {{instance}}",
                    *("step", GREEN),
                ),
                Query(
                    f"instance:nplm_stream_expected_false_alarms:sum{{{INSTANCE}}}",
                    "promised, {{instance}}",
                    *("dashed", GREY),
                ),
            ],
            unit="none",
            floor=0,
        ),
        Panel(
            "Trials and Z of the run",
            "Windows tested so far, by time scale; the run's Z is corrected for them.",
            [
                Query(f"nplm_stream_trials_total{{{SCALE}}}", "trials, scale {{scale}}", "step"),
                Query(
                    _last("nplm_stream_run_global_z_score"),
                    "Z of the run, scale {{scale}}",
                    *("dashed", RED),
                ),
            ],
            unit="none",
        ),
    ],
)

_REFERENCE = Row(
    "Reference and engine",
    [
        Panel(
            "Reference",
            "What windows are compared with: fingerprint, window, sample size and toys.",
            [Query(f"nplm_stream_reference_info{{{INSTANCE}}}")],
            *("table", "none", 14),
        ),
        Panel(
            "Age of the reference",
            "Since its calibration. Detector and beam conditions drift; NplmStreamReferenceOld "
            "fires beyond the limit of the recording rules (30 days).",
            [Query(f"instance:nplm_stream_reference_age:seconds{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "s", 4),
            steps=[(0, GREEN), (30 * 86_400, ORANGE)],
        ),
        Panel(
            "Fits that did not converge",
            "Windows whose t is too small because the fit stopped early; should be 0.",
            [Query(f"nplm_stream_unconverged_tests_total{{{INSTANCE}}}", "{{instance}}")],
            *("stat", "none", 6),
            steps=[(0, GREEN), (1, ORANGE)],
            words=[(0, "none")],
        ),
        Panel(
            "Consumer",
            "Version, encoder and runtime of each consumer.",
            [Query(f"nplm_stream_build_info{{{INSTANCE}}}")],
            *("table", "none", 24),
        ),
    ],
)

PHYSICS = Dashboard(
    uid="nplm-physics",
    title="NPLM stream: physics",
    description="Significance, false-alarm rate, null and yield of the windows, for physicists.",
    rows=[_NOW, _SIGNIFICANCE, _RUN, _REFERENCE],
    scales=True,
)
