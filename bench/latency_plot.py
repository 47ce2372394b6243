"""The picture of the latencies: quantiles of every load, means by stage, CPU by part."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engines.errors import ArtifactError
from stream.stages import STAGES

__all__ = ["draw_latency"]

_TICKS = {"50 %": 0.5, "90 %": 0.9, "99 %": 0.99, "99.9 %": 0.999, "99.99 %": 0.9999}
_CPU = {"engine": "encoder", "own": "consumer", "wire": "ZeroMQ", "nplm": "NPLM"}
_COLOURS = ("#2563eb", "#059669", "#d97706", "#dc2626", "#7c3aed", "#111827")
_DPI = 130


def draw_latency(results: Mapping[str, Any], path: Path) -> None:
    """Draw what `bench.latency.measure` returned.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    points = results["points"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        curves, stages, cpu = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
        _draw_curves(curves, points)
        means = {name: [1e3 * p["stages"][name]["mean_s"] for p in points] for name in STAGES}
        _draw_stack(stages, points, means, "mean, ms")
        stages.set_title("production to window, by stage")
        seconds = {_CPU[key]: [p["cpu_s_per_million"][key] for p in points] for key in _CPU}
        _draw_stack(cpu, points, seconds, "CPU seconds per million events")
        cpu.set_title(f"{results['runtime']}")
        figure.suptitle(f"capacity {results['capacity_hz']:,.0f} events/s")
    try:
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as exc:
        msg = f"cannot write {path} ({exc}); choose a folder that is writable, and .png or .pdf"
        raise ArtifactError(msg) from exc


def _draw_curves(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    loads = sorted({point["load"] for point in points})
    for point in points:
        axes.plot(
            1 / (1 - np.array(point["curve"]["quantile"])),
            1e3 * np.array(point["curve"]["seconds"]),
            color=_COLOURS[loads.index(point["load"]) % len(_COLOURS)],
            linestyle="--" if point["testing"] else "-",
            label=_name(point),
        )
    axes.set(xscale="log", yscale="log", ylabel="production to embedding, ms", xlim=(1, None))
    axes.set_xticks([1 / (1 - q) for q in _TICKS.values()], list(_TICKS))
    axes.set_xlabel("share of events that are faster")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False)


def _draw_stack(
    axes: Axes, points: Sequence[Mapping[str, Any]], parts: Mapping[str, list[float]], label: str
) -> None:
    bottom = np.zeros(len(points))
    for (name, heights), colour in zip(parts.items(), _COLOURS, strict=False):
        axes.bar(range(len(points)), heights, bottom=bottom, label=name, color=colour, width=0.7)
        bottom += np.array(heights)
    axes.set_xticks(range(len(points)), [_name(point) for point in points], rotation=60, ha="right")
    axes.set_ylabel(label)
    axes.legend(fontsize=7, frameon=False)


def _name(point: Mapping[str, Any]) -> str:
    return f"{100 * point['load']:.0f} %{', testing' if point['testing'] else ''}"
