"""Does the reported systematic cover what a small pool does to a calibration?

Toys drawn from one pool share its deviation from the truth, so all their t are off together. A
calibration reports the size of that offset (`offset_share`) and no more; here many independent ones
are made, and each is compared with windows of events that no pool holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bench.null_windows import build_reference, gaussians
from engines.nplm import NullDistribution, draw_toys, offset_share, z_score
from engines.types import Float64Array
from engines.windows import WindowSpec

__all__ = ["CoverageConfig", "SmallPool", "coverage", "small_pools"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)


@dataclass(frozen=True)
class CoverageConfig:
    """Sizes; every calibration has a basis, reference, pool, toys and fresh windows of its own."""

    n_calibrations: int = 48
    n_data: int = 5000
    n_pool: int = 20_000
    n_ref: int = 20_000
    n_toys: int = 99
    n_fresh: int = 60
    n_basis: int = 1000
    threads: int = 2

    @property
    def offset_share(self) -> float:
        """The systematic that a calibration reports, over the null's spread."""
        return offset_share(self.n_data, self.n_pool, self.n_ref)

    @property
    def statistical(self) -> float:
        """What the numbers of toys and fresh windows leave open, over the null's spread."""
        return float(np.sqrt(1 / self.n_toys + 1 / self.n_fresh))


@dataclass(frozen=True)
class SmallPool:
    """One calibration.

    Attributes:
        null: of its toys.
        fresh: the truth: of windows that share no event with each other or the pool.
    """

    null: NullDistribution
    fresh: NullDistribution

    @property
    def shift(self) -> float:
        """How far the toys' mean lies above the truth, in units of the toys' spread."""
        return (self.null.mean - self.fresh.mean) / self.null.std


def small_pools(
    config: CoverageConfig, rng: np.random.Generator, done: Callable[[int], None] | None = None
) -> list[SmallPool]:
    """Make the calibrations.

    Args:
        config: sizes.
        rng: of everything.
        done: called with 1 after each.
    """
    window = WindowSpec("count", float(config.n_data))
    rows = list(np.arange(config.n_fresh * config.n_data).reshape(config.n_fresh, config.n_data))
    pools = []
    for _ in range(config.n_calibrations):
        reference = build_reference(
            rng,
            n_basis=config.n_basis,
            n_ref=config.n_ref,
            n_expected=config.n_data,
            threads=config.threads,
        )
        toys = draw_toys(window, config.n_pool, config.n_toys, rng)
        t_toys = reference.test_toys(gaussians(config.n_pool, rng), toys)[:, 0]
        t_fresh = reference.test_toys(gaussians(len(rows) * config.n_data, rng), rows)[:, 0]
        pools.append(SmallPool(NullDistribution(t_toys), NullDistribution(t_fresh)))
        if done is not None:
            done(1)
    return pools


def coverage(pools: Sequence[SmallPool], config: CoverageConfig) -> dict[str, Any]:
    """Return what the systematic covers, JSON-able.

    Shifts hold the statistical error of toys and fresh windows as well: the interval of
    `shift_within` is the systematic and that error in quadrature, and the error's variance is
    subtracted from that of `shift_std`. If the systematic is the standard deviation that it is said
    to be, the shares within one and two are 68 and 95 %. The intervals on Z are the systematic
    alone, as a result line has it.
    """
    share, statistical = config.offset_share, config.statistical
    shifts = np.array([pool.shift for pool in pools])
    errors = np.hypot(share, statistical)
    n, variance = len(shifts), float(shifts.var(ddof=1))
    std = max(variance - statistical**2, 0.0) ** 0.5
    z_off, z_systematic = _z_of_fresh(pools, share)
    return {
        "calibrations": n,
        "fresh_windows": n * config.n_fresh,
        "offset_share": share,
        "statistical": statistical,
        "shifts": shifts.tolist(),
        "shift_mean": float(shifts.mean()),
        "shift_mean_error": (variance / n) ** 0.5,
        "shift_std": std,
        "shift_std_error": variance / (2 * (n - 1)) ** 0.5 / max(std, statistical),
        "shift_within": {str(k): float((np.abs(shifts) <= k * errors).mean()) for k in (1, 2)},
        "z_within": {str(k): float((np.abs(z_off) <= k * z_systematic).mean()) for k in (1, 2)},
        "z_within_expected": {
            str(k): float(special.erf(k * share / errors / np.sqrt(2))) for k in (1, 2)
        },
        "p_below_0.05": {
            "as calibrated": _false_alarms(pools, _raw),
            "t lowered by the systematic": _false_alarms(pools, lambda p, t: _lowered(p, t, share)),
            "averaged over the systematic": _false_alarms(
                pools, lambda p, t: _averaged(p, t, share)
            ),
        },
    }


def _z_of_fresh(pools: Sequence[SmallPool], share: float) -> tuple[Float64Array, Float64Array]:
    """Return how far each fresh window's Z is off, and the systematic reported with it."""
    off, systematic = [], []
    for pool in pools:
        for t in pool.fresh.t.tolist():
            said, true = (z_score(null.chi2_p_value(t)) for null in (pool.null, pool.fresh))
            off.append(said - true)
            systematic.append(pool.null.z_shift("chi2", t, share * pool.null.std))
    return np.array(off), np.array(systematic)


def _false_alarms(
    pools: Sequence[SmallPool], p_value: Callable[[SmallPool, float], float]
) -> dict[str, Any]:
    """Return the share of fresh windows with p <= 0.05, and how it varies with the calibration."""
    shares = np.array(
        [np.mean([p_value(pool, t) <= 0.05 + 1e-12 for t in pool.fresh.t]) for pool in pools]
    )
    low, high = np.quantile(shares, (0.16, 0.84))
    return {
        "share": float(shares.mean()),
        "error": float(shares.std(ddof=1) / len(shares) ** 0.5),
        "by_calibration_68": [float(low), float(high)],
        "worst": float(shares.max()),
    }


def _raw(pool: SmallPool, t: float) -> float:
    return pool.null.p_value(t)


def _lowered(pool: SmallPool, t: float, share: float) -> float:
    return pool.null.p_value(t - share * pool.null.std)


def _averaged(pool: SmallPool, t: float, share: float) -> float:
    """Return the empirical p averaged over a Gaussian offset of t, by Gauss-Hermite nodes."""
    offsets = share * pool.null.std * _NODES
    p_values = [pool.null.p_value(t + offset) for offset in offsets.tolist()]
    return float(np.average(p_values, weights=_WEIGHTS))
