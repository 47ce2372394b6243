"""Choosing a recipe without a signal: each background process in turn is left out and sought.

A recipe is trained without one process, which is then mixed into background without it as if it
were a signal. The score of a recipe is its median Z, averaged over fractions, processes and seeds;
the mean rank, over the same cells, does not let one easy process decide. No signal enters either:
encoders trained on signals are refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.physics_study.summary import Row
from engines.types import Float64Array

__all__ = ["Agreement", "Ranked", "agreement", "rank_recipes"]

_RESAMPLINGS = 1000


@dataclass(frozen=True)
class Ranked:
    """One recipe at one dimension.

    Attributes:
        recipe: encoder and dimension.
        score: mean over seeds of the mean Z over processes and fractions.
        seeds_std: standard deviation of that mean over seeds; nan with one.
        n_seeds: seeds that have all processes and fractions.
        mean_rank: over cells, 1 is best.
        by_process: mean Z of each process.
        process_std: standard deviation of that over seeds; nan with one.
        by_seed: the score of each seed.
        kept: of the dimension, physics quantities beside the learned numbers.
    """

    recipe: tuple[str, int]
    score: float
    seeds_std: float
    n_seeds: int
    mean_rank: float
    by_process: dict[str, float]
    process_std: dict[str, float]
    by_seed: tuple[float, ...]
    kept: int = 0


@dataclass(frozen=True)
class Agreement:
    """How well one ranking foretells another.

    Attributes:
        spearman: rank correlation of scores and mean Z on signals.
        low, high: 68 % interval over recipes and their seeds, both drawn anew; a recipe drawn
            twice is a tie.
        p_value: two-sided, of no correlation, by permuting the recipes as if exchangeable; too
            small where some are variants of one another.
        n_recipes: how many.
    """

    spearman: float
    low: float
    high: float
    p_value: float
    n_recipes: int


def rank_recipes(rows: Iterable[Row]) -> list[Ranked]:
    """Return recipes from best to worst; those that lack a process are left out.

    Args:
        rows: of left-out measurements; the signal of a row is the process left out.
    """
    table: dict[tuple[str, int], dict[int, dict[tuple[str, float], float]]] = {}
    kept = {}
    for row in rows:
        seeds = table.setdefault((row.encoder, row.dim), {})
        seeds.setdefault(row.seed, {})[row.signal, row.fraction] = row.z
        kept[row.encoder, row.dim] = row.kept
    cells = {cell for seeds in table.values() for values in seeds.values() for cell in values}
    order = sorted(cells)
    complete = {
        recipe: np.array(
            [[v[cell] for cell in order] for v in seeds.values() if len(v) == len(cells)]
        )
        for recipe, seeds in table.items()
    }
    complete = {recipe: z for recipe, z in complete.items() if len(z)}
    if not complete:
        return []
    means = np.array([z.mean(axis=0) for z in complete.values()])  # (recipes, cells)
    ranks = stats.rankdata(-means, axis=0).mean(axis=1)
    ranked = [
        _ranked(recipe, kept[recipe], z, float(rank), [process for process, _ in order])
        for (recipe, z), rank in zip(complete.items(), ranks, strict=True)
    ]
    return sorted(ranked, key=lambda item: -item.score)


def _ranked(
    recipe: tuple[str, int], kept: int, z: Float64Array, rank: float, processes: Sequence[str]
) -> Ranked:
    """Return one recipe from its Z, (seeds, cells), and the process of each cell."""
    by_seed, of_cell = z.mean(axis=1), np.array(processes)
    of_process = {name: z[:, of_cell == name].mean(axis=1) for name in sorted(set(processes))}
    return Ranked(
        recipe=recipe,
        score=float(by_seed.mean()),
        seeds_std=_std(by_seed),
        n_seeds=len(by_seed),
        mean_rank=rank,
        by_process={name: float(values.mean()) for name, values in of_process.items()},
        process_std={name: _std(values) for name, values in of_process.items()},
        by_seed=tuple(by_seed.tolist()),
        kept=kept,
    )


def _std(values: Float64Array) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def agreement(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> Agreement | None:
    """Return the rank correlation of two scores of the same recipes, or None below four recipes.

    Args:
        first: for each recipe its score by seed.
        second: likewise, on the signals.
    """
    if len(first) < 4:
        return None
    rng = np.random.default_rng(0)
    found = _correlation(*(np.array([np.mean(seeds) for seeds in s]) for s in (first, second)))
    drawn, shuffled = [], 0
    for _ in range(_RESAMPLINGS):
        chosen = rng.integers(len(first), size=len(first)).tolist()
        drawn.append(_correlation(*(_redrawn(s, chosen, rng) for s in (first, second))))
        order = rng.permutation(len(first)).tolist()
        by_chance = _correlation(
            np.array([np.mean(seeds) for seeds in first]),
            np.array([np.mean(second[index]) for index in order]),
        )
        shuffled += abs(by_chance) >= abs(found) - 1e-9
    low, high = np.quantile(drawn, (0.16, 0.84))
    p_value = (shuffled + 1) / (_RESAMPLINGS + 1)
    return Agreement(found, float(low), float(high), p_value, len(first))


def _redrawn(
    scores: Sequence[Sequence[float]], chosen: Sequence[int], rng: np.random.Generator
) -> Float64Array:
    """Return mean scores of the chosen recipes, each over seeds drawn anew."""
    drawn = (np.asarray(scores[index]) for index in chosen)
    return np.array([seeds[rng.integers(len(seeds), size=len(seeds))].mean() for seeds in drawn])


def _correlation(x: Float64Array, y: Float64Array) -> float:
    """Return Spearman's rank correlation; 0 where one side does not vary."""
    ranks = np.array([stats.rankdata(x), stats.rankdata(y)])
    if not (ranks.std(axis=1) > 0).all():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])
