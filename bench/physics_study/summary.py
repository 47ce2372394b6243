"""From t to Z and power: one row for each engine, signal and fraction, and one over its seeds.

Two conventions of Z stand side by side, and neither is exact where no toy reaches:

    z        Phi^-1(1 - p) with p from a chi-square of the toys' mean: an extrapolation
    z_toys   the same with p = (k + 1) / (n_toys + 1): never above `z_cap`
    spreads  (t - mean of the toys) / their standard deviation: no law is assumed

Power at n sigma is the share of windows with z >= n; at fraction 0 it is a false-alarm rate.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from bench.physics_study.config import Study
from bench.physics_study.jobs import EngineJob
from bench.physics_study.seen import seen_in_training
from engines.nplm import NullDistribution, offset_share, z_score
from engines.nplm.null import proportion_interval
from engines.types import Float64Array

__all__ = [
    "SIGMAS",
    "OverSeeds",
    "Row",
    "cell_values",
    "dim_text",
    "over_seeds",
    "power_interval",
    "rows_of",
    "training_mark",
    "window_values",
]

SIGMAS = (1, 2, 3)
_BAND = (0.16, 0.5, 0.84)


@dataclass(frozen=True)
class Row:
    """One engine, one signal, one fraction: medians with the 68 % band over windows.

    Attributes:
        dim: of the whole embedding.
        chi2_ks_p: smallest over the divisions, of the toys against the fitted chi-square.
        offset_share: what the calibration's offset would add to t of a window of events from
            elsewhere, in null spreads; mean over the divisions.
        signal_uses: how often a signal event is used on average, in the most demanding cell.
        kept: of `dim`, physics quantities beside the learned numbers.
        training: `seen` or `held out` where the encoder's training saw signals, else empty.
    """

    encoder: str
    dim: int
    seed: int
    signal: str
    fraction: float
    windows: int
    z: float
    z_low: float
    z_high: float
    z_toys: float
    z_cap: float
    spreads: float
    power_1: float
    power_2: float
    power_3: float
    t: float
    null_mean: float
    null_std: float
    chi2_ks_p: float
    accuracy: float
    accuracy_error: float
    offset_share: float
    signal_uses: float
    kept: int = 0
    training: str = ""


@dataclass(frozen=True)
class OverSeeds:
    """The rows of one recipe's seeds together.

    Attributes:
        row: the mean of every number over seeds; of `chi2_ks_p` the smallest.
        spread: standard deviation over seeds of every number; nan with one seed.
        n_seeds: how many.
    """

    row: Row
    spread: dict[str, float]
    n_seeds: int


def cell_values(
    record: dict[str, Any], signal: str, fraction: float
) -> Iterator[tuple[NullDistribution, Float64Array]]:
    """Yield null and windows' t of every division of a record of `measure_windows`."""
    for division in record["divisions"]:
        null = _null(tuple(division["toys"]))
        for cell in division["cells"]:
            if cell["signal"] == signal and math.isclose(cell["fraction"], fraction):
                yield null, np.array(cell["t"])


@lru_cache(maxsize=64)
def _null(toys: tuple[float, ...]) -> NullDistribution:
    """Return the null of one division, which all its cells share: its KS p-value takes time."""
    return NullDistribution(np.array(toys))


def rows_of(
    study: Study, job: EngineJob, record: dict[str, Any], accuracy: dict[str, Any] | None
) -> list[Row]:
    """Return the rows of one engine's record."""
    known = (accuracy or {}).get("accuracy") or {}
    cells = [(cell["signal"], cell["fraction"]) for cell in record["divisions"][0]["cells"]]
    return [
        Row(
            encoder=job.encoder.name,
            dim=record["engine"]["dim"] or record["dim"],
            seed=job.seed,
            signal=signal,
            fraction=fraction,
            **_numbers(list(cell_values(record, signal, fraction))),
            accuracy=known.get("accuracy", math.nan),
            accuracy_error=known.get("error", math.nan),
            offset_share=_offset_share(record),
            signal_uses=record["signal_uses"],
            kept=len(record["engine"]["options"].get("keep") or ()),
            training=training_mark(study, job, record, signal),
        )
        for signal, fraction in cells
    ]


def _offset_share(record: dict[str, Any]) -> float:
    window = record["settings"]["test"]["window"]
    shares = [offset_share(window, d["n_pool"], d["n_ref"]) for d in record["divisions"]]
    return float(np.mean(shares))


def dim_text(dim: int, kept: int) -> str:
    """Return a dimension as tables show it: learned numbers + physics quantities kept.

    >>> dim_text(10, 6), dim_text(4, 0)
    ('4 + 6', '4')
    """
    return f"{dim - kept} + {kept}" if kept else str(dim)


def power_interval(row: Row, sigma: int) -> tuple[float, float]:
    """Return the 68 % interval of a power, Clopper-Pearson, from the windows of one seed.

    All seeds are tested on the same events, so more of them do not count as more windows.
    """
    n_above = round(getattr(row, f"power_{sigma}") * row.windows)
    low, high = proportion_interval(n_above, row.windows)
    return float(low), float(high)


def _numbers(values: Sequence[tuple[NullDistribution, Float64Array]]) -> dict[str, Any]:
    of_windows = window_values(values)
    z = of_windows["z"]
    low, median, high = np.quantile(z, _BAND)
    nulls = [null for null, _ in values]
    return {
        "windows": len(z),
        "z": float(median),
        "z_low": float(low),
        "z_high": float(high),
        "z_toys": float(np.median(_joined([null.z_score(x) for x in t] for null, t in values))),
        "z_cap": max(z_score(null.resolution) for null in nulls),
        "spreads": float(np.median(of_windows["spreads"])),
        **{f"power_{sigma}": float((z >= sigma).mean()) for sigma in SIGMAS},
        "t": float(np.median(_joined(t for _, t in values))),
        "null_mean": float(np.mean([null.mean for null in nulls])),
        "null_std": float(np.mean([null.std for null in nulls])),
        "chi2_ks_p": min(null.chi2_ks_p for null in nulls),
    }


def window_values(
    values: Sequence[tuple[NullDistribution, Float64Array]],
) -> dict[str, Float64Array]:
    """Return `z` and `spreads` of every window, (n,), in an order common to all engines."""
    return {
        "z": _joined([z_score(null.chi2_p_value(x)) for x in t] for null, t in values),
        "spreads": _joined((t - null.mean) / null.std for null, t in values),
    }


def _joined(parts: Iterable[Sequence[float] | Float64Array]) -> Float64Array:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def training_mark(study: Study, job: EngineJob, record: dict[str, Any], signal: str) -> str:
    """Say whether training saw this signal, or only others, going by the engine's own facts."""
    seen = seen_in_training(record["engine"], study.data) | set(job.encoder.signals)
    if not seen:
        return ""
    return "seen" if signal in seen else "held out"


def over_seeds(rows: Iterable[Row]) -> list[OverSeeds]:
    """Return the rows of equal encoder, dimension, signal and fraction as one, in their order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.encoder, row.dim, row.signal, row.fraction), []).append(row)
    return [_together(group) for group in groups.values()]


def _together(rows: Sequence[Row]) -> OverSeeds:
    numbers = [field.name for field in fields(Row) if field.type in ("float", float)]
    values = {name: np.array([getattr(row, name) for row in rows]) for name in numbers}
    first = asdict(rows[0])
    mean = {name: float(value.mean()) for name, value in values.items() if name != "fraction"}
    spread = {
        name: float(value.std(ddof=1)) if len(rows) > 1 else math.nan
        for name, value in values.items()
    }
    mean["chi2_ks_p"] = float(values["chi2_ks_p"].min())
    return OverSeeds(Row(**{**first, **mean}), spread, len(rows))
