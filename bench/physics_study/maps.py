"""What the fit sees: one window with signal, each event with its log density ratio f.

Source: arXiv:2502.15926 Fig. V.
"""

from collections.abc import Mapping

import numpy as np

from bench.experiment import varying
from bench.physics_study.measure import Deck, Division, divide
from engines.nplm import z_score
from engines.types import AnyArray, FloatArray

__all__ = ["score_window"]


def score_window(
    background: FloatArray,
    signal: FloatArray,
    *,
    window: int,
    fraction: float,
    divided: Mapping[str, int | None],
    threads: int = 1,
) -> dict[str, AnyArray]:
    """Test one window with signal; return its events.

    Args:
        background: (n, d) embeddings that training did not see.
        signal: (m, d) embeddings.
        window: events.
        fraction: of them that are signal, exactly.
        divided: toys, n_ref and seed of the division of the background.
        threads: CPU threads.

    Returns:
        `embeddings` (window, d) standardised as the kernel sees them, `f` (window,), `is_signal`
        (window,), `t` (1,) and `z` (1,), of the chi-square fitted to the toys.
    """
    background, signal = varying(background, signal)
    seed = divided["seed"] or 0
    division = divide(
        background,
        window=window,
        toys=divided["toys"] or 20,
        n_ref=divided["n_ref"],
        seed=1000 * seed,
        threads=threads,
    )
    n_signal = round(window * fraction)
    return _scored(division, _mixed(division.pool, signal, window, n_signal, seed), n_signal)


def _mixed(
    pool: FloatArray, signal: FloatArray, window: int, n_signal: int, seed: int
) -> FloatArray:
    """Return a window's events, (window, d), the signal last."""
    rng = np.random.default_rng([seed, 11])
    chosen = [
        pool[Deck(len(pool), rng).deal(window - n_signal)],
        signal[Deck(len(signal), rng).deal(n_signal)],
    ]
    return np.concatenate(chosen)


def _scored(division: Division, events: FloatArray, n_signal: int) -> dict[str, AnyArray]:
    tested = division.reference.test(events)
    basis = division.reference.basis
    standardised = (events - basis.mean.numpy()) / basis.std.numpy()
    return {
        "embeddings": standardised.astype(np.float32),
        "f": tested.f[0].astype(np.float32),
        "is_signal": np.arange(len(events)) >= len(events) - n_signal,
        "t": tested.t,
        "z": np.array([z_score(division.null.chi2_p_value(float(tested.t[0])))]),
    }
