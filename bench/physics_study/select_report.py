"""The ranking of a selection, and, apart from it, how well it foretells Z on signals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

from bench.physics_study.config import MeasureConfig, Study
from bench.physics_study.drawing import legend, new_figure, save, styles
from bench.physics_study.jobs import left_out_jobs
from bench.physics_study.pieces import pieces_of, read_piece
from bench.physics_study.report import find
from bench.physics_study.selection import Agreement, Ranked, agreement, rank_recipes
from bench.physics_study.store import Store, write_text
from bench.physics_study.summary import Row, dim_text, rows_of
from bench.physics_study.tables import (
    csv_text,
    markdown,
    plus_minus,
    results_csv,
    reuse_text,
)
from engines.errors import ArtifactError

__all__ = ["write_selection"]

_TEXT = """\
# Selection by left-out processes

Each recipe is trained without one background process, which is then sought in background without
it, in windows of {test.window} events. Z: from the chi-square fitted to {test.toys} toys, an
extrapolation beyond them; median over {test.windows} windows, mean over the fractions {percents} %.
Score: mean over processes and training seeds ± standard deviation over seeds. Mean rank: over
processes and fractions, 1 is best. D: learned numbers + physics quantities kept. No signal enters
this ranking, by training or by test.

"""
_CHECK_TEXT = """\

# Not used for the choice: Z on the signals

Median Z of encoders trained on all processes, mean over fractions and seeds ± standard deviation
over seeds. Spearman: rank correlation with the ranking above, over recipes; in brackets the 68 %
interval from recipes and their seeds drawn anew, which noise pulls towards 0, and in which a recipe
drawn twice is a tie; p by permuting the recipes as if they were exchangeable. Many are variants of
one another, so they are fewer than they look, and p is too small. The same reserved background
served to choose above and serves to measure here, the left-out process apart: its chance
deviations are common to both, and a new sample may rank otherwise.

"""


@dataclass(frozen=True)
class _OnSignals:
    """Z on one signal, or on their mean: recipe to the value of each seed."""

    name: str
    z: dict[tuple[str, int], list[float]]


def write_selection(study: Study) -> Path:
    """Write ranking, tables and figure; return the Markdown file.

    Raises:
        ArtifactError: if no recipe has been measured with every process left out.
    """
    store = Store(study.folder)
    store.prepare()
    rows = _left_out_rows(study, store)
    ranked = rank_recipes(rows)
    if not ranked:
        msg = f"{study.folder} holds no complete recipe yet; bench-physics select makes them"
        raise ArtifactError(msg)
    on_signals = _on_signals(study, find(study, store).rows, ranked)
    agreements = {part.name: _agreement(ranked, part) for part in on_signals}
    text = _ranking(study, ranked, reuse_text(_test(study), study.data.test, rows))
    if on_signals:
        text += _CHECK_TEXT + _check(ranked, on_signals, agreements)
        _draw(ranked, on_signals, agreements, store.folder / "figures" / "selection.png")
    folder = store.folder / "tables"
    write_text(folder / "selection.csv", csv_text([_flat(item) for item in ranked]))
    write_text(folder / "selection-results.csv", results_csv(rows))
    write_text(folder / "selection.md", text)
    return folder / "selection.md"


def _left_out_rows(study: Study, store: Store) -> list[Row]:
    rows = []
    for job in left_out_jobs(study):
        (piece,) = pieces_of(study, job)
        record = read_piece(piece, store)
        if record is not None:
            rows += rows_of(study, job, record, None)
    return rows


def _recipe(item: Ranked) -> list[str]:
    return [item.recipe[0], dim_text(item.recipe[1], item.kept)]


def _label(item: Ranked) -> str:
    return " D ".join(_recipe(item))


def _test(study: Study) -> MeasureConfig:
    return study.selection.test if study.selection else study.test


def _ranking(study: Study, ranked: Sequence[Ranked], reuse: str) -> str:
    processes = list(ranked[0].by_process)
    test = _test(study)
    percents = ", ".join(f"{100 * fraction:g}" for fraction in test.fractions)
    rows = [
        [
            str(place),
            *_recipe(item),
            str(item.n_seeds),
            plus_minus(item.score, item.seeds_std, 2),
            f"{item.mean_rank:.1f}",
            *(plus_minus(item.by_process[p], item.process_std[p], 1) for p in processes),
        ]
        for place, item in enumerate(ranked, 1)
    ]
    heads = ["rank", "embedding", "D", "seeds", "score", "mean rank"]
    table = markdown([*heads, *(f"{process} left out" for process in processes)], rows)
    return f"{_TEXT.format(test=test, percents=percents)}{reuse}\n{table}"


def _flat(item: Ranked) -> dict[str, str | int | float]:
    return {
        "encoder": item.recipe[0],
        "dim": item.recipe[1],
        "kept": item.kept,
        "seeds": item.n_seeds,
        "score": item.score,
        "score_seeds_std": item.seeds_std,
        "mean_rank": item.mean_rank,
        **{f"z_{process}": z for process, z in item.by_process.items()},
        **{f"z_{process}_seeds_std": std for process, std in item.process_std.items()},
    }


def _on_signals(study: Study, rows: Sequence[Row], ranked: Sequence[Ranked]) -> list[_OnSignals]:
    """Return the mean over signals first, then each signal, of recipes that were ranked."""
    known = {item.recipe for item in ranked}
    signals = list(study.data.signals)
    wanted = sum(fraction > 0 for fraction in study.test.fractions)
    table: dict[tuple[str, int], dict[int, dict[str, list[float]]]] = {}
    for row in rows:
        if (row.encoder, row.dim) in known and row.fraction > 0:
            seeds = table.setdefault((row.encoder, row.dim), {})
            seeds.setdefault(row.seed, {}).setdefault(row.signal, []).append(row.z)
    by_seed = {
        recipe: [
            {signal: sum(z) / wanted for signal, z in values.items()}
            for values in seeds.values()
            if set(values) == set(signals)
        ]
        for recipe, seeds in table.items()
    }
    by_seed = {recipe: values for recipe, values in by_seed.items() if values}
    if not by_seed:
        return []
    mean = {
        recipe: [sum(z.values()) / len(z) for z in values] for recipe, values in by_seed.items()
    }
    return [
        _OnSignals("all signals", mean),
        *(
            _OnSignals(
                name, {recipe: [z[name] for z in values] for recipe, values in by_seed.items()}
            )
            for name in signals
        ),
    ]


def _agreement(ranked: Sequence[Ranked], part: _OnSignals) -> Agreement | None:
    both = [item for item in ranked if item.recipe in part.z]
    return agreement([item.by_seed for item in both], [part.z[item.recipe] for item in both])


def _check(
    ranked: Sequence[Ranked],
    parts: Sequence[_OnSignals],
    agreements: dict[str, Agreement | None],
) -> str:
    rows = [
        [str(place), *_recipe(item), *(_z(part.z.get(item.recipe)) for part in parts)]
        for place, item in enumerate(ranked, 1)
    ]
    rows.append(["", "Spearman", "", *(_spearman(agreements[part.name]) for part in parts)])
    return markdown(["rank above", "embedding", "D", *(part.name for part in parts)], rows)


def _z(values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    return plus_minus(sum(values) / len(values), _std(values), 2)


def _std(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds, nan with one."""
    return stdev(values) if len(values) > 1 else math.nan


def _spearman(found: Agreement | None) -> str:
    if found is None:
        return "fewer than four recipes"
    return f"{found.spearman:.2f} ({found.low:.2f}, {found.high:.2f}), p = {found.p_value:.2g}"


def _draw(
    ranked: Sequence[Ranked],
    parts: Sequence[_OnSignals],
    agreements: dict[str, Agreement | None],
    path: Path,
) -> None:
    """Draw Z on signals against the score, a panel each; bars: spread over seeds."""
    chosen = styles([_label(item) for item in ranked])
    with new_figure(1.0 + 2.9 * len(parts), 4.4) as figure:
        panels = figure.subplots(1, len(parts), squeeze=False)[0]
        for axes, part in zip(panels, parts, strict=True):
            for item in ranked:
                z = part.z.get(item.recipe)
                if z:
                    label, spread = _label(item), _std(z)
                    style = chosen[label]
                    axes.errorbar(
                        item.score,
                        sum(z) / len(z),
                        xerr=0.0 if math.isnan(item.seeds_std) else item.seeds_std,
                        yerr=0.0 if math.isnan(spread) else spread,
                        color=style.colour,
                        marker=style.marker,
                        markersize=5,
                        label=label,
                    )
            axes.set(xlabel="score by left-out processes", title=part.name)
            axes.set_title(f"{part.name}\nSpearman {_spearman(agreements[part.name])}", fontsize=8)
        panels[0].set_ylabel("median Z (not used for the choice)")
        figure.suptitle("bars: standard deviation over training seeds", fontsize=8)
        legend(figure, panels[0])
        save(figure, path)
