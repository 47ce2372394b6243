"""Figure V of arXiv:2502.15926: where in the embedding the fit sees too many events."""

import warnings
from pathlib import Path

import numpy as np

from bench.physics_study.config import MapConfig
from bench.physics_study.drawing import new_figure, save
from engines.types import AnyArray, Float64Array, FloatArray

__all__ = ["draw_map", "flat_map"]

#: More background than this hides itself, and takes UMAP minutes.
_MOST_EVENTS = 4000


def draw_map(title: str, path: Path, scores: dict[str, AnyArray], config: MapConfig) -> Path:
    """Draw a window's events in two dimensions, beside which of them the fit singles out.

    Args:
        title: what the window is.
        path: the figure.
        scores: of `bench.physics_study.maps.score_window`.
        config: above which f events are coloured, and how the map is made.
    """
    f, is_signal, least_f = scores["f"], scores["is_signal"], config.least_f
    # All that is signal or scored high, and of the rest as many as make a readable picture.
    shown = np.flatnonzero(is_signal | (f > least_f))
    rest = np.setdiff1d(np.arange(len(f)), shown)
    taken = np.random.default_rng(0).permutation(rest)[: max(0, _MOST_EVENTS - len(shown))]
    order = np.concatenate([taken, shown])
    points, method = flat_map(scores["embeddings"][order], config.method)
    f, is_signal = f[order], is_signal[order]
    with new_figure(10.0, 4.4) as figure:
        truth, fitted = figure.subplots(1, 2, sharex=True, sharey=True)
        truth.scatter(*points[~is_signal].T, s=3, color="#c4c9d1", label="background")
        truth.scatter(*points[is_signal].T, s=6, color="#D55E00", label="signal")
        truth.legend(frameon=False, markerscale=2, loc="best")
        truth.set_title("truth", fontsize=9)
        high = f > least_f
        fitted.scatter(*points[~high].T, s=3, color="#c4c9d1")
        rising = np.flatnonzero(high)[np.argsort(f[high])]
        dots = fitted.scatter(*points[rising].T, s=6, c=f[rising], cmap="viridis", vmin=least_f)
        figure.colorbar(dots, ax=fitted, label="fitted log density ratio f")
        share = is_signal[high].mean() if high.any() else 0.0
        fitted.set_title(
            f"f > {least_f:g}: {int(high.sum())} events, {100 * share:.0f} % of them signal",
            fontsize=9,
        )
        for axes in (truth, fitted):
            axes.set(xlabel=f"{method} 1", ylabel=f"{method} 2", xticks=[], yticks=[])
        thinned = f"; {len(taken):,} of the other {len(rest):,} events shown"
        figure.suptitle(
            f"{title}: one window, Z = {float(scores['z'][0]):.1f}"
            + (thinned if len(taken) < len(rest) else ""),
            fontsize=10,
        )
        return save(figure, path)


def flat_map(embeddings: FloatArray, method: str = "umap") -> tuple[Float64Array, str]:
    """Return the events in two dimensions, (n, 2), and how.

    Args:
        embeddings: (n, d).
        method: `pca`, or `umap`, in place of which PCA serves where umap-learn is not installed.
    """
    if embeddings.shape[1] == 2:
        return embeddings.astype(np.float64), "coordinate"
    if method == "pca":
        return _principal(embeddings), "PCA"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optional parts that are not installed
            import umap
    except ImportError:
        return _principal(embeddings), "PCA, for want of umap-learn,"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed seed costs its second thread
        mapped = umap.UMAP(random_state=0).fit_transform(embeddings)
    return np.asarray(mapped, dtype=np.float64), "UMAP"


def _principal(embeddings: FloatArray) -> Float64Array:
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat: Float64Array = centred @ axes[:2].T
    return flat
