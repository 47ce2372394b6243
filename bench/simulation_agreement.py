"""How well two samples of events agree, distribution by distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench.distributions import DISTRIBUTIONS, Distribution
from engines.errors import EventError, SampleSizeError
from engines.event_files import EventFile
from engines.types import BoolArray, Float64Array, FloatArray, IntArray
from training.simulation.processes import PROCESSES

__all__ = ["Comparison", "ProcessComparison", "compare_processes", "describe"]

_FEWEST_EVENTS = 50
#: Events of both samples together that a bin needs for a chi-square.
_FEWEST_IN_BIN = 20
_BLOCK = 65_536


@dataclass(frozen=True)
class Comparison:
    """One distribution in both samples.

    Attributes:
        of: which.
        simulated: counts, (b,).
        reference: counts, (b,).
        n_simulated: events of the sample, with or without the quantity.
        n_reference: the same of the reference.
    """

    of: Distribution
    simulated: IntArray
    reference: IntArray
    n_simulated: int
    n_reference: int

    @property
    def used(self) -> BoolArray:
        """Bins with enough events for a chi-square, (b,)."""
        return np.asarray(self.simulated + self.reference >= _FEWEST_IN_BIN)

    @property
    def ratio(self) -> tuple[Float64Array, Float64Array]:
        """Simulated over reference, as shares of all events, and its error, each (b,).

        Where a bin is empty in the reference, both are nan.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.simulated / self.reference * (self.n_reference / self.n_simulated)
            error = ratio * np.sqrt(1.0 / self.simulated + 1.0 / self.reference)
        empty = (self.simulated == 0) | (self.reference == 0)
        return np.where(empty, np.nan, ratio), np.where(empty, np.nan, error)

    @property
    def chi2(self) -> tuple[float, int]:
        """Chi-square of homogeneity of both samples, and its degrees of freedom.

        The cells are the bins with enough events, and one with all other events.
        """
        counts = np.stack([self.simulated, self.reference])[:, self.used]
        totals = np.array([[self.n_simulated], [self.n_reference]])
        table = np.concatenate([counts, totals - counts.sum(axis=1, keepdims=True)], axis=1)
        table = table[:, table.sum(axis=0) > 0]
        expected = totals * table.sum(axis=0) / totals.sum()
        return float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1

    @property
    def p_value(self) -> float:
        """Probability of a larger chi-square if both samples follow one distribution.

        It is nan where there are too few events for a chi-square.
        """
        value, freedom = self.chi2
        return float(stats.chi2.sf(value, freedom)) if freedom else math.nan

    @property
    def p_text(self) -> str:
        """The p-value for a table or picture."""
        return f"{self.p_value:.2g}" if self.chi2[1] else "too few"


@dataclass(frozen=True)
class ProcessComparison:
    """All distributions of one process."""

    name: str
    label: int
    n_simulated: int
    n_reference: int
    comparisons: tuple[Comparison, ...]

    def record(self) -> dict[str, Any]:
        """Return the numbers, JSON-able."""
        distributions = {}
        for comparison in self.comparisons:
            value, freedom = comparison.chi2
            distributions[comparison.of.name] = {
                "chi2": round(value, 3),
                "ndf": freedom,
                "p_value": round(comparison.p_value, 5) if freedom else None,
            }
        sizes = {"n_simulated": self.n_simulated, "n_reference": self.n_reference}
        return {"process": self.name, "label": self.label, **sizes, "distributions": distributions}


def compare_processes(
    simulated: Sequence[Path], reference: Sequence[Path]
) -> list[ProcessComparison]:
    """Compare every process that both sets of files hold.

    Raises:
        EventError: if a file has no labels.
        SampleSizeError: if no process has enough events in both.
    """
    ours, theirs = _histograms(simulated), _histograms(reference)
    names = {process.label: process.name for process in PROCESSES.values()}
    compared = []
    for label in sorted(ours.keys() & theirs.keys()):
        (n, counts), (m, others) = ours[label], theirs[label]
        if min(n, m) < _FEWEST_EVENTS:
            continue
        comparisons = tuple(
            Comparison(of, a, b, n, m)
            for of, a, b in zip(DISTRIBUTIONS, counts, others, strict=True)
        )
        compared.append(ProcessComparison(names.get(label, str(label)), label, n, m, comparisons))
    if not compared:
        msg = (
            f"both sets of files must hold {_FEWEST_EVENTS} events of one process; got labels "
            f"{sorted(ours)} and {sorted(theirs)}; simulate more of a process they share"
        )
        raise SampleSizeError(msg)
    return compared


def _histograms(paths: Sequence[Path]) -> dict[int, tuple[int, list[IntArray]]]:
    """Return number of events and counts in the bins of each distribution, by label."""
    found: dict[int, tuple[int, list[IntArray]]] = {}
    for path in paths:
        with EventFile(path) as file:
            for first in range(0, len(file), _BLOCK):
                last = min(first + _BLOCK, len(file))
                particles, labels = file.read(first, last), file.labels(first, last)
                if labels is None:
                    msg = f"{path} must hold labels; add a dataset 'process'"
                    raise EventError(msg)
                for label in np.unique(labels):
                    _add(found, int(label), particles[labels == label])
    return found


def _add(found: dict[int, tuple[int, list[IntArray]]], label: int, particles: FloatArray) -> None:
    counts = [np.histogram(of.values(particles), of.edges)[0] for of in DISTRIBUTIONS]
    n, before = found.get(label, (0, [np.zeros_like(c) for c in counts]))
    found[label] = (n + len(particles), [a + b for a, b in zip(before, counts, strict=True)])


def describe(compared: Sequence[ProcessComparison]) -> str:
    """Return a Markdown table: chi-square per degree of freedom and, in brackets, p."""
    names = [of.name for of in DISTRIBUTIONS]
    lines = [
        f"| process | events | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for process in compared:
        cells = []
        for comparison in process.comparisons:
            value, freedom = comparison.chi2
            p_text = comparison.p_text
            cells.append(f"{value / freedom:.2f} ({p_text})" if freedom else p_text)
        sizes = f"{process.n_simulated} / {process.n_reference}"
        lines.append(f"| {process.name} | {sizes} | {' | '.join(cells)} |")
    p_values = [c.p_value for process in compared for c in process.comparisons if c.chi2[1]]
    below = sum(p < 0.05 for p in p_values)
    lines.append(
        f"\nchi-square per degree of freedom (p-value); {below} of {len(p_values)} p-values are "
        f"below 0.05, {0.05 * len(p_values):.1f} expected"
    )
    return "\n".join(lines) + "\n"
