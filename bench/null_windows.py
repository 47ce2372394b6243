"""Calibrations on endless background, and null windows that took part in none of them.

Background is a correlated Gaussian in four dimensions. The reference is held fixed, as a consumer
holds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.nplm import (
    BasisConfig,
    CachedReference,
    Loss,
    Tail,
    WidthNulls,
    draw_toys,
    offset_share,
)
from engines.types import Float64Array, FloatArray, IntArray
from engines.windows import WindowSpec

__all__ = ["MODES", "Budget", "Mode", "NullRun", "build_reference", "gaussians", "run_mode"]

_MIX = np.linalg.cholesky(0.6 * np.eye(4) + 0.4)


def gaussians(n: int, rng: np.random.Generator) -> FloatArray:
    """Draw n background events, (n, 4) float32: unit variances, correlations of 0.4."""
    return (rng.normal(size=(n, 4)) @ _MIX.T).astype(np.float32)


@dataclass(frozen=True)
class Budget:
    """How much is drawn.

    Attributes:
        n_windows: disjoint windows that were never seen by a calibration.
        n_toys: toys of each calibration.
        n_pool: events that the toys are drawn from.
        n_basis: events of the basis sample.
        threads: CPU threads.
    """

    n_windows: int = 600
    n_toys: int = 3000
    n_pool: int = 500_000
    n_basis: int = 5000
    threads: int = 2


@dataclass(frozen=True)
class Mode:
    """One way of cutting and testing windows.

    Attributes:
        title: what it is called in the table.
        count: whether a window holds a fixed number of events, or a Poisson number.
        n_expected: events expected in a window.
        n_ref: events of the reference.
        loss: what a fit minimises.
        sigma_quantiles: kernel widths.
        scale: windows that are merged into one before it is tested.
        n_panes: steps in a window; 1 where windows do not overlap.
        pool_factor: by how much the pool is larger than the budget's: merged windows are large.
    """

    title: str
    count: Literal["count", "time"] = "count"
    n_expected: int = 500
    n_ref: int = 5000
    loss: Loss = "cross-entropy"
    sigma_quantiles: tuple[float, ...] = (0.9,)
    scale: int = 1
    n_panes: int = 1
    pool_factor: int = 1

    @property
    def window(self) -> WindowSpec:
        """The window as a calibration knows it."""
        return WindowSpec(self.count, float(self.n_expected), 1.0 if self.count == "time" else 0.0)

    def n_tests(self, n_windows: int) -> int:
        """Return how many windows are tested in the length of so many."""
        return (n_windows - 1) * self.n_panes + 1


MODES: dict[str, Mode] = {
    "fixed": Mode("fixed count"),
    "poisson": Mode("Poisson count", count="time"),
    "widths": Mode("three widths, min-p", sigma_quantiles=(0.1, 0.5, 0.9)),
    "likelihood": Mode("likelihood loss", loss="likelihood"),
    "sliding": Mode("sliding, every fourth", n_panes=4),
    "nested": Mode("ten windows as one", n_expected=100, n_ref=10_000, scale=10, pool_factor=2),
}


@dataclass(frozen=True)
class NullRun:
    """The t of one mode.

    Attributes:
        mode: which.
        nulls: what its toys say.
        t: (n, n_widths) of all windows that were tested; every `mode.n_panes`-th is disjoint.
        offset_share: the pool's offset over the null's spread.
    """

    mode: Mode
    nulls: WidthNulls
    t: Float64Array
    offset_share: float

    def p_values(self, tail: Tail, *, every: int = 1) -> Float64Array:
        """Return p of every so-manieth window."""
        return np.array([self.nulls.tail_p_value(tail, t) for t in self.t[::every]])

    @property
    def t_disjoint(self) -> Float64Array:
        """T of windows that share no event."""
        return self.t[:: self.mode.n_panes]


def build_reference(
    rng: np.random.Generator,
    *,
    n_basis: int,
    n_ref: int,
    n_expected: float,
    sigma_quantiles: tuple[float, ...] = (0.9,),
    loss: Loss = "cross-entropy",
    threads: int = 1,
) -> CachedReference:
    """Draw a basis and a reference; centres are sqrt(n_ref + N(R)), as in a calibration."""
    config = BasisConfig(
        n_centres=round((n_ref + n_expected) ** 0.5),
        n_ref=n_ref,
        n_expected=n_expected,
        sigma_quantiles=sigma_quantiles,
    )
    samples = gaussians(n_basis, rng), gaussians(n_ref, rng)
    return CachedReference.build(*samples, config, loss=loss, threads=threads)


def run_mode(
    mode: Mode,
    budget: Budget,
    rng: np.random.Generator,
    done: Callable[[int], None] | None = None,
) -> NullRun:
    """Calibrate on a pool, then test windows of events that are in no pool.

    Args:
        mode: how windows are cut and tested.
        budget: how many.
        rng: of everything.
        done: called with the number of toys and windows finished since the last call.
    """
    reference = build_reference(
        rng,
        n_basis=budget.n_basis,
        n_ref=mode.n_ref,
        n_expected=mode.n_expected,
        sigma_quantiles=mode.sigma_quantiles,
        loss=mode.loss,
        threads=budget.threads,
    )
    n_pool = mode.pool_factor * budget.n_pool
    toys = draw_toys(mode.window, n_pool, budget.n_toys, rng, scale=mode.scale)
    pool = gaussians(n_pool, rng)
    nulls = WidthNulls(reference.test_toys(pool, toys, scale=mode.scale, done=done))
    if mode.scale > 1:
        t = _merged(reference, mode, budget.n_windows, rng)
    else:
        windows = _windows(mode, budget.n_windows, rng)
        t = reference.test_toys(gaussians(int(windows[-1][-1]) + 1, rng), windows, done=done)
    if mode.scale > 1 and done is not None:
        done(budget.n_windows)
    share = offset_share(mode.scale * mode.n_expected, n_pool, mode.n_ref)
    return NullRun(mode, nulls, t, share)


def _windows(mode: Mode, n_windows: int, rng: np.random.Generator) -> list[IntArray]:
    """Return the rows of each window of a stream that holds n_windows disjoint ones."""
    if mode.count == "time":
        counts = np.maximum(1, rng.poisson(mode.n_expected, n_windows))
        return np.split(np.arange(counts.sum()), np.cumsum(counts)[:-1])
    starts = mode.n_expected // mode.n_panes * np.arange(mode.n_tests(n_windows))
    return list(starts[:, None] + np.arange(mode.n_expected))


def _merged(
    reference: CachedReference, mode: Mode, n_windows: int, rng: np.random.Generator
) -> Float64Array:
    """Return t of merged windows, found as a consumer finds it: from sums of the single ones."""
    sums = []
    for _ in range(n_windows):
        psi = reference.features(gaussians(mode.scale * mode.n_expected, rng))
        single = [psi[row : row + mode.n_expected] for row in range(0, len(psi), mode.n_expected)]
        sums.append(sum(reference.sums([window]) for window in single))
    return reference.test_sums(np.array(sums), scale=mode.scale)
