"""The picture of a scan: Z per window, t beside its null, whether p-values are uniform."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from engines.errors import ArtifactError
from engines.nplm import NullDistribution
from engines.null_plot import draw_density
from stream.report import ALARM_COLOUR, draw_significance
from stream.scanning.journal import Line
from stream.scanning.table import Resampled

__all__ = ["draw_scan", "scan_figure"]

_INK, _GREY = "#2563eb", "#6b7280"
_DPI = 130
#: Windows that a histogram says something about.
_MANY = 100
#: Spreads of the null; t beyond is counted, not drawn.
_FARTHEST = 15.0
#: Room above the points, as a share of their range.
_LEGEND = 0.3


def draw_scan(
    lines: Sequence[Line], null: NullDistribution, resampled: Resampled | None, output: Path
) -> None:
    """Write the picture of `scan_figure`.

    Raises:
        ArtifactError: if it cannot be written.
    """
    figure = scan_figure(lines, null, resampled)
    try:
        figure.savefig(output, dpi=_DPI)
    except OSError as exc:
        msg = f"cannot write the picture {output} ({exc}); choose a writable folder"
        raise ArtifactError(msg) from exc


def scan_figure(
    lines: Sequence[Line], null: NullDistribution, resampled: Resampled | None = None
) -> Figure:
    """Return the three panels.

    Args:
        lines: of windows; those of longer scales are left out.
        null: of the first kernel width.
        resampled: mean and spread are drawn beside Z, if given.
    """
    lines = [{**line, "n_injected": 0} for line in lines if line["scale"] == 1]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(14, 4.4), layout="constrained")
        significance, density, uniformity = figure.subplots(1, 3, width_ratios=(1.6, 1.1, 1.0))
        draw_significance(significance, lines)
        if resampled is not None:
            _draw_resampled(significance, resampled)
        low, high = significance.get_ylim()
        significance.set_ylim(low, high + _LEGEND * (high - low))
        significance.xaxis.set_major_locator(MaxNLocator(integer=True))
        _draw_t(density, lines, null)
        _draw_uniformity(uniformity, lines)
    return figure


def _draw_resampled(axes: Axes, resampled: Resampled) -> None:
    mean, std = np.array(resampled.z()).T
    axes.errorbar(
        np.arange(len(mean)) + 0.25,
        mean,
        std,
        fmt=".",
        color=_GREY,
        elinewidth=1,
        label=f"{len(resampled.p)} references drawn anew",
    )
    axes.legend(loc="upper left", frameon=False)


def _draw_t(axes: Axes, lines: Sequence[Line], null: NullDistribution) -> None:
    """Draw the windows' t: a mark each, and where they are many, a histogram beside the toys'."""
    draw_density(axes, null)
    t = np.array([line["t_by_width"][0] for line in lines])
    alarm = np.array([line["alarm"] for line in lines])
    if len(t) >= _MANY:
        edges = np.histogram_bin_edges(null.t, bins="rice")
        step = edges[1] - edges[0]
        edges = np.arange(min(edges[0], t.min()), t.max() + step, step)
        counts = np.histogram(t, edges)[0] * len(null.t) / len(t)
        label = f"{len(t)} windows, scaled"
        axes.stairs(counts, edges, color=ALARM_COLOUR, linewidth=1.2, label=label)
    right = min(max(t.max(), axes.get_xlim()[1]), null.mean + _FARTHEST * null.std)
    axes.set_xlim(min(t.min(), axes.get_xlim()[0]), right + 0.02 * null.std)
    for of_alarm, colour, label in ((False, _INK, "a window"), (True, ALARM_COLOUR, "an alarm")):
        shown = t[alarm == of_alarm]
        if len(shown):
            n_beyond = np.count_nonzero(shown > right)
            beyond = f" ({n_beyond} of {len(shown)} beyond)" if n_beyond else ""
            (marks,) = axes.plot(shown, np.full(len(shown), 0.03), "|", color=colour)
            marks.set(markersize=14, transform=axes.get_xaxis_transform(), label=label + beyond)
    axes.set_xlabel("t")
    axes.set_title("t of the windows and of the toys")
    axes.legend(frameon=False, fontsize=8)


def _draw_uniformity(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw sorted p-values against those of as many uniform ones, with their 95 % band."""
    n = len(lines)
    rank = np.arange(1, n + 1)
    expected = rank / (n + 1)
    low, high = (stats.beta.ppf(level, rank, n + 1 - rank) for level in (0.025, 0.975))
    axes.fill_between(expected, low, high, color=_GREY, alpha=0.2, lw=0, label="95 %, independent")
    axes.plot(expected, expected, color=_GREY, linewidth=1)
    p_alarm = np.sort([line["p_alarm"] for line in lines])
    axes.plot(expected, p_alarm, ".", color=ALARM_COLOUR, label="p that alarms")
    axes.plot(expected, np.sort([line["p"] for line in lines]), ".", color=_INK, label="p of toys")
    axes.set(xscale="log", yscale="log", xlabel="expected p", ylabel="p")
    axes.set_title("Are the windows' p-values uniform?")
    axes.legend(frameon=False, loc="lower right")
