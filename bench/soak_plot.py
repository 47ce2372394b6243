"""The picture of a long run: memory, latency, descriptors and what was counted, over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engines.errors import ArtifactError
from engines.types import Float64Array

__all__ = ["draw_soak"]

_BLUE, _GREEN, _AMBER, _RED, _VIOLET = "#2563eb", "#059669", "#d97706", "#dc2626", "#7c3aed"
_LOST = {"missing": _RED, "rejected": _AMBER, "duplicates": _GREEN, "resets": _BLUE}
_MINUTE_S, _MB, _DPI = 60.0, 1e6, 130


def draw_soak(results: Mapping[str, Any], warm_up_s: float, path: Path) -> None:
    """Draw what `bench.soak_run.soak` returned.

    Args:
        results: of the run.
        warm_up_s: seconds before which the slope was not fitted.
        path: the picture to write.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    curves = {key: np.array(values) for key, values in results["curves"].items()}
    minutes = curves["t_s"] / _MINUTE_S
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        _draw_memory(panels[0, 0], minutes, curves, results["resident"], warm_up_s)
        _draw_latency(panels[0, 1], minutes, curves)
        _draw_process(panels[1, 0], minutes, curves)
        _draw_counts(panels[1, 1], minutes, curves)
        for axes in panels[1]:
            axes.set_xlabel("minutes")
        for axes in panels.flat:
            axes.grid(alpha=0.25)
        figure.suptitle(f"{results['rate_hz']:,.0f} events/s for {minutes[-1]:.2g} minutes")
    try:
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as exc:
        msg = f"cannot write {path} ({exc}); choose a folder that is writable, and .png or .pdf"
        raise ArtifactError(msg) from exc


def _draw_memory(
    axes: Axes,
    minutes: Float64Array,
    curves: Mapping[str, Any],
    found: Mapping[str, Any],
    warm_up_s: float,
) -> None:
    axes.plot(minutes, curves["resident_bytes"] / _MB, color=_BLUE, label="resident memory")
    if found["line"] is not None:
        times_s = curves["t_s"][curves["t_s"] >= warm_up_s]
        line = found["line"]["at_zero"] + found["line"]["per_s"] * times_s
        slope, error = found["slope_mb_per_hour"], found["slope_error_mb_per_hour"]
        label = f"{slope:+.1f} ± {error:.1f} MB an hour"
        axes.plot(times_s / _MINUTE_S, line, color=_RED, linestyle="--", label=label)
    axes.set(ylabel="MB", ylim=(0, 1.15 * curves["resident_bytes"].max() / _MB))
    axes.legend(frameon=False, loc="lower right")


def _draw_latency(axes: Axes, minutes: Float64Array, curves: Mapping[str, Any]) -> None:
    for name, colour in (("p50_s", _BLUE), ("p99_s", _AMBER)):
        seen = curves[name] > 0
        axes.plot(minutes[seen], 1e3 * curves[name][seen], color=colour, label=name[:-2])
    axes.set(ylabel="production to embedding, ms", yscale="log")
    axes.legend(frameon=False, loc="upper right")


def _draw_process(axes: Axes, minutes: Float64Array, curves: Mapping[str, Any]) -> None:
    axes.plot(minutes, curves["descriptors"], color=_BLUE, label="file descriptors")
    axes.plot(minutes, curves["threads"], color=_GREEN, label="threads")
    axes.plot(minutes, 10 * curves["cpu_cores"], color=_VIOLET, label="CPU, tenths of a core")
    axes.set(ylabel="number", ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")


def _draw_counts(axes: Axes, minutes: Float64Array, curves: Mapping[str, Any]) -> None:
    for name, colour in _LOST.items():
        axes.plot(minutes, curves[name], color=colour, label=name)
    windows = curves["tested"] + curves["skipped"]
    share = 100 * curves["skipped"] / np.maximum(windows, 1)
    axes.plot(minutes, share, color=_VIOLET, linestyle=":", label="windows skipped, %")
    axes.set(ylabel="since the start", ylim=(-0.5, max(10.0, axes.get_ylim()[1])))
    axes.legend(frameon=False, loc="upper left")
