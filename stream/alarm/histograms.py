"""Data against the reference and against the learned density, one quantity a panel.

The picture of the NPLM papers (arXiv:2204.02317 Fig. 6, 2502.15926): points are the window, the
filled histogram is the reference at w = N(R) / n_ref, the line the reference reweighted by e^f;
below, both over the reference.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy import special

from engines.types import AnyArray, Float64Array, IntArray
from stream.report import ALARM_COLOUR

__all__ = ["Comparison", "bin_edges", "draw_comparison", "legend_handles", "poisson_interval"]

_DATA_COLOUR, _REFERENCE_COLOUR = "#111827", "#2563eb"
_N_BINS, _MOST_COUNTS = 24, 11
_BEYOND = 0.001
_LOWEST_RATIO, _HIGHEST_RATIO = 2.0, 6.0


@dataclass(frozen=True)
class Comparison:
    """One quantity of the window and of the reference.

    Attributes:
        title: the quantity, with its unit.
        data: (n_data,) of the window's events.
        reference: (n_ref,) of the reference's.
        is_count: whether it is a whole number.
    """

    title: str
    data: AnyArray
    reference: AnyArray
    is_count: bool = False


def bin_edges(comparison: Comparison) -> Float64Array:
    """Return bins that hold all but the last thousandth of either sample on each side."""
    both = (comparison.data, comparison.reference)
    if comparison.is_count:
        last = min(_MOST_COUNTS, max(1, *(int(values.max()) for values in both)))
        return np.arange(-0.5, last + 1)
    low = min(float(np.quantile(values, _BEYOND)) for values in both)
    high = max(float(np.quantile(values, 1.0 - _BEYOND)) for values in both)
    margin = 1e-6 * max(abs(low), abs(high), 1.0)
    return np.linspace(low - margin, high + margin, _N_BINS + 1)


def poisson_interval(counts: IntArray, level: float = 0.6827) -> tuple[Float64Array, Float64Array]:
    """Return both ends of the central interval of a Poisson mean; for a count of 0 it starts at 0.

    Source: Garwood, Biometrika 28 (1936) 437.

    >>> [round(float(end), 2) for end in poisson_interval(np.array(4))]
    [2.09, 7.16]
    """
    outside = 0.5 * (1.0 - level)
    low = np.where(counts > 0, special.gammaincinv(np.maximum(counts, 1), outside), 0.0)
    return low, np.asarray(special.gammaincinv(counts + 1.0, 1.0 - outside))


def draw_comparison(
    panel: Axes, ratio: Axes, comparison: Comparison, weight: float, learned: Float64Array
) -> None:
    """Draw one quantity; what lies beyond the bins is in the first and the last.

    Args:
        panel: for the counts.
        ratio: below it, for the ratios to the reference.
        comparison: what to draw.
        weight: of a reference event.
        learned: (n_ref,) w e^f of each reference event.
    """
    edges = bin_edges(comparison)
    middle = 0.5 * (edges[1:] + edges[:-1])
    counts, n_ref = (_histogram(x, edges) for x in (comparison.data, comparison.reference))
    density = _histogram(comparison.reference, edges, learned)
    expected = weight * n_ref
    low, high = poisson_interval(counts.astype(np.int64))
    panel.stairs(expected, edges, baseline=1e-3, fill=True, color=_REFERENCE_COLOUR, alpha=0.25)
    panel.stairs(expected, edges, baseline=1e-3, color=_REFERENCE_COLOUR, linewidth=1)
    panel.stairs(density, edges, baseline=1e-3, color=ALARM_COLOUR, linewidth=1.4)
    _draw_points(panel, middle, counts, low, high)
    top = max(float(values.max()) for values in (counts, expected, density))
    panel.set(yscale="log", ylim=(0.4, 3.0 * max(top, 1.0)), xlim=(edges[0], edges[-1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 1.0 / np.sqrt(n_ref)
        scaled = [values / expected for values in (counts, low, high, density)]
    _draw_ratio(ratio, edges, np.where(n_ref > 0, spread, np.nan), scaled)
    ratio.set_xlabel(comparison.title)
    if comparison.is_count:
        ratio.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _histogram(
    values: AnyArray, edges: Float64Array, weights: Float64Array | None = None
) -> Float64Array:
    middle = 0.5 * (edges[1:] + edges[:-1])
    inside = np.clip(values, middle[0], middle[-1])
    return np.histogram(inside, edges, weights=weights)[0].astype(np.float64)


def _draw_points(
    axes: Axes, x: Float64Array, y: Float64Array, low: Float64Array, high: Float64Array
) -> None:
    there = np.isfinite(y) & (y > 0)
    x, y, low, high = x[there], y[there], low[there], high[there]
    axes.errorbar(
        x,
        y,
        yerr=(y - low, high - y),
        fmt="o",
        color=_DATA_COLOUR,
        markersize=2.6,
        elinewidth=0.8,
        zorder=3,
    )


def _draw_ratio(
    axes: Axes, edges: Float64Array, spread: Float64Array, scaled: list[Float64Array]
) -> None:
    counts, low, high, density = scaled
    middle = 0.5 * (edges[1:] + edges[:-1])
    axes.stairs(
        1.0 + spread, edges, baseline=1.0 - spread, fill=True, color=_REFERENCE_COLOUR, alpha=0.25
    )
    axes.axhline(1.0, color=_REFERENCE_COLOUR, linewidth=0.8)
    axes.stairs(density, edges, baseline=None, color=ALARM_COLOUR, linewidth=1.4)
    _draw_points(axes, middle, counts, low, high)
    seen = np.concatenate([counts, density])
    seen = seen[np.isfinite(seen)]
    top = float(np.clip(1.2 * seen.max(initial=0.0), _LOWEST_RATIO, _HIGHEST_RATIO))
    beyond = middle[counts > top]  # infinite where the reference has none
    axes.plot(beyond, np.full(len(beyond), 0.93 * top), "^", color=_DATA_COLOUR, markersize=4)
    axes.set(ylim=(0.0, top), xlim=(edges[0], edges[-1]))


def legend_handles() -> list[Line2D | Patch]:
    """Return what the legend shows."""
    return [
        Line2D([], [], color=_DATA_COLOUR, marker="o", markersize=4, label="window"),
        Patch(
            facecolor=(*_rgb(_REFERENCE_COLOUR), 0.25),
            edgecolor=_REFERENCE_COLOUR,
            label="reference, w = N(R) / n_ref",
        ),
        Line2D(
            [],
            [],
            color=ALARM_COLOUR,
            linewidth=1.4,
            label="learned density: reference \N{MULTIPLICATION SIGN} $e^f$",
        ),
    ]


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
