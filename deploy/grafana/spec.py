"""What a panel shows, apart from how Grafana or matplotlib draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INSTANCE",
    "ORANGE",
    "RED",
    "SCALE",
    "Dashboard",
    "Kind",
    "Panel",
    "Query",
    "Row",
    "Style",
    "Unit",
]

#: Label matchers that every query of a consumer's own metrics carries.
INSTANCE = 'job="nplm-stream",instance=~"$instance"'
SCALE = f'{INSTANCE},scale=~"$scale"'

BLUE, RED, GREEN, ORANGE, GREY = "#2563eb", "#dc2626", "#16a34a", "#ea8a0c", "#6b7280"

Kind = Literal["lines", "stat", "heatmap", "table"]
Style = Literal["line", "points", "dots", "dashed", "step"]
#: Names that Grafana has for units.
Unit = Literal["none", "short", "s", "hertz", "bytes", "percentunit", "cps"]


@dataclass(frozen=True)
class Query:
    """One PromQL expression of a panel.

    Attributes:
        expr: the expression; `$instance`, `$scale`, `$__rate_interval` and `$__interval_ms` (the
            picture's step) are the dashboard's.
        legend: name of each series, labels in double braces.
        style: how its lines are drawn.
        colour: of all its series; by the palette if None.
    """

    expr: str
    legend: str = ""
    style: Style = "line"
    colour: str | None = None


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: unique within its dashboard.
        description: what it shows and how to read it.
        queries: what it asks.
        kind: how it is drawn.
        unit: of its values.
        span: width, of 24.
        steps: from which value on which colour; the first value is ignored. Lines draw them as
            dashed lines, a stat is coloured by them.
        log: logarithmic axis.
        stacked: lines on top of one another.
        floor, ceiling: least and largest value of the axis.
        decimals: digits that a stat shows; Grafana's choice if None.
        words: what a stat shows for some values instead of them.
        needs_gpu: without a GPU it is empty.
    """

    title: str
    description: str
    queries: Sequence[Query]
    kind: Kind = "lines"
    unit: Unit = "short"
    span: int = 8
    steps: Sequence[tuple[float, str]] = ()
    log: bool = False
    stacked: bool = False
    floor: float | None = None
    ceiling: float | None = None
    decimals: int | None = None
    words: Sequence[tuple[int, str]] = ()
    needs_gpu: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        uid: its name in addresses, and of its file.
        title: its title.
        description: for whom.
        rows: its panels.
        scales: whether it has a variable of time scales.
    """

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    scales: bool = False

    @property
    def panels(self) -> list[Panel]:
        """All panels, in order."""
        return [panel for row in self.rows for panel in row.panels]
