"""The picture of the months: alarms over time, and their number against the threshold."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from bench.month import Month

__all__ = ["draw_months"]

_COLOURS = {"background": "#2563eb", "drifting": "#d97706"}
_DAYS = 30.0


def draw_months(months: dict[str, list[Month]], path: Path) -> None:
    """Draw mean Z through the month, and windows at or below each p against the diagonal.

    Args:
        months: by kind.
        path: the picture to write.
    """
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4), layout="constrained")
        over_time, counts = figure.subplots(1, 2)
        for name, of_kind in months.items():
            _draw_time(over_time, name, of_kind)
            _draw_counts(counts, name, of_kind)
        over_time.axhline(0, color="0.6", linewidth=0.8)
        over_time.set(xlabel="day of the month", ylabel="mean Z of windows, by day")
        over_time.legend(frameon=False, loc="upper left")
        counts.set(
            xlabel="windows promised at or below p",
            ylabel="windows seen",
            xscale="log",
            yscale="log",
            title="False alarms, all months of a kind",
        )
        counts.legend(frameon=False, loc="upper left")
        over_time.set_title("Through the month")
        figure.savefig(path, dpi=130)


def _draw_time(axes: Axes, name: str, months: Sequence[Month]) -> None:
    z = np.array([[result.z_alarm for result in month.results] for month in months])
    n_parts = max(1, min(int(_DAYS), z.shape[1] // 2))
    parts = np.array_split(np.arange(z.shape[1]), n_parts)
    mean = [z[:, part].mean() for part in parts]
    error = [z[:, part].std(ddof=1) / z[:, part].size ** 0.5 for part in parts]
    days = (np.arange(n_parts) + 0.5) * _DAYS / n_parts
    axes.errorbar(days, mean, error, fmt="o", markersize=3, color=_COLOURS[name], label=name)


def _draw_counts(axes: Axes, name: str, months: Sequence[Month]) -> None:
    p = np.sort([result.p_alarm for month in months for result in month.results])
    promised, seen = p * len(p), np.arange(1, len(p) + 1)
    shown = promised > 1e-3
    axes.step(promised[shown], seen[shown], where="post", color=_COLOURS[name], label=name)
    if name == "background":
        grid = np.geomspace(0.3, len(p), 200)
        low, high = stats.binom.ppf([[0.025], [0.975]], len(p), grid / len(p))
        axes.fill_between(grid, np.maximum(low, 0.5), high, color="0.85", label="95 % of binomials")
        axes.plot(grid, grid, color="0.4", linewidth=0.8)
