"""The main table as one picture: a line for each embedding, a dot for each training."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.physics_study.config import Study
from bench.physics_study.drawing import legend, new_figure, save, styles
from bench.physics_study.summary import Row, dim_text

__all__ = ["draw_overview"]

_GREY = "#6b7280"
_BAND = "#eef1f5"


def draw_overview(study: Study, rows: Sequence[Row], path: Path) -> Path:
    """Draw accuracy where it is known and, for each signal, median Z of every training."""
    signals = list(study.data.signals)
    known = [row for row in rows if not math.isnan(row.accuracy)]
    n_panels = len(signals) + bool(known)
    lines = list(dict.fromkeys((row.encoder, row.dim, row.kept) for row in rows))
    place = {line[:2]: index for index, line in enumerate(lines)}
    with new_figure(3.2 + 2.3 * n_panels, 1.4 + 0.21 * len(lines)) as figure:
        panels = figure.subplots(1, n_panels, squeeze=False, sharey=True)[0]
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            _bands(axes, [line[0] for line in lines])
        if known:
            panels[0].set(xlabel="linear accuracy on background [%]")
        for row in {(row.encoder, row.dim, row.seed): row for row in known}.values():
            panels[0].plot(100 * row.accuracy, place[row.encoder, row.dim], "ko", markersize=3)
        for axes, signal in zip(panels[n_panels - len(signals) :], signals, strict=True):
            axes.set(title=signal, xlabel="median Z")
            axes.axvline(0, color=_GREY, linewidth=0.6)
            axes.axvline(3, color=_GREY, linewidth=0.6, linestyle=":")
            _z_dots(axes, study, [row for row in rows if row.signal == signal], place)
        names = [f"{name}, D {dim_text(dim, kept)}" for name, dim, kept in lines]
        panels[0].set_yticks(range(len(lines)), names, fontsize=8)
        panels[0].set_ylim(len(lines) - 0.5, -0.5)
        figure.suptitle(_title(study, rows), fontsize=9)
        legend(figure, panels[-1])
        return save(figure, path)


def _title(study: Study, rows: Sequence[Row]) -> str:
    line = f"Windows of {study.test.window:,} events; a mark is one training;"
    other = f"dotted: Z = 3; above Z = {rows[0].z_cap:.1f} there are no toys"
    if any(row.training == "seen" for row in rows):
        other += "; hollow: training saw this signal"
    narrow = len(study.data.signals) < 3  # then one line is wider than the panels
    return f"{line}\n{other}" if narrow else f"{line} {other}"


def _bands(axes: Axes, encoders: Sequence[str]) -> None:
    """Shade every other encoder, so that its dimensions stand together."""
    order = list(dict.fromkeys(encoders))
    for index, name in enumerate(encoders):
        if order.index(name) % 2:
            axes.axhspan(index - 0.5, index + 0.5, color=_BAND, linewidth=0)
    axes.tick_params(axis="y", length=0)


def _z_dots(
    axes: Axes, study: Study, rows: Sequence[Row], place: dict[tuple[str, int], int]
) -> None:
    fractions = [fraction for fraction in study.test.fractions if fraction > 0]
    chosen = styles([f"{100 * fraction:g} % signal" for fraction in fractions])
    for fraction, (label, style) in zip(fractions, chosen.items(), strict=True):
        own = [row for row in rows if math.isclose(row.fraction, fraction)]
        for seen in (False, True):
            shown = [row for row in own if (row.training == "seen") == seen]
            axes.plot(
                [row.z for row in shown],
                [place[row.encoder, row.dim] for row in shown],
                color=style.colour,
                markerfacecolor="none" if seen else style.colour,
                marker=style.marker,
                markersize=3.5,
                linestyle="none",
                label="" if seen else label,
            )
