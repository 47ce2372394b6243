"""Figures II, III and IV of arXiv:2502.15926, drawn from a study's own measurements."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from bench.physics_study.config import Study
from bench.physics_study.drawing import Style, legend, new_figure, save
from bench.physics_study.figure_power import encoder_labels, free_dims, study_styles, z_to_p
from bench.physics_study.jobs import EngineJob
from bench.physics_study.summary import SIGMAS, OverSeeds, cell_values
from engines.nplm import z_score

__all__ = ["draw_accuracy", "draw_t", "draw_z"]

_GREY = "#6b7280"
_MOVED = "points of one dimension are moved apart"
#: From a weak to a strong signal.
_T_COLOURS = ("#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#000000")


def draw_accuracy(study: Study, groups: Sequence[OverSeeds], path: Path) -> Path:
    """Draw background accuracy against dimension (Fig. II); bars are the spread over seeds."""
    lines: dict[str, dict[int, OverSeeds]] = {}
    for group in groups:
        if not math.isnan(group.row.accuracy):
            lines.setdefault(group.row.encoder, {})[group.row.dim] = group
    with new_figure(7.5, 4.0) as figure:
        axes = figure.subplots()
        dims, chosen = free_dims(study, groups), study_styles(study)
        labels = encoder_labels(groups)
        for index, (name, by_dim) in enumerate(lines.items()):
            points = [
                (dim, 100 * group.row.accuracy, _bar(group, "accuracy", 100))
                for dim, group in by_dim.items()
            ]
            _line(axes, chosen[name], labels[name], dims, points, _shift(index, len(lines)))
        axes.set(xlabel="embedding dimension", ylabel="linear accuracy on background [%]")
        _dimension_axis(axes, dims)
        figure.suptitle(f"bars: standard deviation over trainings; {_MOVED}", fontsize=8)
        legend(figure, axes)
        return save(figure, path)


def draw_z(study: Study, groups: Sequence[OverSeeds], path: Path) -> Path:
    """Draw median Z against dimension (Fig. III); bars are the 68 % band over windows."""
    signals, fractions = list(study.data.signals), study.test.fractions
    labels = encoder_labels(groups)
    chosen, dims = study_styles(study), free_dims(study, groups)
    with new_figure(1.5 + 2.9 * len(signals), 1.2 + 2.3 * len(fractions)) as figure:
        panels = figure.subplots(len(fractions), len(signals), squeeze=False, sharex=True)
        for row, fraction in zip(panels, fractions, strict=True):
            for axes, signal in zip(row, signals, strict=True):
                axes.set_title(f"{signal}, {100 * fraction:g} %", fontsize=9)
                axes.axhline(0, color=_GREY, linewidth=0.6)
                axes.axhline(3, color=_GREY, linewidth=0.6, linestyle=":")
                _z_panel(axes, _cell(groups, signal, fraction), chosen, labels, dims)
        for axes in panels[-1]:
            axes.set_xlabel("embedding dimension")
        for axes in panels[:, 0]:
            axes.set_ylabel("median Z")
        bars = "bars: 68 % band over windows, mean over trainings; dotted: Z = 3"
        figure.suptitle(f"{bars}; {_MOVED}", fontsize=8)
        legend(figure, panels[0, 0])
        return save(figure, path)


def _z_panel(
    axes: Axes,
    cell: Sequence[OverSeeds],
    chosen: dict[str, Style],
    labels: dict[str, str],
    dims: list[int],
) -> None:
    names = [name for name in chosen if any(group.row.encoder == name for group in cell)]
    moved = [
        name for name in names if any(g.row.encoder == name and g.row.dim in dims for g in cell)
    ]
    for name in names:
        index = moved.index(name) if name in moved else 0
        points = [
            (
                group.row.dim,
                group.row.z,
                (group.row.z - group.row.z_low, group.row.z_high - group.row.z),
            )
            for group in cell
            if group.row.encoder == name
        ]
        label = labels[name]
        _line(axes, chosen[name], label, dims, points, _shift(index, len(moved)))
    _dimension_axis(axes, dims)


def draw_t(job: EngineJob, record: dict[str, Any], marks: Mapping[str, str], path: Path) -> Path:
    """Draw t under the null and with signal for one engine (Fig. IV), with the power.

    Each panel is one signal, with what its encoder's training saw (`marks`); t is shown in null
    spreads, so that divisions can stand together.
    """
    cells = [(cell["signal"], cell["fraction"]) for cell in record["divisions"][0]["cells"]]
    signals = list(dict.fromkeys(signal for signal, _ in cells))
    with new_figure(1.0 + 3.6 * len(signals), 3.6) as figure:
        panels = figure.subplots(1, len(signals), squeeze=False, sharey=True)[0]
        for axes, signal in zip(panels, signals, strict=True):
            mark = marks.get(signal)
            axes.set_title(f"{signal} [{mark}]" if mark else signal, fontsize=9)
            axes.set_xlabel("(t - null mean) / null spread")
            _t_panel(axes, record, signal, [fraction for s, fraction in cells if s == signal])
        panels[0].set_ylabel("share of windows")
        figure.suptitle(f"{job}: t without and with signal", fontsize=10)
        return save(figure, path)


def _t_panel(axes: Axes, record: dict[str, Any], signal: str, fractions: Sequence[float]) -> None:
    nulls = [null for null, _ in cell_values(record, signal, fractions[0])]
    samples = {"no signal (toys)": np.concatenate([(n.t - n.mean) / n.std for n in nulls])}
    for fraction in fractions:
        values = list(cell_values(record, signal, fraction))
        z = np.array([z_score(null.chi2_p_value(x)) for null, t in values for x in t])
        power = ", ".join(f"{100 * (z >= sigma).mean():.0f}" for sigma in SIGMAS)
        label = f"{100 * fraction:g} %: power {power} %"
        samples[label] = np.concatenate([(t - null.mean) / null.std for null, t in values])
    for sigma in SIGMAS:
        least = np.mean(
            [(stats.chi2.isf(z_to_p(sigma), n.chi2_dof) - n.mean) / n.std for n in nulls]
        )
        axes.axvline(float(least), color=_GREY, linewidth=0.7, linestyle=":")
    edges = np.histogram_bin_edges(np.concatenate(list(samples.values())), bins=25)
    for index, (label, sample) in enumerate(samples.items()):
        axes.hist(
            sample,
            bins=edges.tolist(),
            weights=np.full(len(sample), 1 / len(sample)),
            histtype="step" if index else "stepfilled",
            color=_T_COLOURS[(index - 1) % len(_T_COLOURS)] if index else _GREY,
            alpha=1.0 if index else 0.45,
            linewidth=1.4,
            label=label,
        )
    axes.legend(
        frameon=False, fontsize=7, title="power at 1, 2, 3 sigma (dotted)", title_fontsize=7
    )


def _cell(groups: Sequence[OverSeeds], signal: str, fraction: float) -> list[OverSeeds]:
    return [
        group
        for group in groups
        if group.row.signal == signal and math.isclose(group.row.fraction, fraction)
    ]


def _dimension_axis(axes: Axes, dims: list[int]) -> None:
    axes.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    axes.set_xlim(-0.5, max(len(dims), 1) - 0.5)


def _shift(index: int, n: int) -> float:
    return 0.0 if n < 2 else (index - 0.5 * (n - 1)) * min(0.12, 0.6 / (n - 1))


def _bar(group: OverSeeds, name: str, scale: float) -> tuple[float, float]:
    spread = scale * float(np.nan_to_num(group.spread[name]))
    return spread, spread


def _line(
    axes: Axes,
    style: Style,
    name: str,
    dims: list[int],
    points: Sequence[tuple[int, float, tuple[float, float]]],
    shift: float,
) -> None:
    """Draw points with bars; an embedding whose dimension is no tick becomes a horizontal line."""
    at_tick = [point for point in points if point[0] in dims]
    if not at_tick:
        for dim, value, _ in points:
            label = f"{name} (D {dim})"
            axes.axhline(value, color=style.colour, linestyle="--", linewidth=1.2, label=label)
        return
    axes.errorbar(
        [dims.index(dim) + shift for dim, _, _ in at_tick],
        [value for _, value, _ in at_tick],
        yerr=np.transpose([bar for _, _, bar in at_tick]),
        label=name,
        markersize=4,
        capsize=2,
        **style.line(),
    )
