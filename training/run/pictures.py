"""Pictures of a training: its losses, and the held-out embedding by process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from engines.errors import ArtifactError
from engines.types import Float64Array, FloatArray, IntArray
from training.fit_config import Epoch

__all__ = ["draw_embedding", "draw_losses"]

_COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#111827")
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_DPI = 110
#: More coordinates than this are turned to their principal axes, of which the first are drawn.
_MAX_AXES = 4
_POINTS = 1000
#: Share of the events left outside each edge of a panel, so that a tail does not squeeze the rest.
_OUTSIDE = 0.003


def draw_losses(history: Sequence[Epoch], path: Path) -> None:
    """Draw training and validation loss, and the learning rate below, against the epoch."""
    epochs = [epoch.epoch for epoch in history]
    best = min(history, key=lambda epoch: epoch.validation_loss)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        losses.plot(epochs, [e.loss for e in history], ".-", color=_COLOURS[0], label="training")
        losses.plot(
            epochs, [e.validation_loss for e in history], ".-", color=_COLOURS[1], label="held out"
        )
        losses.axvline(
            best.epoch, color="#6b7280", lw=1, ls=":", label=f"weights kept: epoch {best.epoch}"
        )
        losses.set_ylabel("loss")
        losses.legend(frameon=False)
        rates.plot(epochs, [epoch.learning_rate for epoch in history], ".-", color="#6b7280")
        rates.set_ylabel("learning rate")
        rates.set_xlabel("epoch")
        rates.xaxis.set_major_locator(MaxNLocator(integer=True))
        _save(figure, path)


def draw_embedding(
    embeddings: FloatArray,
    targets: IntArray | None,
    names: Sequence[str],
    path: Path,
    counts: Sequence[int] | None = None,
) -> None:
    """Draw every pair of coordinates, and the density of each on the diagonal, by process.

    Args:
        embeddings: of held-out events, (n, d).
        targets: class index of each, (n,); None draws all alike.
        names: of the classes.
        path: the picture.
        counts: held-out events of each class, where those drawn are only some; None counts these.
    """
    values, labels = _coordinates(embeddings)
    targets = np.zeros(len(values), dtype=np.int64) if targets is None else targets
    names = list(names) or ["all events"]
    n = values.shape[1]
    with mpl.rc_context(_STYLE):
        legend = 1.9 if n == 1 else 0.2  # otherwise it fits into the empty corner
        width, height = 2.3 * n + 1.2 + legend, 2.1 * n + 0.8
        figure = Figure(figsize=(width, height))
        panels = figure.subplots(n, n, squeeze=False)
        edge = {"left": 0.7 / width, "right": 1 - legend / width, "top": 1 - 0.2 / height}
        figure.subplots_adjust(**edge, bottom=0.6 / height, wspace=0.08, hspace=0.08)
        edges = _edges(values)
        for row in range(n):
            for column in range(n):
                panel = panels[row, column]
                if column > row:
                    panel.set_axis_off()
                elif column == row:
                    _densities(panel, values[:, row], targets, edges[:, row], len(names))
                else:
                    _points(panel, values[:, [column, row]], targets, len(names))
                    panel.set_ylim(edges[0, row], edges[1, row])
                if column <= row:
                    panel.set_xlim(edges[0, column], edges[1, column])
                _label(panel, labels, row, column, n)
        drawn = np.bincount(targets, minlength=len(names)).tolist()
        _legend(figure, names, drawn if counts is None else counts)
        _save(figure, path)


def _coordinates(embeddings: FloatArray) -> tuple[Float64Array, list[str]]:
    """Return the coordinates to draw, (n, up to 4), and what each is called."""
    values = embeddings.astype(np.float64)
    if values.shape[1] <= _MAX_AXES:
        return values, [f"$z_{index + 1}$" for index in range(values.shape[1])]
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    variances, axes = np.linalg.eigh(np.cov(scaled, rowvar=False))
    first = np.argsort(variances)[::-1][:_MAX_AXES]
    shares = variances[first] / variances.sum()
    labels = [f"axis {index + 1} ({share:.0%})" for index, share in enumerate(shares)]
    return scaled @ axes[:, first], labels


def _edges(values: Float64Array) -> Float64Array:
    """Return the lowest and highest value to draw of each coordinate, (2, n)."""
    edges: Float64Array = np.quantile(values, (_OUTSIDE, 1 - _OUTSIDE), axis=0)
    flat = edges[0] == edges[1]
    edges[:, flat] += np.array([[-1.0], [1.0]])
    return edges


def _densities(
    panel: Axes, values: Float64Array, targets: IntArray, edges: Float64Array, n_classes: int
) -> None:
    bins = np.linspace(edges[0], edges[1], 41).tolist()
    for index in range(n_classes):
        members = values[targets == index]
        if len(members) > 0:
            colour = _COLOURS[index % len(_COLOURS)]
            panel.hist(members, bins, density=True, histtype="step", color=colour, lw=1.2)
    panel.set_yticks([])


def _points(panel: Axes, values: Float64Array, targets: IntArray, n_classes: int) -> None:
    """Scatter as many events of each class, in an order that hides none behind another."""
    chosen = [np.flatnonzero(targets == index)[:_POINTS] for index in range(n_classes)]
    shown = np.random.default_rng(0).permutation(np.concatenate(chosen))
    colours = np.array([_COLOURS[index % len(_COLOURS)] for index in range(n_classes)])
    x, y = values[shown].T
    panel.scatter(x, y, s=2, c=colours[targets[shown]], alpha=0.5, lw=0)


def _label(panel: Axes, labels: Sequence[str], row: int, column: int, n: int) -> None:
    if row == n - 1:
        panel.set_xlabel(labels[column])
    else:
        panel.set_xticklabels([])
    if column == 0 and row > 0:
        panel.set_ylabel(labels[row])
    elif column < row:
        panel.set_yticklabels([])


def _legend(figure: Figure, names: Sequence[str], counts: Sequence[int]) -> None:
    handles = [
        Line2D(
            [], [], color=_COLOURS[index % len(_COLOURS)], lw=3, label=f"{name} ({count} held out)"
        )
        for index, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    figure.legend(handles=handles, loc="upper right", frameon=False)


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as exc:
        msg = f"cannot write the picture {path} ({exc.strerror or exc}); make space and start again"
        raise ArtifactError(msg) from exc
