"""Z of one embedding: windows with signal against calibrations on background unseen in training.

The background that no encoder has seen is divided at random into basis, reference and pool; toys
give the null of t for windows of that pool, and the windows with signal are filled up from the
same pool. This is done for several divisions. What is shared, and what that does:

- Toys and windows of one division, of all signals and fractions, share the pool's background. Each
  is drawn without replacement; they are disjoint until the pool is used up, then overlap by the
  share that a window is of the pool.
- Windows and toys of one pool carry the same deviation of that pool from the truth, so the offset
  between a calibration and other events (`engines.nplm.offset_share`) does not enter Z. A window
  from events of its own would scatter by that offset on top. The variance of the toys' t is smaller
  than that of windows of endless background against the same reference, for t a quadratic form, by

      (1 - w^2 + 2 v (1 - w)) / (1 + 2 v)    with w = window / pool, v = window / reference

  which is 0.94 for w = 1/7 and v = 1/4, hence a spread of 0.969; tests/unit/
  test_bench_physics_measure.py simulates it.
- The signal's excess times the difference of pool and reference moves all t of one division
  together. Over random divisions of the same events that difference is zero on average; hence
  several divisions, and the band over windows holds its scatter.
- All divisions share the same background events, and all encoders the same divisions and windows:
  differences between encoders are better known than each of them.
- Windows of one signal and fraction hold disjoint signal events until those are used up, then
  shuffled anew; `signal_uses` says how often an event is used on average. Above 1, the band over
  windows is too narrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.experiment import varying
from bench.physics_study.config import MeasureConfig
from engines.calibration import Running, calibrate_embeddings
from engines.calibration_config import CalibrationConfig, Sizes, choose_sizes
from engines.errors import SampleSizeError
from engines.nplm import CachedReference, NullDistribution
from engines.types import FloatArray, IntArray
from engines.windows import WindowSpec

__all__ = ["Deck", "Division", "divide", "measure_windows"]

_SEEDS = 1000


class Deck:
    """Deals indices of `n` events, each once, then shuffles and deals anew.

    Args:
        n: events.
        rng: of the shuffles.
    """

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        """Shuffle."""
        self._order, self._used, self._rng = rng.permutation(n), 0, rng

    def deal(self, n: int) -> IntArray:
        """Return n different indices.

        Raises:
            SampleSizeError: if there are fewer.
        """
        if n > len(self._order):
            msg = f"a window needs {n} events of a kind; there are {len(self._order)}"
            raise SampleSizeError(msg)
        if self._used + n > len(self._order):
            self._order, self._used = self._rng.permutation(len(self._order)), 0
        self._used += n
        return self._order[self._used - n : self._used]


@dataclass(frozen=True)
class Division:
    """Background divided into basis, reference and pool, and calibrated.

    Attributes:
        reference: made ready.
        null: t of the toys, windows of the pool.
        pool: (n_pool, d) embeddings.
        sizes: of the parts.
        seed: of the division.
    """

    reference: CachedReference
    null: NullDistribution
    pool: FloatArray
    sizes: Sizes
    seed: int

    def facts(self) -> dict[str, Any]:
        """Return what a record keeps of it, JSON-able."""
        return {
            "seed": self.seed,
            "n_basis": self.sizes.n_basis,
            "n_ref": self.sizes.n_ref,
            "n_pool": self.sizes.n_pool,
            "rank": self.reference.basis.rank,
            "sigma": self.reference.basis.sigmas[0],
            "toys": rounded(self.null.t),
        }


def divide(
    background: FloatArray,
    *,
    window: int,
    toys: int,
    n_ref: int | None,
    seed: int,
    threads: int = 1,
) -> Division:
    """Shuffle embeddings, (n, d), into basis, reference and pool as calibrate-reference does."""
    config = CalibrationConfig(
        WindowSpec("count", float(window)), n_toys=toys, n_ref=n_ref, seed=seed
    )
    sizes = choose_sizes(len(background), config)
    running = Running(threads=threads, quiet=True)  # a study has a progress bar of its own
    made = calibrate_embeddings(background, sizes, config, running)
    return Division(made.reference, made.nulls[1].nulls[0], made.pool, sizes, seed)


def measure_windows(
    background: FloatArray,
    signals: Mapping[str, FloatArray],
    config: MeasureConfig,
    threads: int = 1,
) -> dict[str, Any]:
    """Return t of toys and of windows with signal for every division, JSON-able.

    Args:
        background: (n, d) embeddings that training did not see.
        signals: (m, d) embeddings by name.
        config: windows, shares and divisions.
        threads: CPU threads.

    Raises:
        SampleSizeError: if a window needs more events than there are.
    """
    background, *others = varying(background, *signals.values())
    decks = {
        (name, fraction): Deck(len(events), _rng(config.seed, index, fraction))
        for index, (name, events) in enumerate(zip(signals, others, strict=True))
        for fraction in config.fractions
    }
    divisions = []
    for number in range(config.splits):
        division = divide(
            background,
            window=config.window,
            toys=config.toys,
            n_ref=config.n_ref,
            seed=_SEEDS * config.seed + number,
            threads=threads,
        )
        n_windows = _dealt(config.windows, config.splits, number)
        cells = _windows(
            division, dict(zip(signals, others, strict=True)), decks, config, n_windows
        )
        divisions.append({**division.facts(), "cells": cells})
    return {"divisions": divisions, "signal_uses": _uses(others, config)}


def _windows(
    division: Division,
    signals: Mapping[str, FloatArray],
    decks: Mapping[tuple[str, float], Deck],
    config: MeasureConfig,
    n_windows: int,
) -> list[dict[str, Any]]:
    rng = np.random.default_rng([config.seed, division.seed])
    background, first = Deck(len(division.pool), rng), len(division.pool)
    starts = {}
    for name, events in signals.items():
        starts[name], first = first, first + len(events)
    windows = []
    for (name, fraction), deck in decks.items():
        for _ in range(n_windows):
            n_signal = int(rng.binomial(config.window, fraction))
            chosen = starts[name] + deck.deal(n_signal)
            windows.append(np.concatenate([background.deal(config.window - n_signal), chosen]))
    everything = np.concatenate([division.pool, *signals.values()])
    t = division.reference.test_toys(everything, windows)[:, 0].reshape(len(decks), n_windows)
    return [
        {"signal": name, "fraction": fraction, "t": rounded(values)}
        for (name, fraction), values in zip(decks, t, strict=True)
    ]


def _rng(seed: int, index: int, fraction: float) -> np.random.Generator:
    return np.random.default_rng([seed, index, round(1e6 * fraction)])


def _dealt(n: int, parts: int, number: int) -> int:
    """Return how many of n fall to one of the parts, as evenly as can be."""
    return n // parts + (number < n % parts)


def _uses(signals: list[FloatArray], config: MeasureConfig) -> float:
    """Return how often a signal event is used on average in the most demanding cell."""
    needed = config.windows * config.window * max(config.fractions)
    return round(max((needed / len(events) for events in signals), default=0.0), 3)


def rounded(values: Any) -> list[float]:  # noqa: ANN401 - any array of numbers
    """Return numbers with six digits, as a record keeps them."""
    return [float(f"{value:.6g}") for value in values]
