"""The picture of the null checks: a small panel for each way of testing, and one for coverage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.null_windows import NullRun
from engines.errors import ArtifactError
from engines.types import Float64Array

__all__ = ["Panel", "draw_honesty"]

_STYLES: dict[str, dict[str, Any]] = {
    "toys": {"color": "#2563eb", "linewidth": 1.6},
    "chi2": {"color": "#111827", "linewidth": 1.0},
    "gamma": {"color": "#d97706", "linewidth": 1.0, "linestyle": "--"},
}
_NAMES = {"toys": "empirical p", "chi2": "chi-square tail", "gamma": "gamma tail"}
_BAND, _INK, _OUTSIDE = "#6b7280", "#2563eb", "#dc2626"
_KS_95 = 1.358
_COLUMNS, _DPI = 4, 130


@dataclass(frozen=True)
class Panel:
    """The p-values of one way of testing.

    Attributes:
        title: which.
        p_values: by where they come from, each (n,).
        n_toys: toys behind an empirical p; None if it needs none.
    """

    title: str
    p_values: Mapping[str, Float64Array]
    n_toys: int | None

    @classmethod
    def of(cls, run: NullRun) -> "Panel":
        """Return the panel of a mode; several widths have no tail that is meant to be uniform."""
        every = run.mode.n_panes
        p_values = {"toys": run.p_values("toys", every=every)}
        if run.nulls.n_widths == 1:
            p_values["chi2"] = run.p_values("chi2", every=every)
            p_values["gamma"] = run.p_values("gamma", every=every)
        return cls(run.mode.title, p_values, run.nulls.n_toys)

    @property
    def half_band(self) -> float:
        """Half the 95 % Kolmogorov-Smirnov band, the toys' number allowed for."""
        n = len(self.p_values["toys"])
        return float(_KS_95 * np.sqrt(1 / n + (1 / self.n_toys if self.n_toys else 0.0)))


def draw_honesty(panels: Sequence[Panel], covered: dict[str, Any] | None, output: Path) -> None:
    """Draw how far each distribution of p lies from the uniform one, and the small pools' shifts.

    Args:
        panels: in the order of the table.
        covered: of `coverage`; None leaves its panel out.
        output: the file; its suffix chooses the format.

    Raises:
        ArtifactError: if it cannot be written.
    """
    n_panels = len(panels) + (covered is not None)
    n_columns = min(_COLUMNS, n_panels)
    n_rows = -(-n_panels // n_columns)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.3 * n_columns, 3.0 * n_rows), layout="constrained")
        every = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axes, panel in zip(every, panels, strict=False):
            _draw_panel(axes, panel)
        for axes in every[: len(panels) : n_columns]:
            axes.set_ylabel("share of windows with p or less, minus p")
        if panels:
            every[0].legend(loc="lower left", frameon=False, fontsize=8)
        if covered is not None:
            _draw_shifts(every[len(panels)], covered)
        for axes in every[n_panels:]:
            axes.set_axis_off()
        try:
            figure.savefig(output, dpi=_DPI)
        except OSError as exc:
            msg = f"cannot write the picture {output} ({exc}); choose a writable folder"
            raise ArtifactError(msg) from exc


def _draw_panel(axes: Axes, panel: Panel) -> None:
    half = panel.half_band
    axes.axhspan(-half, half, color=_BAND, alpha=0.13, linewidth=0, label="95 % KS band")
    axes.axhline(0.0, color=_BAND, linestyle=":", linewidth=0.9)
    for tail, p_values in reversed(list(panel.p_values.items())):
        p = np.concatenate([[0.0], np.repeat(np.sort(p_values), 2), [1.0]])
        n = len(p_values)
        below = np.concatenate([[0.0], np.repeat(np.arange(n + 1) / n, 2)[1:-1], [1.0]])
        axes.plot(p, below - p, label=_NAMES[tail], **_STYLES[tail])
    farthest = max(float(np.abs(line.get_ydata()).max()) for line in axes.get_lines())
    limit = max(1.5 * half, 1.1 * farthest)
    axes.set(xlim=(0.0, 1.0), ylim=(-limit, limit), xlabel="p")
    axes.locator_params(axis="y", nbins=5)
    sizes = f"{len(panel.p_values['toys'])} windows"
    if panel.n_toys:
        sizes += f", {panel.n_toys} toys"
    axes.set_title(f"{panel.title}\n{sizes}", fontsize=9, loc="left")


def _draw_shifts(axes: Axes, covered: dict[str, Any]) -> None:
    """Draw each calibration's shift in order, over bands of one and two reported systematics."""
    shifts, share = np.sort(covered["shifts"]), covered["offset_share"]
    for k, alpha in ((2, 0.08), (1, 0.16)):
        axes.axhspan(-k * share, k * share, color=_INK, alpha=alpha, linewidth=0)
    place = np.arange(1, len(shifts) + 1)
    outside = np.abs(shifts) > 2 * np.hypot(share, covered["statistical"])
    for chosen, colour in ((~outside, _INK), (outside, _OUTSIDE)):
        axes.errorbar(
            place[chosen],
            shifts[chosen],
            yerr=covered["statistical"],
            fmt="o",
            color=colour,
            markersize=3,
            linewidth=0.8,
        )
    limit = max(3 * share, 1.1 * float(np.abs(shifts).max()) + covered["statistical"])
    axes.axhline(0.0, color=_BAND, linestyle=":", linewidth=0.9)
    axes.set(ylim=(-limit, limit), xlabel="calibration, in order", ylabel="shift / spread of t")
    axes.set_title("small pool: shift of the null\nin 1 and 2 systematics", fontsize=9, loc="left")
