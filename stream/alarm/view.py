"""What the live page shows of an alarm: its embedding plane and its most anomalous events."""

from typing import Any

import numpy as np

from engines.event_quantities import QUANTITIES, event_quantities
from engines.types import AnyArray, Float64Array, FloatArray, IntArray

__all__ = ["alarm_view", "principal_plane"]

_FIELDS = (
    *(
        "run",
        "window",
        "alarm_window",
        "t",
        "inverse_far_s",
        "t_end_ns",
        "p_relabelled",
        "n_events",
    ),
    *("n_relabellings", "relabelling", "below_null"),
)
_N_TOP = 10
_N_CERTAIN, _N_POINTS = 50, 1500
_DIGITS = 3


def alarm_view(
    embeddings: FloatArray, particles: FloatArray, f: AnyArray, record: dict[str, Any]
) -> dict[str, object]:
    """Return an alarm as the live page shows it, JSON-able.

    Args:
        embeddings: (n, d) of the window.
        particles: (n, 19, 3), its events; pT in GeV; (0, 19, 3) where only embeddings came.
        f: (n,) log density ratio of each event, window over reference.
        record: its result, `WindowResult.record()`.

    Returns:
        The result's main figures (`z` is the Z that alarmed); `plane` with `x`, `y`, `f` of the 50
        most anomalous events and a fair share of the others, 1500 in all, most anomalous first,
        and `axes`, what x and y are; `top`, the ten most anomalous events, the plane's first.
    """
    order = _shown(f)
    plane = principal_plane(embeddings)
    axes = ["first principal axis", "second principal axis"]
    if plane.shape[1] == 1:
        plane, axes = np.column_stack([plane, f]), ["embedding, standardised", "f"]
    top = order[:_N_TOP]
    quantities = event_quantities(particles[top]).T if len(particles) else ()
    columns = zip(QUANTITIES, quantities, strict=bool(len(quantities)))
    shown: dict[str, list[Any]] = {"f": _rounded(f[top])} | {
        quantity.name: values.astype(int).tolist() if quantity.is_count else _rounded(values)
        for quantity, values in columns
    }
    return {
        **{name: record.get(name) for name in _FIELDS},
        "z": record["z_alarm"],
        "plane": {
            "x": _rounded(plane[order, 0]),
            "y": _rounded(plane[order, 1]),
            "f": _rounded(f[order]),
            "axes": axes,
        },
        "top": [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)],
    }


def principal_plane(embeddings: AnyArray) -> Float64Array:
    """Return events in the plane of the two largest principal axes of their standardised embedding.

    Args:
        embeddings: (n, d).

    Returns:
        (n, 2); (n, 1) if d is 1. A coordinate without spread stays at 0.

    >>> principal_plane(np.array([[0.0, 5.0], [2.0, 5.0]])).round(6).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    centred = embeddings - embeddings.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    standard = centred / np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(standard.T @ standard)
    axes = vectors[:, np.argsort(-values)[:2]]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1.0, 1.0)
    plane: Float64Array = standard @ axes + 0.0
    return plane


def _shown(f: AnyArray) -> IntArray:
    """Return which events are shown: the most anomalous ones and, as they came, each so-manyth."""
    order = np.argsort(-f, kind="stable")
    certain, others = order[:_N_CERTAIN], np.sort(order[_N_CERTAIN:])
    n_others = min(len(others), _N_POINTS - _N_CERTAIN)
    picked = others[np.linspace(0, len(others) - 1, n_others).round().astype(np.int64)]
    chosen = np.concatenate([certain, picked])
    ranked: IntArray = chosen[np.argsort(-f[chosen], kind="stable")]
    return ranked


def _rounded(values: AnyArray) -> list[float]:
    rounded: list[float] = values.astype(np.float64).round(_DIGITS).tolist()
    return rounded
