"""Panels as matplotlib draws them, for where there is no Grafana."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation

from deploy.grafana.prometheus_api import Series
from deploy.grafana.spec import BLUE, GREEN, GREY, ORANGE, RED, Kind, Panel, Query, Unit
from engines.types import Float64Array

__all__ = ["Answer", "draw_panel", "format_value"]

_PALETTE = (BLUE, GREEN, ORANGE, "#9333ea", "#0891b2", "#db2777", "#65a30d", GREY)
_DASHES = ("--", "-.", ":")
_PERIODS = (
    *((365.25 * 86_400, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")),
    *((1e-3, "ms"), (1e-6, "us")),
)
_HIDDEN_LABELS = ("__name__", "job")
_LONGEST_CELL = 26


@dataclass(frozen=True)
class Answer:
    """What Prometheus said of one query.

    Attributes:
        query: what was asked.
        series: what came, times in seconds since the start of the picture.
    """

    query: Query
    series: Sequence[Series]


def format_value(value: float, unit: Unit) -> str:
    """Return a value with its unit, three digits.

    >>> format_value(0.0042, "s"), format_value(3.2e6, "bytes"), format_value(0.5, "percentunit")
    ('4.2 ms', '3.05 MiB', '50 %')
    """
    if unit == "s":
        size, name = next(
            (one for one in _PERIODS if abs(value) >= one[0]), _PERIODS[-1] if value else (1.0, "s")
        )
        if value / size >= 1000:
            return f"{value / size:.1e} {name}"
        return f"{value / size:.3g} {name}"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB" if value < 2**30 else f"{value / 2**30:.3g} GiB"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    suffix = {"hertz": " Hz", "cps": " /s"}.get(unit, "")
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M{suffix}"
    return f"{value / 1e3:.4g}k{suffix}" if abs(value) >= 1e4 else f"{value:.4g}{suffix}"


def draw_panel(
    axes: Axes, panel: Panel, answers: Sequence[Answer], span_s: float, alarms_s: Sequence[float]
) -> None:
    """Draw a panel as Grafana would.

    Args:
        axes: where.
        panel: what.
        answers: to its queries, in order.
        span_s: width of the picture in time.
        alarms_s: when alarms began.
    """
    axes.set_title(panel.title, loc="left", fontsize=9, color="#374151")
    if not any(answer.series for answer in answers):
        axes.set_axis_off()
        text = "no GPU here" if panel.needs_gpu else "no data"
        axes.text(0.5, 0.5, text, ha="center", color=GREY, transform=axes.transAxes)
        return
    if panel.kind == "table":
        _table(axes, answers)
    else:
        _PLOTS[panel.kind](axes, panel, answers)
    if panel.kind in ("lines", "heatmap"):
        axes.set_xlim(0, span_s)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{int(s) // 60}:{s % 60:02.0f}"))
    if panel.kind == "lines":
        for alarm_s in alarms_s:
            axes.axvline(alarm_s, color=RED, alpha=0.3, linewidth=2.5, zorder=0)


def _xy(series: Series) -> tuple[Float64Array, Float64Array]:
    x, y = np.array(series.points).T
    return x, y


def _lines(axes: Axes, panel: Panel, answers: Sequence[Answer]) -> None:
    free = iter(_PALETTE * 4)
    base = 0.0 * _xy(answers[0].series[0])[1] if panel.stacked and answers[0].series else None
    for answer in answers:
        query = answer.query
        for place, series in enumerate(answer.series):
            if not series.points:
                continue
            x, y = _xy(series)
            if panel.log:
                y = np.where(y > 0, y, np.nan)
            name, colour = series.named(query.legend), query.colour or next(free)
            if base is not None and len(y) == len(base):
                axes.fill_between(x, base, base + y, color=colour, alpha=0.2, linewidth=0)
                y = base = base + y
            dashes = _DASHES[place % len(_DASHES)] if query.style == "dashed" else "-"
            dashes = "none" if query.style == "dots" else dashes
            axes.plot(
                *(x, y),
                linestyle=dashes,
                color=colour,
                label=name,
                linewidth=1.1 if query.style == "dashed" else 1.5,
                marker="o" if query.style in ("points", "dots") else "",
                markersize=4.5 if query.style == "dots" else 2.5,
                drawstyle="steps-post" if query.style == "step" else "default",
            )
    for value, colour in panel.steps[1:]:
        axes.axhline(value, color=colour, linestyle="--", linewidth=1)
    _axis(axes, panel)
    corner: Literal["upper left", "lower left"] = (
        "upper left" if panel.ceiling is None else "lower left"
    )
    axes.legend(loc=corner, fontsize=6.5, frameon=False, ncols=2)


def _axis(axes: Axes, panel: Panel) -> None:
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    if panel.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if panel.ceiling is None:  # room for the legend
            axes.set_ylim(low, high * (high / low) ** 0.35)
        else:
            axes.set_ylim(min(low, 0.1 * panel.ceiling), panel.ceiling)
    else:
        low, high = axes.get_ylim()
        low = low if panel.floor is None else panel.floor
        is_flat = not any(np.any(line.get_ydata()) for line in axes.lines)
        axes.set_ylim(low, 1.0 if is_flat else low + 1.4 * (high - low))
    if panel.log and panel.unit == "none":
        axes.yaxis.set_major_formatter(LogFormatterSciNotation())
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_value(y, panel.unit)))


def _stat(axes: Axes, panel: Panel, answers: Sequence[Answer]) -> None:
    axes.set_axis_off()
    shown = [series for answer in answers for series in answer.series if series.points]
    for place, series in enumerate(shown):
        x, y = _xy(series)
        value = float(y[-1])
        colour = [colour for least, colour in panel.steps if value >= least or least == 0][-1]
        text = dict(panel.words).get(int(value)) if value.is_integer() else None
        if text is None and panel.decimals is not None:
            text = f"{value:.{panel.decimals}f}"
        x_text, y_text = (place + 0.5) / len(shown), 0.62
        axes.text(
            *(x_text, y_text, text or format_value(value, panel.unit)),
            ha="center",
            va="center",
            fontsize=20 / len(shown) ** 0.5,
            fontweight="bold",
            color=colour,
            transform=axes.transAxes,
        )
    trend = axes.inset_axes((0.0, 0.0, 1.0, 0.32))
    trend.set_axis_off()
    trend.plot(x, y, color=colour, linewidth=1)
    trend.fill_between(x, min(y.min(), 0), y, color=colour, alpha=0.12, linewidth=0)


def _heatmap(axes: Axes, panel: Panel, answers: Sequence[Answer]) -> None:
    rows = sorted(answers[0].series, key=lambda series: float(series.labels["le"]))
    bounds = [series.labels["le"] for series in rows]
    x = _xy(rows[-1])[0]
    rates = np.diff(np.array([_xy(series)[1] for series in rows]), axis=0, prepend=0.0)
    filled = np.flatnonzero(rates.sum(axis=1) > 0)
    low, high = max(filled[0] - 1, 0), min(filled[-1] + 2, len(rows))
    shown = np.where(rates > 0, rates, np.nan)[low:high]
    mesh = axes.pcolormesh(x, np.arange(high - low), shown, cmap="Blues", vmin=0, shading="nearest")
    labels = [format_value(float(bound), panel.unit) for bound in bounds[low:high]]
    axes.set_yticks(np.arange(high - low), labels)
    axes.figure.colorbar(mesh, ax=axes, pad=0.01).set_label("messages / s", fontsize=7)


_PLOTS: dict[Kind, Callable[[Axes, Panel, Sequence[Answer]], None]] = {
    "lines": _lines,
    "stat": _stat,
    "heatmap": _heatmap,
}


def _table(axes: Axes, answers: Sequence[Answer]) -> None:
    axes.set_axis_off()
    rows = [series.labels for series in answers[0].series]
    names = [name for name in rows[0] if name not in _HIDDEN_LABELS]
    cells = [[_short(row.get(name, "")) for name in names] for row in rows]
    made = axes.table(cells, colLabels=names, loc="center", cellLoc="left", edges="horizontal")
    made.auto_set_font_size(False)
    made.set_fontsize(7.5)
    made.scale(1.0, 1.5)
    made.auto_set_column_width(list(range(len(names))))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 3] + "..."
