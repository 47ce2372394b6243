"""The picture of an alarm: t and its null, the embedding, every quantity against the reference."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure, SubFigure

from engines.errors import ArtifactError
from engines.event_quantities import QUANTITIES
from stream.alarm.contents import AlarmContents
from stream.alarm.density import LearnedDensity
from stream.alarm.histograms import Comparison, draw_comparison, legend_handles
from stream.alarm.panels import draw_null_panel, draw_plane
from stream.alarm.table import utc
from stream.plain_text import plain_text

__all__ = ["N_COORDINATES", "alarm_figure", "draw_alarm"]

#: Embedding coordinates that are drawn; a picture of more is read by nobody.
N_COORDINATES = 8
_COLUMNS = 5
_WIDTH, _TOP, _ROW, _DPI = 15.0, 4.4, 3.4, 120


def draw_alarm(
    alarm: AlarmContents, learned: LearnedDensity | None, output: Path, *, umap: bool = False
) -> None:
    """Write the picture of `alarm_figure`.

    Args:
        alarm: the window.
        learned: its learned density.
        output: the file; its suffix chooses the format.
        umap: draw the embedding by UMAP.

    Raises:
        MissingPackageError: if UMAP is asked for and not installed.
        ArtifactError: if the picture cannot be written.
    """
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = alarm_figure(alarm, learned, umap=umap)
        try:
            figure.savefig(output, dpi=_DPI)
        except OSError as exc:
            reason = exc.strerror or exc
            msg = f"cannot write the picture {output} ({reason}); choose a writable folder"
            raise ArtifactError(msg) from exc


def alarm_figure(
    alarm: AlarmContents, learned: LearnedDensity | None, *, umap: bool = False
) -> Figure:
    """Return the picture; without a learned density only what needs none.

    Args:
        alarm: the window.
        learned: its learned density.
        umap: draw the embedding by UMAP.

    Raises:
        MissingPackageError: if UMAP is asked for and not installed.
    """
    groups = [] if learned is None else _comparisons(alarm, learned)
    rows = [
        group[first : first + _COLUMNS]
        for group in groups
        for first in range(0, len(group), _COLUMNS)
    ]
    figure = Figure(figsize=(_WIDTH, _TOP + _ROW * len(rows)), layout="constrained")
    heights = [_TOP, *([_ROW * len(rows)] if rows else [])]
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    null, plane = parts[0].subplots(1, 2, width_ratios=(1.25, 1.0))
    draw_null_panel(null, alarm)
    draw_plane(plane, alarm, umap=umap)
    if learned is not None:
        _draw_rows(parts[1], rows, learned)
    figure.suptitle(_title(alarm), x=0.01, ha="left", fontsize=12, parse_math=False)
    return figure


def _comparisons(alarm: AlarmContents, learned: LearnedDensity) -> list[list[Comparison]]:
    """Return the embedding's coordinates, and the quantities if the reference has them."""
    n_coordinates = min(N_COORDINATES, alarm.embeddings.shape[1])
    groups = [
        [
            Comparison(f"embedding {i + 1}", alarm.embeddings[:, i], learned.embeddings[:, i])
            for i in range(n_coordinates)
        ]
    ]
    if learned.quantities is not None and alarm.has_kinematics:
        columns = zip(QUANTITIES, alarm.quantities.T, learned.quantities.T, strict=True)
        groups.append(
            [
                Comparison(quantity.title, data, reference, is_count=quantity.is_count)
                for quantity, data, reference in columns
            ]
        )
    return groups


def _draw_rows(
    part: SubFigure, rows: Sequence[Sequence[Comparison]], learned: LearnedDensity
) -> None:
    panels = part.subplots(2 * len(rows), _COLUMNS, height_ratios=(2.6, 1.0) * len(rows))
    for row, panel_row, ratio_row in zip(rows, panels[::2], panels[1::2], strict=True):
        for panel, ratio in zip(panel_row[len(row) :], ratio_row[len(row) :], strict=True):
            panel.set_axis_off()
            ratio.set_axis_off()
        for comparison, panel, ratio in zip(row, panel_row, ratio_row, strict=False):
            draw_comparison(panel, ratio, comparison, learned.weight, learned.weights)
            panel.tick_params(axis="x", which="both", labelbottom=False)
        panel_row[0].set_ylabel("events")
        ratio_row[0].set_ylabel("over reference")
    part.align_ylabels(panels[:, 0])
    handles = legend_handles()
    part.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=10)


def _title(alarm: AlarmContents) -> str:
    result = alarm.result
    sources = ", ".join(plain_text(name, 24) for name in list(alarm.sources)[:3])
    more = len(alarm.sources) - 3
    return (
        f"Alarm in window {result['window']} of run {plain_text(result['run'])}: "
        f"Z = {result['z_alarm']:.2f}, {result['n_events']} events from {sources}"
        f"{f' and {more} more' if more > 0 else ''}, {utc(result['t_start_ns'])} UTC"
    )
