"""Black boxes: unlabelled events with a hidden signal, cut into splits and tested one by one.

Each split is tested against several references: basis, reference and pool are drawn anew from the
background outside the box, with toys of their own. The references share that background, so their
spread is smaller than that of independent ones. The global significance of a box allows for the
number of its splits by Sidak's formula, without a floor, so that its mean is not pushed up where
there is no signal. All boxes are one draw of background, the same for all encoders: what that draw
holds by chance, each of them shows.

Source: arXiv:2502.15926 Table VII.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from bench.experiment import varying
from bench.physics_study.config import BlackBox
from bench.physics_study.measure import divide, rounded
from engines.errors import SampleSizeError
from engines.nplm import z_score
from engines.types import Float64Array, FloatArray

__all__ = ["NO_SIGNAL", "expected_largest", "global_z", "measure_boxes"]

NO_SIGNAL = "none"


def measure_boxes(
    background: FloatArray,
    signals: Mapping[str, FloatArray],
    config: BlackBox,
    threads: int = 1,
) -> dict[str, Any]:
    """Return t and Z of every split of every box against every reference, JSON-able.

    Args:
        background: (n, d) embeddings that training did not see.
        signals: (m, d) embeddings by name; one box is made with each, one without.
        config: boxes and references.
        threads: CPU threads.

    Raises:
        SampleSizeError: if the events are too few.
    """
    background, *others = varying(background, *signals.values())
    rng = np.random.default_rng([config.seed, 7])
    n_box = config.splits * config.window
    order = rng.permutation(len(background))
    inside, outside = background[order[:n_box]], background[order[n_box:]]
    n_signal = round(config.fraction * n_box)
    boxes = {NO_SIGNAL: inside}
    for name, events in zip(signals, others, strict=True):
        if len(events) < n_signal:
            msg = f"a black box needs {n_signal} events of {name}; there are {len(events)}"
            raise SampleSizeError(msg)
        chosen = events[rng.permutation(len(events))[:n_signal]]
        mixed = np.concatenate([inside[: n_box - n_signal], chosen])
        boxes[name] = mixed[rng.permutation(n_box)]
    tested = _test(outside, boxes, config, threads)
    return {"settings": asdict(config), "n_signal": n_signal, **tested}


def _test(
    outside: FloatArray, boxes: Mapping[str, FloatArray], config: BlackBox, threads: int
) -> dict[str, Any]:
    windows = np.arange(config.splits * config.window).reshape(config.splits, config.window)
    t: dict[str, list[list[float]]] = {name: [] for name in boxes}
    z: dict[str, list[list[float]]] = {name: [] for name in boxes}
    references = []
    for number in range(config.references):
        division = divide(
            outside,
            window=config.window,
            toys=config.toys,
            n_ref=config.n_ref,
            seed=1000 * config.seed + 500 + number,
            threads=threads,
        )
        references.append(division.facts())
        for name, events in boxes.items():
            values = division.reference.test_toys(events, windows)[:, 0]
            t[name].append(rounded(values))
            z[name].append(rounded(z_score(division.null.chi2_p_value(value)) for value in values))
    return {
        "references": references,
        "boxes": [{"signal": name, "t": t[name], "z": z[name]} for name in boxes],
    }


def global_z(z: Float64Array) -> float:
    """Return the significance of the largest of several Z, by Sidak.

        p_global = 1 - (1 - p_smallest)^n

    For n independent splits without signal it is standard normal, of mean 0; for small p it is
    Bonferroni's n p.

    Args:
        z: (n,) local significances of the splits.

    >>> round(global_z(np.array([0.0, 3.0])), 2)
    2.78
    """
    return z_score(-math.expm1(len(z) * float(stats.norm.logcdf(np.max(z)))))


def expected_largest(n: int) -> float:
    """Return the mean of the largest of n independent standard normal Z.

    >>> round(expected_largest(10), 2)
    1.54
    """
    grid = np.linspace(-10.0, 10.0, 4001)
    largest = n * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** (n - 1)
    return float(np.trapezoid(grid * largest, grid))
