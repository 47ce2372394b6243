"""Command: draw the dashboards from what Prometheus holds, for where there is no Grafana."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.grafana.generate import DASHBOARDS
from deploy.grafana.prometheus_api import Prometheus, Series, fill_variables
from deploy.grafana.spec import INSTANCE, Dashboard, Panel
from engines.command import CommandParser, positive_float, run_command
from engines.errors import ArtifactError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["main"]

_N_STEPS = 240
_INCHES = {"stat": 1.0, "table": 0.95, "lines": 2.35, "heatmap": 2.35}
_HEADING_INCHES = 0.32
_WIDTH_INCHES = 15.0


def _parser() -> CommandParser:
    parser = CommandParser(
        "render",
        "Draws dashboard-physics.png and dashboard-operations.png from Prometheus' data.",
        "python -m deploy.grafana.render --last 120 -o docs",
    )
    add = parser.add_argument
    add("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="its address")
    add("--last", type=positive_float, default=1800.0, metavar="SECONDS", help="time shown")
    add("--instance", default=".+", metavar="REGEX", help="which consumers")
    add("--rate-interval", type=int, default=20, metavar="SECONDS", help="four scrape intervals")
    add("-o", "--output", type=Path, default=Path(), help="folder for the pictures")
    return parser


def _run(options: argparse.Namespace) -> None:
    view = _View(options)
    for board in DASHBOARDS:
        path = options.output / f"dashboard-{board.uid.removeprefix('nplm-')}.png"
        figure = _figure(board, view)
        try:
            figure.savefig(path, dpi=110)
        except OSError as exc:
            msg = f"cannot write {path} ({exc.strerror or exc}); name another folder with -o"
            raise ArtifactError(msg) from exc
        sys.stdout.write(f"wrote {path}\n")


class _View:
    """What a span of time holds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.span_s = options.last
        self._stop_s = time.time()
        self._prometheus = Prometheus(options.prometheus.rstrip("/"))
        self._filled = {"rate_interval_s": options.rate_interval, "instance": options.instance}

    def ask(self, expr: str) -> list[Series]:
        """Return the series of an expression, times in seconds since the start."""
        start_s, step_s = self._stop_s - self.span_s, self.span_s / _N_STEPS
        found = self._prometheus.query_range(
            fill_variables(expr, step_s=step_s, **self._filled), start_s, self._stop_s, step_s
        )
        return [
            Series(series.labels, [(at_s - start_s, value) for at_s, value in series.points])
            for series in found
            if series.points
        ]

    def alarms_s(self) -> list[float]:
        """Return when alarms began."""
        counts = self.ask(f"sum(nplm_stream_alarms_total{{{INSTANCE}}})")
        points = counts[0].points if counts else []
        return [after[0] for before, after in pairwise(points) if after[1] > before[1]]


def _figure(board: Dashboard, view: _View) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from deploy.grafana.draw import Answer, draw_panel

    lines = list(_lines(board))
    heights = [
        _HEADING_INCHES if isinstance(line, str) else _INCHES[line[0].kind] for line in lines
    ]
    with mpl.rc_context({"font.size": 7.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(_WIDTH_INCHES, 1.1 * sum(heights)), layout="constrained")
        figure.suptitle(board.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        alarms_s = view.alarms_s()
        parts = figure.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)
        for part, line in zip(parts[:, 0], lines, strict=True):
            if isinstance(line, str):
                part.text(0.008, 0.3, line, fontsize=11, fontweight="bold", color="#111827")
                continue
            widths = [panel.span for panel in line]
            places = part.subplots(1, len(line), width_ratios=widths, squeeze=False)[0]
            for axes, panel in zip(places, line, strict=True):
                answers = [Answer(query, view.ask(query.expr)) for query in panel.queries]
                draw_panel(axes, panel, answers, view.span_s, alarms_s)
    return figure


def _lines(board: Dashboard) -> Iterator[str | list[Panel]]:
    """Yield headings, and the panels that stand side by side."""
    for row in board.rows:
        yield row.title
        line: list[Panel] = []
        for panel in row.panels:
            line.append(panel)
            if sum(one.span for one in line) >= 24:
                yield line
                line = []
        if line:
            yield line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
