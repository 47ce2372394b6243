"""Are p-values of null windows uniform?

Modes with toys are judged on windows of one calibration. The p-values of relabelling share the
reference, which makes them dependent, so each experiment there has a basis, a reference and a
window of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bench.null_windows import NullRun, build_reference, gaussians
from engines.nplm import NullDistribution
from engines.nplm.null import Tail, proportion_interval
from engines.types import Float64Array

__all__ = [
    "FALSE_ALARM",
    "RelabelConfig",
    "relabelled_p_values",
    "summarise",
    "summarise_relabelling",
]

#: The false-alarm rate at which alarms are counted: so many in the length of one window.
FALSE_ALARM = 0.01
_TAILS: tuple[Tail, ...] = ("toys", "chi2", "gamma")


def summarise(run: NullRun) -> dict[str, Any]:
    """Return how uniform the p-values of disjoint windows are, JSON-able.

    The one-sample KS tests take the calibration as exact. `ks_p_two_sample`, fresh t against the
    toys' t, allows for the toys' number; of several widths it is the smallest p times their number.
    The tails of several widths are Bonferroni's, which are not meant to be uniform: None.
    """
    mode, widths = run.mode, run.nulls.n_widths
    p = {tail: run.p_values(tail, every=mode.n_panes) for tail in _TAILS}
    pairs = zip(run.nulls.t.T, run.t_disjoint.T, strict=True)
    two_sample = min(float(stats.ks_2samp(toys, fresh).pvalue) for toys, fresh in pairs)
    result = {
        "title": mode.title,
        "windows": len(run.t_disjoint),
        "toys": run.nulls.n_toys,
        "events": mode.scale * mode.n_expected,
        "n_ref": mode.n_ref,
        "offset_share": run.offset_share,
        "ks_p_two_sample": min(1.0, widths * two_sample),
        "t_toys": [[null.mean, null.std] for null in run.nulls.nulls],
        "t_windows": [[float(t.mean()), float(t.std(ddof=1))] for t in run.t_disjoint.T],
        "far_below": {"toys": _n_below(run, run.nulls.t), "windows": _n_below(run, run.t_disjoint)},
    }
    for tail, values in p.items():
        is_law = tail != "toys"
        uniform = not (is_law and widths > 1)
        result[f"ks_p_{tail}"] = _uniformity(values) if uniform else None
        result[f"below_{tail}"] = {f"{x:g}": _share(values, x) for x in (0.05, FALSE_ALARM)}
        if is_law:
            result[f"fit_ks_p_{tail}"] = run.nulls.ks_p(tail)
    if mode.n_panes > 1:
        result["overlapping"] = _overlapping(run)
    return result


def _n_below(run: NullRun, t: Float64Array) -> int:
    """Return how many lie far below the null, as `is_below` has it, in any width."""
    return sum(
        any(map(NullDistribution.is_below, run.nulls.nulls, of_widths)) for of_widths in t.tolist()
    )


def _uniformity(p_values: Float64Array) -> float:
    return float(stats.kstest(p_values, "uniform").pvalue)


def _share(p_values: Float64Array, least: float) -> dict[str, Any]:
    """Return how many windows lie at or below a p-value, and how many would by right."""
    # A p-value of k / (n + 1) may exceed k hundredths by rounding.
    seen = int((p_values <= least * (1 + 1e-9)).sum())
    low, high = proportion_interval(seen, len(p_values))
    return {
        "expected": least * len(p_values),
        "seen": seen,
        "share": seen / len(p_values),
        "share_68": [float(low), float(high)],
    }


def _overlapping(run: NullRun) -> dict[str, Any]:
    """Return, for information, how all overlapping windows hang together and alarm.

    Each is charged for one step; alarms of windows that share events are one cluster.
    """
    n_panes, t = run.mode.n_panes, run.t[:, 0]
    p = run.p_values("toys")
    alarms = np.flatnonzero(p <= FALSE_ALARM / n_panes)
    return {
        "windows": len(t),
        "false_alarms": _share(p, FALSE_ALARM / n_panes),
        "clusters": int((np.diff(alarms) >= n_panes).sum() + 1) if len(alarms) else 0,
        "correlation_by_lag": [
            float(np.corrcoef(t[:-lag], t[lag:])[0, 1]) for lag in range(1, n_panes + 1)
        ],
    }


@dataclass(frozen=True)
class RelabelConfig:
    """Sizes of an experiment by relabelling; the basis is small, for it is built every time."""

    n_experiments: int = 600
    n_relabellings: int = 99
    n_basis: int = 600
    n_ref: int = 3000
    n_data: int = 300
    sigma_quantiles: tuple[float, ...] = (0.9,)


def relabelled_p_values(
    config: RelabelConfig,
    rng: np.random.Generator,
    done: Callable[[int], None] | None = None,
) -> Float64Array:
    """Return p of independent experiments, each k / (n_relabellings + 1) for a whole k."""
    p_values = []
    for _ in range(config.n_experiments):
        reference = build_reference(
            rng,
            n_basis=config.n_basis,
            n_ref=config.n_ref,
            n_expected=config.n_data,
            sigma_quantiles=config.sigma_quantiles,
        )
        window = reference.features(gaussians(config.n_data, rng))
        result = reference.relabel([window], n_relabellings=config.n_relabellings, rng=rng)
        p_values.append(result.p_value)
        if done is not None:
            done(1)
    return np.array(p_values)


def summarise_relabelling(
    p_values: Float64Array, config: RelabelConfig, rng: np.random.Generator
) -> tuple[dict[str, Any], Float64Array]:
    """Return how evenly p falls on its n_relabellings + 1 values, JSON-able, and p made continuous.

    `chi2_p_steps` is Pearson's test of the counts at each value. `ks_p_randomised` spreads each p
    evenly over the step below it, which makes an exact p continuous and uniform.
    """
    n_values = config.n_relabellings + 1
    ranks = np.rint(p_values * n_values).astype(int)
    randomised = (ranks - rng.random(len(ranks))) / n_values
    result = {
        "title": "relabelling",
        "windows": len(p_values),
        "relabellings": config.n_relabellings,
        "events": config.n_data,
        "n_ref": config.n_ref,
        "chi2_p_steps": float(stats.chisquare(np.bincount(ranks - 1, minlength=n_values)).pvalue),
        "ks_p_randomised": _uniformity(randomised),
        "below_toys": {f"{x:g}": _share(p_values, x) for x in (0.05, FALSE_ALARM)},
    }
    return result, randomised
