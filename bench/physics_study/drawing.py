"""What all figures of a study share: colours that colour-blind readers can tell apart, saving."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engines.errors import ArtifactError

__all__ = ["Style", "legend", "new_figure", "save", "styles"]

#: Okabe and Ito, Color Universal Design (2008), without its yellow, which is faint on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_DASHES = ("-", "--", ":", "-.")
_DPI = 130
#: Inches that a name takes.
_LEGEND_WIDTH = 3.6


@dataclass(frozen=True)
class Style:
    """How one encoder is drawn, everywhere alike."""

    colour: str
    marker: str
    dash: str

    def line(self) -> dict[str, Any]:
        """Return what matplotlib's plot takes."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each encoder; colours repeat after seven, markers and dashes differ."""
    return {
        name: Style(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _DASHES[index // len(_COLOURS) % len(_DASHES)],
        )
        for index, name in enumerate(names)
    }


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure, in inches."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        yield Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, axes: Axes) -> None:
    """Draw the names of one panel's lines below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(5, int(figure.get_figwidth() / _LEGEND_WIDTH)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG.

    Raises:
        ArtifactError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI)
    except OSError as exc:
        msg = f"cannot write the figure {path} ({exc}); make room, or choose another folder"
        raise ArtifactError(msg) from exc
    return path
