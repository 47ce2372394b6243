"""Months of background through the monitor: are there as many false alarms as were promised?

Every event of every sample, basis, reference, pool and windows, is drawn at random, with
replacement, from one large set of simulated background. So the null holds exactly, for that set's
own distribution, and samples are independent; an event may stand in several of them. Each month has
a calibration of its own, and its windows are tested by the consumer's monitor, one every few
minutes of a made-up clock. A drifting month scales the jets of its events a little more with every
window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bench.drift import scale_jets
from engines.calibration import Running, calibrate_embeddings
from engines.calibration_config import CalibrationConfig, Sizes
from engines.engine import Engine
from engines.nplm import offset_share
from engines.nplm.null import proportion_interval
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import Float64Array, FloatArray, IntArray
from engines.windows import WindowSpec
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.block import Block
from stream.features import PendingFeatures
from stream.monitor import Monitor
from stream.window import ClosedWindow
from stream.window_result import WindowResult

__all__ = ["MONTH_S", "Month", "MonthConfig", "run_month", "summarise"]

MONTH_S = 30 * 86_400.0
_CHUNK = 100
#: The consumer's default.
_REFRACTORY_S = 600.0
_PARTS = 4
#: Rates at which alarms are counted again, from the p-values of the same windows.
_RATES = ("1/month", "1/week", "1/day")


@dataclass(frozen=True)
class MonthConfig:
    """Sizes of a month.

    Attributes:
        windows: in it, evenly spaced.
        window: events in each.
        n_ref, n_pool, n_toys: of its calibration.
        far: the false-alarm rate of the monitor.
        drift: relative change of the jet energy scale from the first window to the last.
        threads: CPU threads.
    """

    windows: int = 5000
    window: int = 5000
    n_ref: int = 40_000
    n_pool: int = 400_000
    n_toys: int = 1000
    far: str = "1/month"
    drift: float = 0.0
    threads: int = 2

    @property
    def spacing_s(self) -> float:
        """Seconds between windows."""
        return MONTH_S / self.windows


@dataclass(frozen=True)
class Month:
    """What the monitor said of each window."""

    config: MonthConfig
    results: list[WindowResult]


def run_month(
    engine: Engine,
    particles: FloatArray,
    embeddings: FloatArray,
    config: MonthConfig,
    rng: np.random.Generator,
    done: Callable[[int], None] = lambda _: None,
) -> Month:
    """Calibrate, then test a month of windows.

    Args:
        engine: the encoder.
        particles: (n, 19, 3) background, pT in GeV: what everything is drawn from.
        embeddings: (n, d) of the same events.
        config: sizes.
        rng: of all that is drawn.
        done: called with the number of windows tested since the last call.
    """
    artifact = _calibrated(engine, embeddings, config, rng)
    monitor = Monitor(
        artifact, Rules(FalseAlarmRate.parse(config.far), refractory_s=_REFRACTORY_S), run="month"
    )
    results = []
    for first in range(0, config.windows, _CHUNK):
        n = min(_CHUNK, config.windows - first)
        drawn = rng.integers(len(particles), size=(n, config.window))
        embedded = embeddings[drawn]
        if config.drift:
            time = (np.arange(first, first + n) + 0.5) / config.windows
            factor = np.repeat((1.0 + config.drift * time).astype(np.float32), config.window)
            moved = scale_jets(particles[drawn.ravel()], factor)
            embedded = engine.embed(moved).reshape(*drawn.shape, -1)
        for index, window in enumerate(embedded, first):
            results.append(monitor.examine(_window(monitor, window, index, config))[0])
        done(n)
    return Month(config, results)


def _calibrated(
    engine: Engine, embeddings: FloatArray, config: MonthConfig, rng: np.random.Generator
) -> ReferenceArtifact:
    seed = int(rng.integers(2**31))
    wanted = CalibrationConfig(
        WindowSpec("count", config.window), n_toys=config.n_toys, n_ref=config.n_ref, seed=seed
    )
    n_centres = int(np.ceil(np.sqrt(config.n_ref + config.window)))
    sizes = Sizes(max(5000, 5 * n_centres), config.n_ref, config.n_pool, n_centres)
    n_drawn = sizes.n_basis + sizes.n_ref + sizes.n_pool
    sample = embeddings[rng.integers(len(embeddings), size=n_drawn)]
    made = calibrate_embeddings(sample, sizes, wanted, Running(threads=config.threads, quiet=True))
    facts = ReferenceFacts(
        engine_fingerprint=engine.fingerprint,
        window=wanted.window,
        samples=(),
        n_basis=sizes.n_basis,
        n_ref=sizes.n_ref,
        n_pool=sizes.n_pool,
        n_toys=config.n_toys,
        loss=wanted.loss,
        store=wanted.store,
        offset_shares={1: offset_share(config.window, config.n_pool, config.n_ref)},
    )
    return ReferenceArtifact(made.reference, made.nulls, facts)


def _window(
    monitor: Monitor, embeddings: FloatArray, index: int, config: MonthConfig
) -> ClosedWindow:
    start_ns, end_ns = (int(1e9 * config.spacing_s * i) for i in (index, index + 1))
    features = PendingFeatures.of(monitor.features(embeddings))
    particles = np.empty((len(embeddings), 0, 0), np.float32)
    block = Block("background", index, end_ns, particles, embeddings, features)
    return ClosedWindow(index, start_ns, end_ns, (block,))


def summarise(months: list[Month]) -> dict[str, Any]:
    """Return alarms seen against alarms promised, over all months of one kind, JSON-able."""
    config = months[0].config
    p = {
        "chi2": np.array([[r.p_chi2 for r in month.results] for month in months]),
        "gamma": np.array([[r.p_gamma for r in month.results] for month in months]),
        "toys": np.array([[r.p for r in month.results] for month in months]),
    }
    z = np.array([[r.z_alarm for r in month.results] for month in months])
    parts = np.array_split(np.arange(config.windows), _PARTS)
    return {
        "months": len(months),
        "windows": int(z.size),
        "drift": config.drift,
        "alarms": [sum(r.onset for r in month.results) for month in months],
        "alarming_windows": [sum(r.alarm for r in month.results) for month in months],
        "trials": [month.results[-1].trials for month in months],
        "rates": {
            rate: {name: _rate(one, rate, config) for name, one in p.items()} for rate in _RATES
        },
        "ks_p_toys": float(stats.kstest(p["toys"].ravel(), "uniform").pvalue),
        "by_part": [_part(z[:, part], months, part) for part in parts],
    }


def _rate(p: Float64Array, rate: str, config: MonthConfig) -> dict[str, Any]:
    """Return windows at or below the threshold of a rate, promised and seen."""
    threshold = FalseAlarmRate.parse(rate).threshold_p(config.spacing_s)
    by_month = (p <= threshold).sum(axis=1)
    seen = int(by_month.sum())
    low, high = proportion_interval(seen, p.size, 0.95)
    return {
        "threshold_p": threshold,
        "promised": threshold * p.size,
        "seen": seen,
        "mean_in_95": [float(low) * p.size, float(high) * p.size],
        "binomial_p": float(stats.binomtest(seen, p.size, threshold).pvalue),
        "by_month": by_month.tolist(),
    }


def _part(z: Float64Array, months: list[Month], part: IntArray) -> dict[str, Any]:
    """Return what a part of the month gave."""
    first, stop = int(part[0]), int(part[-1]) + 1
    results = [result for month in months for result in month.results[first:stop]]
    return {
        "first_window": first,
        "mean_z": float(z.mean()),
        "mean_z_error": float(z.std(ddof=1) / np.sqrt(z.size)),
        "alarming_windows": sum(result.alarm for result in results),
        "promised": sum(result.threshold_p for result in results),
    }
