"""How fast the NPLM test is, against what the memory allows and against Falkon.

The null is a correlated Gaussian, the signal a narrow spot off its axis. Times are wall-clock.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from bench.bandwidth import LargeArray, seconds_of, synchronise
from bench.oracle import naive_t
from engines.nplm import BasisConfig, CachedReference, check_device, draw_toys
from engines.nplm.basis import build_basis
from engines.nplm.falkon import FalkonConfig, FalkonReference, is_available
from engines.types import FloatArray
from engines.windows import WindowSpec

__all__ = ["Settings", "measure"]

_GIB = 2**30
#: Windows in the pool that toys are drawn from: enough to differ, few enough to stay small.
_POOL_WINDOWS = 4
#: The signal's place in each coordinate, its sign alternating, and its spread.
_SIGNAL_SHIFT, _SIGNAL_SPREAD = 0.8, 0.3


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        n_ref: reference events.
        window: events in a window.
        centres: Nystrom centres.
        dim: embedding coordinates.
        sigma: kernel width in standardised units; None takes the 90 % quantile of the distances.
        lam: ridge parameter.
        signal: share of signal in the window that is timed.
        loss: of the fit.
        store: precision in which features are kept.
        device: where features are kept and fits run.
        threads: CPU threads.
        repeat: timed runs of one test.
        toys: null windows fitted in batches.
        falkon: whether to time Falkon too, where it can be imported.
        oracle: whether to compare t with a dense Newton fit, which takes n x centres float64.
        seed: of all samples.
    """

    n_ref: int = 100_000
    window: int = 20_000
    centres: int = 350
    dim: int = 4
    sigma: float | None = None
    lam: float = 1e-6
    signal: float = 0.01
    loss: Literal["cross-entropy", "likelihood"] = "cross-entropy"
    store: Literal["float32", "float16"] = "float32"
    device: str = "cpu"
    threads: int = 2
    repeat: int = 10
    toys: int = 20
    falkon: bool = True
    oracle: bool = False
    seed: int = 0

    @property
    def n_basis(self) -> int:
        """Events that fix the basis, drawn apart from the reference."""
        return max(5000, 20 * self.centres)


def measure(settings: Settings) -> dict[str, Any]:
    """Build a reference, test one window again and again and toys in batches; JSON-able.

    Returns:
        Seconds as `_s`, memory as `_gib`, rates as `_gb_per_s`. `load_before` is the system's load:
        work of others makes times longer. `floor_ratio` is the time of a fit over that of reading
        the reference's features as often as the fit passed over them, at the bandwidth at which a
        large array is read just before and after: the median, and the 68 % band, of `repeat` pairs.

    Raises:
        ParameterError: if the device is none of this machine's.
    """
    check_device(settings.device)
    load_before = os.getloadavg()[0]
    rng = np.random.default_rng(settings.seed)
    reference, result = _build(settings, rng)
    window = _window(settings, rng)
    result |= _one_test(reference, window, settings)
    result |= _toys(reference, settings, rng)
    # Before what is measured for comparison takes memory of its own.
    result |= _peaks(settings.device)
    result["falkon"] = _falkon(reference, window, settings, result["both_s"]["median"])
    result["oracle"] = _oracle(reference, window, settings, result) if settings.oracle else None
    psi = reference.features(window)
    n_bytes = result["reference_bytes"] * result["evaluations"]
    floor = _floor(lambda: reference.test_features([psi]), n_bytes, settings)
    return result | floor | {"load_before": load_before}


def _floor(fit: Callable[[], object], n_bytes: int, settings: Settings) -> dict[str, Any]:
    """Time fits and reads of a large array in turn: both see the same moods of the machine."""
    array = LargeArray(settings.device, settings.threads)
    array.bandwidth()
    bandwidths, ratios = [], []
    for _ in range(settings.repeat):
        before = array.bandwidth()
        (seconds,) = seconds_of(fit, 1, settings.device)
        bandwidths += [before, array.bandwidth()]
        ratios.append(seconds * sum(bandwidths[-2:]) / 2 / n_bytes)
    low, median, high = np.quantile(ratios, (0.16, 0.5, 0.84))
    return {
        "bandwidth_gb_per_s": float(np.median(bandwidths)) / 1e9,
        "bandwidth_best_gb_per_s": max(bandwidths) / 1e9,
        "floor_s": n_bytes / float(np.median(bandwidths)),
        "floor_ratio": float(median),
        "floor_ratio_68": [float(low), float(high)],
    }


def _build(settings: Settings, rng: np.random.Generator) -> tuple[CachedReference, dict[str, Any]]:
    config = BasisConfig(
        settings.centres,
        n_ref=settings.n_ref,
        n_expected=settings.window,
        lam=settings.lam,
        sigmas=None if settings.sigma is None else (settings.sigma,),
        seed=settings.seed,
    )
    sample = torch.from_numpy(_null(settings.n_basis, settings.dim, rng))
    embeddings = _null(settings.n_ref, settings.dim, rng)
    started = time.perf_counter()
    basis = build_basis(sample, config)
    basis_s = time.perf_counter() - started
    reference = CachedReference(
        basis,
        embeddings,
        settings.window,
        loss=settings.loss,
        device=settings.device,
        dtype=getattr(torch, settings.store),
        threads=settings.threads,
    )
    n_bytes = reference.psi.nbytes  # the features are computed at their first use: here
    synchronise(settings.device)
    return reference, {
        "build_s": time.perf_counter() - started,
        "basis_s": basis_s,
        "sigma": basis.sigmas[0],
        "rank": basis.rank,
        "reference_bytes": n_bytes,
    }


def _one_test(reference: CachedReference, window: FloatArray, settings: Settings) -> dict[str, Any]:
    """Time features, fit and both of one window, after a first run that is not counted."""
    test = reference.test(window)
    psi = reference.features(window)

    def timed(function: Callable[[], object]) -> dict[str, float]:
        seconds = seconds_of(function, settings.repeat, settings.device)
        return {"min": min(seconds), "median": float(np.median(seconds))}

    return {
        "t": float(test.t[0]),
        "evaluations": test.evaluations,
        "gradient_squared": test.gradient_squared,
        "fit_s": timed(lambda: reference.test_features([psi])),
        "features_s": timed(lambda: reference.features(window)),
        "both_s": timed(lambda: reference.test(window)),
    }


def _toys(
    reference: CachedReference, settings: Settings, rng: np.random.Generator
) -> dict[str, Any]:
    """Time toys as a calibration fits them; the pool's features are shared by all its toys."""
    pool = _null(_POOL_WINDOWS * settings.window, settings.dim, rng)
    spec = WindowSpec("count", float(settings.window))
    toys = list(draw_toys(spec, len(pool), settings.toys, rng))
    size = reference.batch_size()
    batches = [toys[first : first + size] for first in range(0, len(toys), size)]
    started = time.perf_counter()
    psi = reference.features(pool)
    synchronise(settings.device)
    pool_s, started = time.perf_counter() - started, time.perf_counter()
    t = np.concatenate([reference.test_batch(psi, batch) for batch in batches])[:, 0]
    return {
        "toy_s": (time.perf_counter() - started) / len(toys),
        "toy_batch": len(batches[0]),
        "pool_features_s": pool_s,
        "pool": len(pool),
        "toys_t_mean": float(t.mean()),
        "toys_t_std": float(t.std(ddof=1)) if len(t) > 1 else None,
    }


def _falkon(
    reference: CachedReference, window: FloatArray, settings: Settings, ours_s: float
) -> dict[str, Any] | None:
    """Time Falkon once, with NPLM-FLK's options, on the same events and centres."""
    if not settings.falkon or settings.loss != "cross-entropy" or not is_available():
        return None
    falkon = FalkonReference(
        reference.basis,
        reference.embeddings,
        reference.n_expected,
        FalkonConfig(settings.lam),
        device=settings.device,
        threads=settings.threads,
    )
    started = time.perf_counter()
    fit = falkon.fit(window)
    seconds = time.perf_counter() - started
    test = falkon.judge(fit)
    return {
        "config": {**asdict(falkon.config), "dtype": str(falkon.config.dtype)},
        "seconds": seconds,
        "ratio": seconds / ours_s,
        "t": float(test.t[0]),
        "t_converged": test.t_converged,
        "gradient_squared": test.gradient_squared,
        "evaluations": test.evaluations,
    }


def _oracle(
    reference: CachedReference, window: FloatArray, settings: Settings, result: dict[str, Any]
) -> dict[str, Any]:
    """Fit the same window densely in float64; the difference in units of the toys' spread."""
    basis = reference.basis
    mean, std = basis.mean.cpu().numpy(), basis.std.cpu().numpy()
    started = time.perf_counter()
    t = naive_t(
        (window - mean) / std,
        (reference.embeddings - mean) / std,
        basis.centres.cpu().numpy(),
        sigma=basis.sigmas[0],
        lam=settings.lam,
        n_expected=settings.window,
        likelihood=settings.loss == "likelihood",
    )
    share = (result["t"] - t) / result["toys_t_std"]
    return {"t": t, "share_of_spread": share, "seconds": time.perf_counter() - started}


def _null(n: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """Draw n events of a Gaussian whose coordinates are correlated by 0.4."""
    mix = np.linalg.cholesky(0.6 * np.eye(dim) + 0.4)
    events = np.empty((n, dim), np.float32)
    for part in np.array_split(events, max(1, n // 100_000)):
        part[:] = rng.normal(size=part.shape) @ mix.T
    return events


def _window(settings: Settings, rng: np.random.Generator) -> FloatArray:
    events = _null(settings.window, settings.dim, rng)
    n_signal = round(settings.signal * len(events))
    centre = _SIGNAL_SHIFT * (-1.0) ** np.arange(settings.dim)
    events[:n_signal] = rng.normal(size=(n_signal, settings.dim)) * _SIGNAL_SPREAD + centre
    return events


def _peaks(device: str) -> dict[str, Any]:
    """Return the process's largest resident set so far, and the GPU memory that tensors took."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks: dict[str, Any] = {
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB
    }
    if torch.device(device).type == "cuda":
        peaks["gpu"] = torch.cuda.get_device_name(device)
        peaks["peak_gpu_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
    return peaks
