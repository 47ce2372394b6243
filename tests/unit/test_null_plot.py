"""The picture of the null shows the toys, both laws and the marks, where they are."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import StepPatch
from scipy import integrate, stats

from engines.errors import ArtifactError, ParameterError
from engines.nplm.min_p import WidthNulls
from engines.nplm.null import NullDistribution
from engines.null_plot import check_picture, draw_density, draw_null, draw_survival, null_figure
from engines.types import Float64Array

NULL = NullDistribution(np.random.default_rng(0).chisquare(40, size=200))


def curve(axes: Axes, label: str) -> tuple[Float64Array, Float64Array]:
    line = next(line for line in axes.lines if str(line.get_label()).startswith(label))
    x, y = line.get_data()
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def stair(axes: Axes, label: str) -> tuple[Float64Array, Float64Array]:
    patches = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    values, edges, _ = next(p for p in patches if str(p.get_label()).startswith(label)).get_data()
    return np.asarray(values), np.asarray(edges)


def test_density_counts_every_toy_and_the_laws_hold_as_many() -> None:
    axes = Figure().subplots()
    draw_density(axes, NULL)
    counts, edges = stair(axes, "200 toys")
    assert counts.sum() == 200
    assert (edges[0], edges[-1]) == pytest.approx((NULL.t.min(), NULL.t.max()))
    for label in ("chi-square", "gamma"):
        t, density = curve(axes, label)
        assert integrate.trapezoid(density, t) / (edges[1] - edges[0]) == pytest.approx(
            200, rel=0.02
        )


def test_legend_says_parameters_and_fit() -> None:
    axes = Figure().subplots()
    draw_density(axes, NULL)
    said = [str(label) for label in axes.get_legend_handles_labels()[1]]
    assert said[1] == f"chi-square, {NULL.chi2_dof:.4g} dof: KS p = {NULL.chi2_ks_p:.2g}"
    assert said[2] == f"gamma, shape {NULL.gamma_shape:.3g}: KS p = {NULL.gamma_ks_p:.2g}"


def test_survival_is_the_p_value_of_each_tail() -> None:
    axes = Figure().subplots()
    draw_survival(axes, NULL)
    p_values, edges = stair(axes, "toys")
    assert p_values[0] == 1.0
    assert p_values[-1] == NULL.resolution
    middles = 0.5 * (edges[1:] + edges[:-1])
    assert p_values == pytest.approx([NULL.p_value(t) for t in middles])
    t, chi2 = curve(axes, "chi-square")
    assert chi2 == pytest.approx([NULL.chi2_p_value(value) for value in t])
    t, gamma = curve(axes, "gamma")
    assert gamma == pytest.approx([NULL.gamma_p_value(value) for value in t])


def test_band_is_the_toys_interval() -> None:
    axes = Figure().subplots()
    draw_survival(axes, NULL)
    within, beyond = (p.get_data() for p in axes.patches[:2] if isinstance(p, StepPatch))
    high, edges, low = (np.asarray(part) for part in within)
    for i in (1, 100, 199):
        t = 0.5 * float(edges[i] + edges[i + 1])
        assert (low[i], high[i]) == pytest.approx(NULL.p_interval(t))
    assert np.asarray(beyond[0]) == pytest.approx(NULL.p_interval(1e9)[1])


def test_marks_are_the_resolution_three_and_five_sigma() -> None:
    axes = Figure().subplots()
    draw_survival(axes, NULL)
    levels = {float(np.asarray(line.get_ydata())[0]) for line in axes.lines
              if line.get_linestyle() == ":"}  # fmt: skip
    assert sorted(levels) == pytest.approx([stats.norm.sf(5), stats.norm.sf(3), NULL.resolution])
    said = {text.get_text() for text in axes.texts}
    assert {"3 sigma", "5 sigma", "toys resolve p \N{GREATER-THAN OR EQUAL TO} 0.005"} == said
    dots = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() == "o"]
    chi2_at_3 = stats.chi2.isf(stats.norm.sf(3), NULL.chi2_dof)
    assert any(np.allclose(dot, (chi2_at_3, stats.norm.sf(3))) for dot in dots)


@pytest.mark.parametrize("t", [[5.0, 5.0], [-9.0, -8.0], [0.0, 1e6], [-1e3, 40.0, 41.0]])
def test_odd_toys_are_drawn_too(t: list[float]) -> None:
    density, survival = Figure().subplots(1, 2)
    null = NullDistribution(np.array(t))
    draw_density(density, null)
    draw_survival(survival, null)
    first, last = survival.get_xlim()
    assert first <= min(t) <= max(t) <= last


def test_figure_has_a_row_for_each_scale_and_width() -> None:
    rng = np.random.default_rng(1)
    nulls = {scale: WidthNulls(rng.chisquare((20, 30), size=(30, 2))) for scale in (1, 10)}
    figure = null_figure(nulls, [1.0, 0.25], "500 events")
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        "500 events, sigma 1",
        "500 events, sigma 0.25",
        "10 windows of 500 events, sigma 1",
        "10 windows of 500 events, sigma 0.25",
    ]
    said = [axes.get_legend_handles_labels()[1][0] for axes in figure.axes[::2]]
    for label, null in zip(said, [null for n in nulls.values() for null in n.nulls], strict=True):
        assert label.startswith(f"30 toys: {null.mean:.4g} ")


def test_picture_is_written(tmp_path: Path) -> None:
    draw_null({1: WidthNulls(NULL.t[:20, None])}, [1.0], "500 events", tmp_path / "null.png")
    assert imread(tmp_path / "null.png").shape[:2] == (429, 1430)


@pytest.mark.parametrize("name", ["null", "null.ref", "null.pgf"])
def test_suffix_of_no_picture_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"suffix must be one of .*; got '{name}'; name it"):
        check_picture(Path(name))
    check_picture(Path("null.PNG"))


def test_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    nulls = {1: WidthNulls(NULL.t[:20, None])}
    with pytest.raises(ArtifactError, match=r"cannot write the picture .*; choose a writable"):
        draw_null(nulls, [1.0], "500 events", tmp_path / "absent" / "null.png")
