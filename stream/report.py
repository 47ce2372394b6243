"""The demo's picture: Z per window, the embedding of an alarm, the latency of events."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from prometheus_client.parser import text_string_to_metric_families

from engines.nplm import z_score
from engines.types import AnyArray
from stream.alarm.view import principal_plane

__all__ = ["ALARM_COLOUR", "draw_report", "draw_significance", "histogram_counts"]

_INK, ALARM_COLOUR = "#2563eb", "#dc2626"
_TAILS = {
    "chi2": "chi-square fitted to the toys",
    "gamma": "gamma law fitted to the toys",
    "toys": "from the toys",
}
_LATENCY = "nplm_stream_event_latency_seconds"


def draw_report(lines: Sequence[dict[str, Any]], alarms: Path, metrics: str, output: Path) -> None:
    """Draw the three panels.

    Args:
        lines: the consumer's results, each with `n_injected`; longer time scales are left out.
        alarms: folder of the alarms' records.
        metrics: what /metrics answered.
        output: the PNG to write.
    """
    lines = [line for line in lines if line["scale"] == 1]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        significance, plane, latency = figure.subplots(1, 3, width_ratios=(1.6, 1.1, 1.0))
        draw_significance(significance, lines)
        _draw_plane(figure, plane, lines, alarms)
        _draw_latency(latency, metrics)
        figure.savefig(output, dpi=130)


def draw_significance(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    """Draw Z of every window, those that alarmed in another colour.

    Args:
        axes: where to draw.
        lines: the consumer's results, each with `n_injected`.
    """
    window = np.array([line["window"] for line in lines])
    z = np.array([line["z_alarm"] for line in lines])
    alarm = np.array([line["alarm"] for line in lines])
    axes.step(
        window,
        [z_score(line["threshold_p"]) for line in lines],
        where="mid",
        color=ALARM_COLOUR,
        linestyle="--",
        linewidth=1,
        label="alarm threshold",
    )
    axes.plot(window, z, color=_INK, linewidth=1)
    axes.scatter(window[~alarm], z[~alarm], color=_INK, zorder=3, label="window")
    axes.scatter(window[alarm], z[alarm], color=ALARM_COLOUR, zorder=3, label="alarm")
    injected = [line["window"] for line in lines if line["n_injected"]]
    if injected:
        axes.axvspan(injected[0] - 0.5, window[-1] + 0.5, color=ALARM_COLOUR, alpha=0.07, lw=0)
        mean = np.mean([line["n_injected"] for line in lines if line["n_injected"]])
        text = f"signal enters:\n{mean:.0f} of {lines[0]['n_events']} events"
        axes.text(injected[0] - 0.4, axes.get_ylim()[0], text, va="bottom", color=ALARM_COLOUR)
    axes.set(xlabel="window", ylabel=f"Z ({_TAILS[lines[0]['alarm_on']]})")
    axes.set_title("Significance per window")
    axes.legend(loc="upper left", frameon=False)


def _draw_plane(figure: Figure, axes: Axes, lines: Sequence[dict[str, Any]], alarms: Path) -> None:
    axes.set_title("Embedding of the strongest alarm")
    alarming = [line for line in lines if line["alarm"]]
    if not alarming:
        axes.text(0.5, 0.5, "no alarm", ha="center", transform=axes.transAxes)
        return
    strongest = max(alarming, key=lambda line: line["t"])
    with h5py.File(alarms / f"alarm-{strongest['run']}-{strongest['window']:06d}.h5") as file:
        embeddings, f = np.asarray(file["embeddings"]), np.asarray(file["f_window"])
    plane = principal_plane(embeddings)
    order = np.argsort(f)
    shown = axes.scatter(
        plane[order, 0], plane[order, 1], c=f[order], s=4, cmap="coolwarm", vmin=-2, vmax=2
    )
    figure.colorbar(shown, ax=axes, label="f: log density ratio, window over reference")
    axes.set(xlabel="first principal axis", ylabel="second principal axis")
    axes.set_title(f"Embedding of window {strongest['window']}")


def histogram_counts(metrics: str, name: str) -> tuple[AnyArray, AnyArray]:
    """Return upper bounds (seconds) and counts per bucket of a Prometheus histogram.

    Args:
        metrics: text of /metrics.
        name: the histogram's name, with its unit.
    """
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == f"{name}_bucket"
    ]
    bounds, cumulative = np.array(buckets).T
    return bounds, np.diff(cumulative, prepend=0.0)


def _draw_latency(axes: Axes, metrics: str) -> None:
    bounds, counts = histogram_counts(metrics, _LATENCY)
    filled = np.flatnonzero(counts)
    lowest, highest = max(filled[0] - 1, 0), min(filled[-1] + 2, len(bounds))
    labels = [f"{1e3 * bound:g}" for bound in bounds[lowest:highest]]
    axes.bar(labels, counts[lowest:highest], color=_INK, width=0.9)
    axes.tick_params(axis="x", rotation=60)
    axes.set(xlabel="up to ... ms", ylabel="messages")
    axes.set_title("Latency: production to embedding")
