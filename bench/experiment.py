"""How well one representation finds signals, and how honest its null is.

Every representation sees the same events in the same windows: window k is background events of its
own plus signal events of its own, their number binomial. Windows of one signal and fraction are
disjoint; windows of different signals or fractions share background.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from engines.artifact import EngineFacts, SampleFacts
from engines.calibration import calibrate_embeddings
from engines.calibration_config import CalibrationConfig, choose_sizes
from engines.engine import Engine
from engines.errors import SampleSizeError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.nplm import CachedReference, NullDistribution, z_score
from engines.types import Float64Array, FloatArray, IntArray
from engines.unseen import refuse_marked_events, refuse_training_events

__all__ = ["Embedding", "Experiment", "embed_range", "signal_windows", "varying"]

Embedding: TypeAlias = Callable[[FloatArray], FloatArray]
#: Inputs that are absent in all but this share of events are left out: they do not vary.
_LEAST_PRESENT = 0.001


def embed_range(
    embed: Embedding, source: EventRange, unseen_by: EngineFacts | None = None
) -> FloatArray:
    """Return the embeddings of a range of a file, (n, d) float32.

    Args:
        embed: kinematics, (n, 19, 3), to embeddings, (n, d).
        source: the range.
        unseen_by: facts of an encoder that must recognise none of the events, or None.

    Raises:
        MismatchError: if it recognises some.
    """
    blocks = []
    with EventFile(source.path) as file:
        for particles in file.slices(source.start, source.stop):
            if unseen_by is not None:
                refuse_marked_events(unseen_by, particles, source.path)
            blocks.append(embed(particles))
    return np.concatenate(blocks)


def varying(background: FloatArray, *others: FloatArray) -> list[FloatArray]:
    """Return all embeddings, (n, d), without coordinates that are 0 in almost all background."""
    kept = (background != 0).mean(axis=0) > _LEAST_PRESENT
    return [np.ascontiguousarray(part[:, kept]) for part in (background, *others)]


def signal_windows(
    n_background: int, n_signal: int, window: int, fraction: float, rng: np.random.Generator
) -> Iterator[IntArray]:
    """Yield each window's indices into background followed by signal.

    Args:
        n_background: background events there are; as many windows as they fill.
        n_signal: signal events there are.
        window: events in a window.
        fraction: expected signal share of a window.
        rng: of the binomial counts.
    """
    used = 0
    for first in range(0, n_background - window + 1, window):
        n_injected = int(rng.binomial(window, fraction))
        if used + n_injected > n_signal:
            return
        background = np.arange(first, first + window - n_injected)
        signal = n_background + np.arange(used, used + n_injected)
        used += n_injected
        yield np.concatenate([background, signal])


@dataclass(frozen=True)
class Experiment:
    """One representation's embeddings of the calibration, test and signal events, each (n, d)."""

    calibration: FloatArray
    test: FloatArray
    signals: dict[str, FloatArray]

    @classmethod
    def of(
        cls,
        engine: Engine,
        calibration: EventRange,
        test: EventRange,
        signals: dict[str, EventRange],
    ) -> "Experiment":
        """Embed everything; drop coordinates that hardly vary in the calibration events.

        Raises:
            MismatchError: if the encoder was trained on some of the events.
        """
        sources = (calibration, test, *signals.values())
        refuse_training_events(engine.facts, map(SampleFacts.of, sources))
        first, second, *others = varying(
            *(embed_range(engine.embed, source, engine.facts) for source in sources)
        )
        return cls(first, second, dict(zip(signals, others, strict=True)))

    def calibrate(self, config: CalibrationConfig) -> tuple[CachedReference, NullDistribution]:
        """Return the reference and the null of its one width from the calibration events."""
        sizes = choose_sizes(len(self.calibration), config)
        made = calibrate_embeddings(self.calibration, sizes, config)
        return made.reference, made.nulls[1].nulls[0]

    def null_honesty(self, config: CalibrationConfig) -> dict[str, Any]:
        """Return how uniform the p-values of disjoint windows of unused background are.

        The KS tests against uniformity take the calibration as exact, so its toys should be many
        more than the windows; `ks_p_two_sample`, toys against windows, allows for both.
        """
        reference, null = self.calibrate(config)
        window = round(config.window.n_expected)
        n_windows = len(self.test) // window
        if n_windows < 2:
            msg = f"the test events must fill two windows of {window}; got {len(self.test)}"
            raise SampleSizeError(msg)
        toys = np.arange(n_windows * window).reshape(n_windows, window)
        t = reference.test_toys(self.test, toys)[:, 0]
        p = np.array([null.p_value(value) for value in t])
        p_chi2 = np.array([null.chi2_p_value(value) for value in t])
        return {
            "window": window,
            "windows": n_windows,
            "toys": config.n_toys,
            "ks_p_toys": _uniformity(p),
            "ks_p_chi2": _uniformity(p_chi2),
            "ks_p_two_sample": float(stats.ks_2samp(null.t, t).pvalue),
            "share_below_0.05": float((p <= 0.05).mean()),
            "share_below_0.01": float((p <= 0.01).mean()),
            "t_toys": [null.mean, null.std],
            "t_windows": [float(t.mean()), float(t.std(ddof=1))],
        }

    def power(
        self, config: CalibrationConfig, fractions: Sequence[float], seed: int
    ) -> list[dict[str, Any]]:
        """Return one row for each signal and fraction: the Z of its windows."""
        reference, null = self.calibrate(config)
        window = round(config.window.n_expected)
        rows = []
        for name, signal in self.signals.items():
            pool = np.concatenate([self.test, signal])
            for fraction in fractions:
                rng = np.random.default_rng([seed, round(1e6 * fraction)])
                windows = list(signal_windows(len(self.test), len(signal), window, fraction, rng))
                if not windows:
                    msg = (
                        f"test events and {name} must fill a window of {window} with a share of "
                        f"{fraction:g}; got {len(self.test)} and {len(signal)}; lower the share"
                    )
                    raise SampleSizeError(msg)
                t = reference.test_toys(pool, windows)[:, 0]
                rows.append({"signal": name, "fraction": fraction, **_summary(t, null)})
        return rows


def _uniformity(p_values: Float64Array) -> float:
    return float(stats.kstest(p_values, "uniform").pvalue)


def _summary(t: Float64Array, null: NullDistribution) -> dict[str, Any]:
    """Return the median Z with its 68 % band over windows, and power at 3 sigma."""
    z = np.array([z_score(null.chi2_p_value(value)) for value in t])
    low, median, high = np.quantile(z, (0.16, 0.5, 0.84))
    return {
        "windows": len(t),
        "z_median": float(median),
        "z_68": [float(low), float(high)],
        "z_null_deviations": float((np.median(t) - null.mean) / null.std),
        "z_toys_median": float(np.median([null.z_score(value) for value in t])),
        "power_3_sigma": float((z >= 3).mean()),
        "t_median": float(np.median(t)),
        "chi2_ks_p": null.chi2_ks_p,
    }
