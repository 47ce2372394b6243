"""Power of several tests on the same windows, at the same false-alarm probability.

Each test sets its threshold on its own statistic of the same null toys. The windows that measure
false alarms and power use events that calibrated nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from bench.experiment import Experiment, signal_windows
from bench.peers import Peer
from engines.calibration_config import CalibrationConfig, Sizes, choose_sizes
from engines.errors import ParameterError, SampleSizeError
from engines.nplm import draw_toys
from engines.progress import Progress
from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["Trial", "check_rates", "draw_power", "measure", "share", "threshold"]

_BAND = 0.68


@dataclass(frozen=True)
class Trial:
    """What every test sees; embeddings are (n, d), standardised by the reference.

    Attributes:
        sizes: how the calibration events were split.
        basis: events of NPLM's basis.
        reference: reference events, in random order.
        pool: events that the toys are drawn from.
        toys: indices into the pool.
        events: test background followed by signal.
        null: indices into the test background; disjoint until it is used up, then shuffled anew.
        signal: fraction: indices into `events`, disjoint.
    """

    sizes: Sizes
    basis: FloatArray
    reference: FloatArray
    pool: FloatArray
    toys: list[IntArray]
    events: FloatArray
    null: list[IntArray]
    signal: dict[float, list[IntArray]]

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        config: CalibrationConfig,
        fractions: Sequence[float],
        n_null: int,
    ) -> "Trial":
        """Split and standardise the events of an experiment with one signal; choose all windows.

        Raises:
            SampleSizeError: if the events are too few for the windows.
            ParameterError: if a coordinate does not vary in the reference.
        """
        rng = np.random.default_rng(config.seed)
        sizes = choose_sizes(len(experiment.calibration), config)
        shuffled = experiment.calibration[rng.permutation(len(experiment.calibration))]
        first, second = sizes.n_basis, sizes.n_basis + sizes.n_ref
        standardise = _standardiser(shuffled[first:second])
        ((name, signal),) = experiment.signals.items()
        n_test, window = len(experiment.test), round(config.window.n_expected)
        chosen = {}
        for fraction in fractions:
            counts = np.random.default_rng([config.seed, round(1e6 * fraction)])
            chosen[fraction] = list(signal_windows(n_test, len(signal), window, fraction, counts))
            if not chosen[fraction]:
                msg = (
                    f"test events and {name} must fill a window of {window} with a share of "
                    f"{fraction:g}; got {n_test} and {len(signal)}; lower the share"
                )
                raise SampleSizeError(msg)
        return cls(
            sizes=sizes,
            basis=standardise(shuffled[:first]),
            reference=standardise(shuffled[first:second]),
            pool=standardise(shuffled[second:]),
            toys=list(draw_toys(config.window, sizes.n_pool, config.n_toys, rng)),
            events=standardise(np.concatenate([experiment.test, signal])),
            null=list(draw_toys(config.window, n_test, n_null, rng)),
            signal=chosen,
        )


def _standardiser(reference: FloatArray) -> Callable[[FloatArray], FloatArray]:
    mean, std = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
    if not (std > 0).all():
        msg = f"every coordinate must vary in the reference; got deviations {std}; drop constants"
        raise ParameterError(msg)
    return lambda x: ((x - mean) / std).astype(np.float32)


def check_rates(rates: Sequence[float], n_toys: int) -> None:
    """Refuse false-alarm probabilities below the toys' resolution, 1 / (n_toys + 1).

    Raises:
        ParameterError: if no toy could decide one of them; says how many toys would.
    """
    for rate in rates:
        if _rank(rate, n_toys) < 1:
            msg = (
                f"a false-alarm probability must be at least 1 / (toys + 1) = "
                f"{1 / (n_toys + 1):.2g}; got {rate:g}; take {math.ceil(1 / rate) - 1} toys"
            )
            raise ParameterError(msg)


def _rank(rate: float, n_toys: int) -> int:
    return math.floor(rate * (n_toys + 1) + 1e-9)  # 1e-9: 0.29 * 100 is below 29


def threshold(t_toys: Float64Array, rate: float) -> float:
    """Return the value that a statistic must exceed so that p = (k + 1) / (n + 1) <= rate.

    Args:
        t_toys: (n,) statistics of null toys, of which k reach that of a window.
        rate: false-alarm probability of a window.

    >>> threshold(np.arange(99.0), 0.05)
    94.0
    """
    check_rates([rate], len(t_toys))
    return float(np.sort(t_toys)[-_rank(rate, len(t_toys))])


def share(t: Float64Array, least: float) -> dict[str, Any]:
    """Return how many of the windows alarm, and the share with its 68 % Clopper-Pearson interval.

    Args:
        t: (n,) statistics of windows.
        least: value to exceed.
    """
    alarms = int((t > least).sum())
    low, high = stats.binomtest(alarms, len(t)).proportion_ci(_BAND, method="exact")
    return {
        "windows": len(t),
        "alarms": alarms,
        "share": alarms / len(t),
        "share_68": [float(low), float(high)],
    }


def measure(peer: Peer, trial: Trial, rates: Sequence[float]) -> dict[str, Any]:
    """Calibrate a test on the toys; return its false alarms and power at each rate, JSON-able."""
    checks = [trial.null, *trial.signal.values()]
    shown = Progress(len(trial.toys) + sum(map(len, checks)), peer.name)
    started = time.perf_counter()
    t_toys = peer.statistics(trial.pool, trial.toys, done=shown.advance)
    # One call for all: a test may keep what it computed for an event.
    together = [window for windows in checks for window in windows]
    t = peer.statistics(trial.events, together, done=shown.advance)
    seconds = time.perf_counter() - started
    shown.close()
    t_null, *t_signal = np.split(t, np.cumsum([len(windows) for windows in checks])[:-1])
    return {
        "name": peer.name,
        "settings": peer.settings,
        "seconds": seconds,
        "seconds_per_window": seconds / (len(t_toys) + len(t)),
        "t_toys": [float(t_toys.mean()), float(t_toys.std(ddof=1))],
        "t_null": [float(t_null.mean()), float(t_null.std(ddof=1))],
        "rates": [
            _at_rate(rate, t_toys, t_null, dict(zip(trial.signal, t_signal, strict=True)))
            for rate in rates
        ],
    }


def _at_rate(
    rate: float, t_toys: Float64Array, t_null: Float64Array, t_signal: dict[float, Float64Array]
) -> dict[str, Any]:
    least = threshold(t_toys, rate)
    rank, n_toys = _rank(rate, len(t_toys)), len(t_toys)
    # The chance of exceeding the rank-th largest of n independent toys is beta distributed.
    low, high = stats.beta(rank, n_toys + 1 - rank).interval(_BAND)
    return {
        "false_alarm": rate,
        "false_alarm_68": [float(low), float(high)],
        "threshold": least,
        "null": share(t_null, least),
        "power": [{"fraction": f, **share(t, least)} for f, t in t_signal.items()],
    }


def draw_power(results: Sequence[dict[str, Any]], signal: str, output: Path) -> None:
    """Draw power against signal fraction, a panel for each false-alarm probability.

    Args:
        results: of `measure`, one a test.
        signal: the signal's name.
        output: the PNG to write.
    """
    rates = [entry["false_alarm"] for entry in results[0]["rates"]]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(1.5 + 4.5 * len(rates), 4.0), layout="constrained")
        panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
        for axes, rate in zip(panels, rates, strict=True):
            axes.set_title(f"{100 * rate:g} % of null windows alarm", fontsize=9)
            axes.axhline(rate, color="#6b7280", linestyle=":", linewidth=1)
            axes.set(xscale="log", ylim=(0, 1.03), xlabel=f"share of {signal} in the window [%]")
        for result in results:
            for axes, entry in zip(panels, result["rates"], strict=True):
                _draw_line(axes, result["name"], entry["power"])
        panels[0].set_ylabel("share of windows that alarm")
        panels[0].legend(loc="upper left", frameon=False)
        figure.savefig(output, dpi=130)


def _draw_line(axes: Axes, name: str, power: Sequence[dict[str, Any]]) -> None:
    percent = [100 * point["fraction"] for point in power]
    (line,) = axes.plot(percent, [point["share"] for point in power], marker="o", label=name)
    low, high = zip(*(point["share_68"] for point in power), strict=True)
    axes.fill_between(percent, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set_xticks(percent, [f"{value:g}" for value in percent])
    axes.minorticks_off()
