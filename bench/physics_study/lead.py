"""How far each embedding is ahead of the best one without training, on the same windows.

A band over windows says how windows differ, which is common to all embeddings: whether one is ahead
of another is in their difference, window by window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.physics_study.config import Study
from bench.physics_study.jobs import EngineJob
from bench.physics_study.summary import cell_values, dim_text, window_values
from bench.physics_study.tables import markdown, plus_minus
from engines.errors import MismatchError
from engines.types import Float64Array, IntArray

__all__ = ["Lead", "lead_over", "lead_tables"]

_N_RESAMPLES = 1000
_CONVENTIONS = ("z", "spreads")
_TEXT = """\
Median Z less that of the best embedding without training for this signal and fraction (best on
these windows, which favours it); then the same in null spreads, (t - mean) / spread of the toys,
which assume no law. Z ends at 37, where a lead of 0 says nothing. Mean over training seeds ±
standard error by drawing windows anew, the same for both embeddings ({n} times). It takes windows
as independent, which those that share events are not, and trainings as given: their spread stands
in the tables above.
"""


@dataclass(frozen=True)
class Lead:
    """A difference of medians over windows, and its standard error."""

    value: float
    error: float


def lead_over(own: Sequence[Float64Array], other: Sequence[Float64Array], seed: int = 0) -> Lead:
    """Return the mean over trainings of the median over windows, less that of another embedding.

    Args:
        own: values of the same windows, (n,), one array a training.
        other: likewise of the other embedding.
        seed: of the windows drawn anew.

    Raises:
        MismatchError: if the numbers of windows differ.

    >>> lead_over([np.arange(9.0) + 2], [np.arange(9.0)])
    Lead(value=2.0, error=0.0)
    """
    n, *more = sorted({len(values) for values in (*own, *other)})
    if more:
        msg = (
            f"embeddings must be compared on the same windows; got records of {n} and of "
            f"{more[0]}; measure them anew with one [test]"
        )
        raise MismatchError(msg)
    drawn = np.random.default_rng(seed).integers(n, size=(_N_RESAMPLES, n))
    value = _median(own, np.arange(n)[None])[0] - _median(other, np.arange(n)[None])[0]
    error = (_median(own, drawn) - _median(other, drawn)).std(ddof=1)
    return Lead(float(value), float(error))


def _median(trainings: Sequence[Float64Array], drawn: IntArray) -> Float64Array:
    """Return the mean over trainings of the median over the windows of each row of `drawn`."""
    medians: Float64Array = np.mean([np.median(t[drawn], axis=1) for t in trainings], axis=0)
    return medians


def lead_tables(study: Study, found: Sequence[tuple[EngineJob, dict[str, Any]]]) -> str:
    """Return a table for each fraction with signal; empty without these or nothing to compare."""
    untrained = [item for item in found if item[1]["engine"]["loss"] == "none"]
    trained = [item for item in found if item[1]["engine"]["loss"] != "none"]
    fractions = [fraction for fraction in study.test.fractions if fraction > 0]
    if not (untrained and trained and fractions):
        return ""
    tables = [_TEXT.format(n=_N_RESAMPLES)]
    signals = list(study.data.signals)
    for fraction in fractions:
        best = {
            (signal, name): max(
                ([_values(record, signal, fraction, name)] for _, record in untrained),
                key=lambda values: float(np.median(values[0])),
            )
            for signal in signals
            for name in _CONVENTIONS
        }
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for job, record in trained:
            kept = len(record["engine"]["options"].get("keep") or ())
            line = (job.encoder.name, dim_text(record["engine"]["dim"] or record["dim"], kept))
            lines.setdefault(line, []).append(record)
        rows = [
            [*line, *(_cell(records, signal, fraction, best) for signal in signals)]
            for line, records in lines.items()
        ]
        table = markdown(["embedding", "D", *signals], rows)
        tables.append(f"### {100 * fraction:g} % signal\n\n{table}")
    return "\n".join(tables)


def _cell(
    records: Sequence[dict[str, Any]],
    signal: str,
    fraction: float,
    best: dict[tuple[str, str], list[Float64Array]],
) -> str:
    parts = []
    for name in _CONVENTIONS:
        own = [_values(record, signal, fraction, name) for record in records]
        lead = lead_over(own, best[signal, name])
        parts.append(plus_minus(lead.value, lead.error, 1))
    return "; ".join(parts)


def _values(record: dict[str, Any], signal: str, fraction: float, name: str) -> Float64Array:
    return window_values(list(cell_values(record, signal, fraction)))[name]
