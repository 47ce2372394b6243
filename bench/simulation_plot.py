"""The picture of an agreement: simulated over reference, distribution by distribution."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.simulation_agreement import Comparison, ProcessComparison
from engines.errors import ArtifactError

__all__ = ["draw_comparison"]

_INK, _SHAPE, _BAND, _BAD = "#2563eb", "#9ca3af", "#6b7280", "#dc2626"
_DPI = 80
_LIMITS = (0.5, 1.5)


def draw_comparison(compared: Sequence[ProcessComparison], output: Path) -> None:
    """Draw a row for each process and a column for each distribution.

    Args:
        compared: of `compare_processes`.
        output: the file; its suffix chooses the format.

    Raises:
        ArtifactError: if it cannot be written.
    """
    n_columns = len(compared[0].comparisons)
    size = (1.9 * n_columns, 1.5 * len(compared) + 0.6)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        every = figure.subplots(len(compared), n_columns, squeeze=False)
        for process, row in zip(compared, every, strict=True):
            for comparison, axes in zip(process.comparisons, row, strict=True):
                _draw_panel(axes, comparison)
            row[0].set_ylabel(f"{process.name}\n{process.n_simulated:,} events")
        for comparison, axes in zip(compared[-1].comparisons, every[-1], strict=True):
            axes.set_xlabel(comparison.of.text)
        figure.suptitle(
            "simulated / reference with statistical errors (grey: shape of the reference; p: of "
            "chi-square)",
            fontsize=9,
        )
        try:
            figure.savefig(output, dpi=_DPI)
        except OSError as exc:
            msg = f"cannot write the picture {output} ({exc}); choose a writable folder"
            raise ArtifactError(msg) from exc


def _draw_panel(axes: Axes, comparison: Comparison) -> None:
    edges = comparison.of.edges
    used, (ratio, error) = comparison.used, comparison.ratio
    low, high = _LIMITS
    density = comparison.reference / np.diff(edges)
    height = low + 0.9 * (high - low) * density / max(float(density.max()), 1e-12)
    axes.stairs(height, edges, baseline=low, fill=True, color=_SHAPE, alpha=0.25, linewidth=0)
    axes.axhline(1.0, color=_BAND, linewidth=0.8)
    centres = 0.5 * (edges[1:] + edges[:-1])
    axes.errorbar(
        centres[used],
        ratio[used],
        yerr=error[used],
        fmt=".",
        color=_INK,
        markersize=2.5,
        linewidth=0.7,
    )
    if comparison.of.ticks:
        axes.set_xscale("log")
        axes.set_xticks(comparison.of.ticks, [f"{tick:g}" for tick in comparison.of.ticks])
        axes.minorticks_off()
    if used.any():
        shown = np.flatnonzero(used)
        axes.set_xlim(edges[shown[0]], edges[shown[-1] + 1])
    axes.set_ylim(*_LIMITS)
    axes.tick_params(labelsize=7)
    text = f"p = {comparison.p_text}" if comparison.chi2[1] else comparison.p_text
    colour = _BAD if comparison.p_value < 0.01 else _BAND
    axes.set_title(text, fontsize=7, loc="right", pad=1.5, color=colour)
