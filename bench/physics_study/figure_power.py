"""Figures IX and X of arXiv:2502.15926, and what all figures against dimension share."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from bench.physics_study.config import Study
from bench.physics_study.drawing import Style, legend, new_figure, save, styles
from bench.physics_study.summary import SIGMAS, OverSeeds, power_interval
from bench.physics_study.tables import seen_signals

__all__ = ["draw_power", "encoder_labels", "free_dims", "study_styles", "z_to_p"]

_GREY = "#6b7280"


def draw_power(study: Study, groups: Sequence[OverSeeds], dim: int, path: Path) -> Path:
    """Draw power at 1, 2 and 3 sigma against fraction for one dimension (Figs. IX, X).

    Embeddings whose dimension the study does not set stand in every such figure; bars are the
    68 % interval that the number of windows leaves. Points of one fraction are moved apart.
    """
    signals, fixed = list(study.data.signals), _fixed(study)
    shown = [g for g in groups if g.row.dim == dim or g.row.encoder in fixed]
    labels = encoder_labels(groups)
    percent = [100 * fraction for fraction in study.test.fractions if fraction > 0]
    with new_figure(1.5 + 2.9 * len(signals), 7.2) as figure:
        panels = figure.subplots(len(SIGMAS), len(signals), squeeze=False, sharey=True)
        for row, sigma in zip(panels, SIGMAS, strict=True):
            for axes, signal in zip(row, signals, strict=True):
                axes.set_title(f"{signal}, {sigma} sigma", fontsize=9)
                own = [g for g in shown if g.row.signal == signal and g.row.fraction > 0]
                _power_panel(axes, own, sigma, study_styles(study), labels)
                axes.set(xscale="log", ylim=(-0.03, 1.05))
                axes.set_xticks(percent, [f"{value:g}" for value in percent])
                axes.minorticks_off()
        for axes in panels[-1]:
            axes.set_xlabel("signal in the window [%]")
        for axes in panels[:, 0]:
            axes.set_ylabel("share of windows")
        title = f"Power, D = {dim}, and embeddings whose dimension the study does not set"
        figure.suptitle(f"{title}\nbars: 68 % interval from the number of windows", fontsize=9)
        legend(figure, panels[0, 0])
        return save(figure, path)


def _power_panel(
    axes: Axes,
    groups: Sequence[OverSeeds],
    sigma: int,
    chosen: dict[str, Style],
    labels: dict[str, str],
) -> None:
    axes.axhline(z_to_p(sigma), color=_GREY, linewidth=0.6, linestyle=":")
    names = [name for name in chosen if any(g.row.encoder == name for g in groups)]
    step = min(0.03, 0.2 / max(1, len(names) - 1))
    for index, name in enumerate(names):
        own = sorted((g for g in groups if g.row.encoder == name), key=lambda g: g.row.fraction)
        moved = math.exp(step * (index - 0.5 * (len(names) - 1)))
        power = [getattr(group.row, f"power_{sigma}") for group in own]
        ends = [power_interval(group.row, sigma) for group in own]
        axes.errorbar(
            [100 * group.row.fraction * moved for group in own],
            power,
            yerr=[
                [max(0.0, value - low) for value, (low, _) in zip(power, ends, strict=True)],
                [max(0.0, high - value) for value, (_, high) in zip(power, ends, strict=True)],
            ],
            label=labels[name],
            markersize=4,
            capsize=2,
            **chosen[name].line(),
        )


def z_to_p(sigma: float) -> float:
    """Return the p-value of so many sigma, one-sided."""
    return 0.5 * math.erfc(sigma / math.sqrt(2))


def encoder_labels(groups: Sequence[OverSeeds]) -> dict[str, str]:
    """Return the encoders' names with the tested signals that training saw, if it saw any."""
    seen = seen_signals(groups)
    names = dict.fromkeys(group.row.encoder for group in groups)
    return {name: f"{name} [seen: {seen[name]}]" if name in seen else name for name in names}


def study_styles(study: Study) -> dict[str, Style]:
    """Return the style of every encoder."""
    return styles([encoder.name for encoder in study.encoders])


def free_dims(study: Study, groups: Sequence[OverSeeds]) -> list[int]:
    """Return the dimensions, kept quantities included, of encoders that come in some."""
    fixed = _fixed(study)
    return sorted({group.row.dim for group in groups if group.row.encoder not in fixed})


def _fixed(study: Study) -> set[str]:
    return {encoder.name for encoder in study.encoders if encoder.dims == (0,)}
