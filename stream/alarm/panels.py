"""Two panels of an alarm's picture: t against its null, and the embedding coloured by f."""

import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from engines.errors import MissingPackageError
from engines.nplm import NullDistribution, Tail
from engines.null_plot import draw_density
from engines.types import AnyArray, Float64Array, FloatArray
from stream.alarm.contents import AlarmContents
from stream.alarm.view import principal_plane
from stream.report import ALARM_COLOUR

__all__ = ["check_umap", "draw_null_panel", "draw_plane", "flat_map", "threshold_t"]

#: Spreads of the null from its mean to which t is drawn where it is.
_FURTHEST = 60.0
#: Of more, UMAP takes minutes and a picture shows no more.
_MOST_EVENTS = 10_000


def threshold_t(null: NullDistribution, tail: Tail, p_value: float, n_widths: int) -> float | None:
    """Return the t of one kernel width at which a window alarms; None where there is none.

    Args:
        null: of that width.
        tail: which p decides.
        p_value: at which a window alarms, all widths together.
        n_widths: kernel widths; each has its share of p (Sidak), for the toys there is no such t.
    """
    if tail == "toys":
        n_above = int(p_value / null.resolution + 1e-9) - 1
        if n_widths > 1 or not 0 <= n_above < len(null.t):
            return None
        return float(np.nextafter(np.sort(null.t)[::-1][n_above], np.inf))
    share = -np.expm1(np.log1p(-p_value) / n_widths)
    chi2, gamma = stats.chi2(null.chi2_dof), stats.gamma(null.gamma_shape, scale=null.gamma_scale)
    t = float((chi2 if tail == "chi2" else gamma).isf(share))
    return t if np.isfinite(t) else None


def draw_null_panel(axes: Axes, alarm: AlarmContents) -> None:
    """Draw t of the toys with the fitted laws, the threshold, and t of the window."""
    result = alarm.result
    null = NullDistribution(np.ascontiguousarray(alarm.null.t[:, alarm.width]))
    draw_density(axes, null)
    t, low, high = float(result["t"]), *axes.get_xlim()
    least = threshold_t(null, result["alarm_on"], float(result["threshold_p"]), alarm.n_widths)
    if least is not None:
        label = f"alarms from t = {least:.1f}"
        axes.axvline(least, color=ALARM_COLOUR, linestyle="--", linewidth=1, label=label)
    label = f"this window: t = {t:.1f}, Z = {result['z_alarm']:.2f}"
    reach = _FURTHEST * (null.std or 1.0)
    edge = float(np.clip(t, null.mean - reach, null.mean + reach))
    axes.axvline(edge, color=ALARM_COLOUR, linewidth=2, label=label)
    if edge != t:
        side = 1 if t > edge else -1
        axes.annotate(
            "beyond the axis",
            (edge, 0.25),
            (-12 * side, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if side > 0 else "left",
            color=ALARM_COLOUR,
        )
    ends = [low, high, edge, *([] if least is None else [least])]
    margin = 0.04 * (max(ends) - min(ends))
    axes.set(xlim=(min(ends) - margin, max(ends) + margin), xlabel="t", ylabel="toys")
    axes.set_ylim(0, 1.55 * axes.get_ylim()[1] / 1.45)
    axes.legend(loc="upper left", framealpha=0.95, edgecolor="none", ncols=2, fontsize=8)
    width = f", sigma {float(result['sigma']):.3g}" if alarm.n_widths > 1 else ""
    axes.set_title(f"Test statistic against its null{width}", loc="left")


def draw_plane(axes: Axes, alarm: AlarmContents, *, umap: bool = False) -> None:
    """Draw the window's events in a plane, coloured by f, the most anomalous on top.

    Args:
        axes: where to draw.
        alarm: the window.
        umap: by UMAP instead of principal axes.

    Raises:
        MissingPackageError: if UMAP is asked for and not installed.
    """
    shown = _thinned(alarm.f)
    f = alarm.f[shown]
    plane, names = flat_map(alarm.embeddings[shown], umap=umap)
    if plane.shape[1] == 1:
        plane, names = np.column_stack([plane, f]), (names[0], "f")
    order = np.argsort(f)
    dots = axes.scatter(
        plane[order, 0],
        plane[order, 1],
        c=f[order],
        s=4.0 + 12.0 * (np.clip(f[order], 0.0, 2.0) / 2.0),
        cmap="coolwarm",
        norm=mpl.colors.Normalize(-2, 2),
        linewidths=0,
        rasterized=True,
    )
    figure = axes.get_figure()
    if figure is not None:
        label = "f: log density ratio, window over reference"
        figure.colorbar(dots, ax=axes, extend="both", label=label)
    axes.set(xlabel=names[0], ylabel=names[1])
    thinned = f" ({len(shown):,} of {len(alarm.f):,} events)" if len(shown) < len(alarm.f) else ""
    axes.set_title(f"Embedding, coloured by f{thinned}", loc="left")


def _thinned(f: FloatArray) -> AnyArray:
    """Return which events are shown: the most anomalous half, and a fair share of the others."""
    order = np.argsort(-f, kind="stable")
    if len(order) <= _MOST_EVENTS:
        return order
    certain = _MOST_EVENTS // 2
    others = np.random.default_rng(0).permutation(order[certain:])
    return np.concatenate([order[:certain], others[: _MOST_EVENTS - certain]])


def flat_map(embeddings: FloatArray, *, umap: bool) -> tuple[Float64Array, tuple[str, str]]:
    """Return events in two dimensions, (n, 2), or (n, 1) where there is one, and the axes' names.

    Raises:
        MissingPackageError: if UMAP is asked for and not installed.
    """
    if not umap:
        names = ("first principal axis", "second principal axis")
        return principal_plane(embeddings), names
    mapped: Any = _umap().UMAP(random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed seed costs its second thread
        return np.asarray(mapped.fit_transform(embeddings), np.float64), ("UMAP 1", "UMAP 2")


def check_umap() -> None:
    """Refuse UMAP where it is not installed, before the work that would be lost.

    Raises:
        MissingPackageError: with the extra that brings it.
    """
    _umap()


def _umap() -> Any:  # noqa: ANN401 - the package has no types
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optional parts that are not installed
            import umap
    except ImportError as exc:
        msg = "--umap needs umap-learn; install it with: pip install 'nplm-stream[umap]'"
        raise MissingPackageError(msg) from exc
    return umap
