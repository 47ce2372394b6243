"""The picture of a null: the toys' t beside the laws fitted to them, and all three tails."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special, stats

from engines.errors import ArtifactError, ParameterError
from engines.nplm.min_p import WidthNulls
from engines.nplm.null import NullDistribution, proportion_interval
from engines.types import Float64Array

__all__ = ["check_picture", "draw_density", "draw_null", "draw_survival", "null_figure"]

_Curve: TypeAlias = Callable[[Float64Array], Float64Array]

_INK, _CHI2_COLOUR, _GAMMA_COLOUR, _MARK_COLOUR = "#2563eb", "#111827", "#d97706", "#6b7280"
_LOWEST_P = 5e-8
_ROW_INCHES, _DPI = 3.3, 130
_SUFFIXES = (".png", ".pdf", ".svg")


def check_picture(path: Path) -> None:
    """Refuse a name whose suffix is no picture's.

    Raises:
        ParameterError: with the suffixes that are known.
    """
    if path.suffix.lower() not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        msg = f"the picture's suffix must be one of {known}; got {str(path)!r}; name it FILE.png"
        raise ParameterError(msg)


def draw_null(
    nulls: Mapping[int, WidthNulls], sigmas: Sequence[float], window: str, output: Path
) -> None:
    """Write the picture of `null_figure`.

    Args:
        nulls: by how many windows are merged into one.
        sigmas: (n_widths,) kernel widths.
        window: one window, in words.
        output: the file; its suffix chooses the format.

    Raises:
        ArtifactError: if the picture cannot be written.
    """
    try:
        null_figure(nulls, sigmas, window).savefig(output, dpi=_DPI)
    except OSError as exc:
        msg = f"cannot write the picture {output} ({exc}); choose a writable folder"
        raise ArtifactError(msg) from exc


def null_figure(nulls: Mapping[int, WidthNulls], sigmas: Sequence[float], window: str) -> Figure:
    """Return a figure with one row for each time scale and kernel width.

    Args:
        nulls: by how many windows are merged into one.
        sigmas: (n_widths,) kernel widths.
        window: one window, in words.
    """
    rows = [
        (n_windows, sigma, null)
        for n_windows, widths in nulls.items()
        for sigma, null in zip(sigmas, widths.nulls, strict=True)
    ]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.0, _ROW_INCHES * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), 2, squeeze=False)
        for (density, survival), (n_windows, sigma, null) in zip(panels, rows, strict=True):
            draw_density(density, null)
            draw_survival(survival, null)
            merged = window if n_windows == 1 else f"{n_windows} windows of {window}"
            density.set_title(f"{merged}, sigma {sigma:.3g}", loc="left")
            survival.set_title("Probability of a t at or above", loc="left")
    return figure


def draw_density(axes: Axes, null: NullDistribution) -> None:
    """Draw the toys' histogram and the fitted densities, both as toys in a bin.

    Args:
        axes: where to draw.
        null: of one width.
    """
    counts, edges = np.histogram(null.t, bins="rice")
    label = f"{len(null.t)} toys: {null.mean:.4g} \N{PLUS-MINUS SIGN} {null.std:.3g}"
    axes.stairs(counts, edges, fill=True, color=_INK, alpha=0.25)
    axes.stairs(counts, edges, color=_INK, linewidth=1, label=label)
    margin = 0.15 * (edges[-1] - edges[0])
    t = np.linspace(edges[0] - margin, edges[-1] + margin, 400)
    toys_per_unit = len(null.t) * (edges[1] - edges[0])
    chi2, gamma = stats.chi2(null.chi2_dof), stats.gamma(null.gamma_shape, scale=null.gamma_scale)
    chi2_label = f"chi-square, {null.chi2_dof:.4g} dof: KS p = {null.chi2_ks_p:.2g}"
    gamma_label = f"gamma, shape {null.gamma_shape:.3g}: KS p = {null.gamma_ks_p:.2g}"
    _draw_laws(
        axes,
        t,
        lambda x: toys_per_unit * chi2.pdf(x),
        lambda x: toys_per_unit * gamma.pdf(x),
        (chi2_label, gamma_label),
    )
    axes.set(
        xlabel="t under the null",
        ylabel="toys",
        xlim=(t[0], t[-1]),
        ylim=(0.0, 1.45 * counts.max()),
    )
    axes.legend(loc="upper right", frameon=False)


def draw_survival(axes: Axes, null: NullDistribution) -> None:
    """Draw p of each t: from the toys with their 68 % band, and from both laws.

    Dotted lines mark the toys' resolution, 3 and 5 sigma; dots, where a law reaches those.

    Args:
        axes: where to draw.
        null: of one width.
    """
    chi2, gamma = stats.chi2(null.chi2_dof), stats.gamma(null.gamma_shape, scale=null.gamma_scale)
    first, last = float(null.t.min()), float(null.t.max())
    end = max(*(float(law.isf(_LOWEST_P)) for law in (chi2, gamma)), last + null.std)
    start = first - 0.05 * (end - first)
    _draw_toys(axes, null, start, end)
    labels = ("chi-square", "gamma")
    _draw_laws(axes, np.linspace(start, end, 400), chi2.sf, gamma.sf, labels)
    laws = ((chi2, _CHI2_COLOUR), (gamma, _GAMMA_COLOUR))
    for z in (3, 5):
        p_value = float(special.ndtr(-z))
        _draw_mark(axes, p_value, f"{z} sigma", x=1.01, align="left")
        for law, colour in laws:
            axes.plot(law.isf(p_value), p_value, "o", color=colour, markersize=3.5)
    resolution = f"toys resolve p \N{GREATER-THAN OR EQUAL TO} {null.resolution:.2g}"
    _draw_mark(axes, null.resolution, resolution, x=0.99, align="right")
    axes.set(xlabel="t", ylabel="p", yscale="log", xlim=(start, end), ylim=(_LOWEST_P, 2.0))
    axes.legend(loc="lower left", frameon=False)


def _draw_mark(
    axes: Axes, p_value: float, name: str, *, x: float, align: Literal["left", "right"]
) -> None:
    """Draw a level of p and its name: outside the panel on the line, inside above it."""
    axes.axhline(p_value, color=_MARK_COLOUR, linestyle=":", linewidth=0.9)
    axes.text(
        x,
        p_value if align == "left" else 2.0 * p_value,
        name,
        transform=axes.get_yaxis_transform(),
        horizontalalignment=align,
        verticalalignment="center" if align == "left" else "bottom",
        color=_MARK_COLOUR,
        fontsize=8,
    )


def _draw_toys(axes: Axes, null: NullDistribution, start: float, end: float) -> None:
    """Draw the empirical p, a falling stair, and the interval that the toys' number leaves.

    Beyond the last toy the interval reaches down to 0; it is drawn fainter there.
    """
    edges = np.concatenate([[start], np.sort(null.t), [end]])
    n_at_or_above = np.arange(len(null.t), -1, -1)
    low, high = proportion_interval(n_at_or_above, len(null.t))
    low = np.maximum(low, 0.1 * _LOWEST_P)
    axes.stairs(high[:-1], edges[:-1], baseline=low[:-1], fill=True, color=_INK, alpha=0.22)
    axes.stairs(high[-1:], edges[-2:], baseline=low[-1:], fill=True, color=_INK, alpha=0.07)
    p_values = (n_at_or_above + 1) * null.resolution
    label = "toys, with their 68 % band"
    axes.stairs(p_values, edges, baseline=None, color=_INK, linewidth=1.3, label=label)


def _draw_laws(
    axes: Axes, t: Float64Array, chi2: _Curve, gamma: _Curve, labels: tuple[str, str]
) -> None:
    axes.plot(t, chi2(t), color=_CHI2_COLOUR, linewidth=1.2, label=labels[0])
    axes.plot(t, gamma(t), color=_GAMMA_COLOUR, linewidth=1.4, linestyle="--", label=labels[1])
