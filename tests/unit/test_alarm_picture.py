"""What an alarm's picture rests on, and that something is drawn."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy import special, stats

from engines.errors import MismatchError, MissingPackageError
from engines.event_quantities import event_quantities
from engines.nplm import NullDistribution, Tail
from engines.reference_file import load_reference
from engines.types import AnyArray
from stream.alarm.contents import AlarmContents
from stream.alarm.density import LearnedDensity, learn_density
from stream.alarm.histograms import Comparison, bin_edges, poisson_interval
from stream.alarm.panels import check_umap, flat_map, threshold_t
from stream.alarm.plot import alarm_figure, draw_alarm
from stream.alarm.record import read_alarm
from tests.support import small_artifact
from tests.support_alarms import anomalous, examine, keep, stored, window_of

RNG = np.random.default_rng(5)


def some_particles(n: int) -> AnyArray:
    particles = RNG.exponential(20.0, (n, 19, 3)).astype(np.float32)
    particles[RNG.random((n, 19)) < 0.5] = 0.0
    return particles


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alarm") / "small.ref"
    made = small_artifact(sigma_quantiles=(0.5, 0.9))
    quantities = event_quantities(some_particles(made.reference.n_ref))
    stored(path, replace(made, quantities=quantities))
    return path


@pytest.fixture(scope="module")
def alarm(reference: Path) -> AlarmContents:
    artifact = load_reference(reference)
    window = window_of(artifact, anomalous(200, RNG), some_particles(200))
    return read_alarm(keep(reference.parent, examine(artifact, window, reference)))


@pytest.fixture(scope="module")
def learned(alarm: AlarmContents, reference: Path) -> LearnedDensity:
    return learn_density(alarm, reference)


def test_fit_again_is_the_recorded_one(alarm: AlarmContents, learned: LearnedDensity) -> None:
    assert learned.t == pytest.approx(alarm.result["t"], abs=1e-3)
    assert learned.weight == pytest.approx(200 / 2000)
    # The score equation of the cross-entropy, but for the ridge: both sides of the fit balance.
    of_reference = (learned.weight * special.expit(learned.f)).sum()
    assert of_reference == pytest.approx(special.expit(-alarm.f).sum(), rel=0.02)
    assert learned.weights.sum() == pytest.approx(200, rel=0.25)


def test_other_reference_is_refused_with_both(alarm: AlarmContents, tmp_path: Path) -> None:
    other = stored(tmp_path / "other.ref", small_artifact(seed=9))
    with pytest.raises(MismatchError) as caught:
        learn_density(alarm, tmp_path / "other.ref")
    assert alarm.null.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_poisson_interval_covers_what_it_says() -> None:
    low, high = poisson_interval(np.arange(200))
    assert low[0] == 0.0
    assert high[0] == pytest.approx(-np.log(0.5 * (1 - 0.6827)))
    for mean in (0.5, 3.2, 40.0):
        seen = stats.poisson.pmf(np.arange(200), mean)
        assert seen[(low <= mean) & (mean <= high)].sum() >= 0.6827


@pytest.mark.parametrize("tail", ["chi2", "gamma", "toys"])
def test_threshold_is_where_p_reaches_it(tail: Tail) -> None:
    null = NullDistribution(RNG.chisquare(30.0, 400))
    t = threshold_t(null, tail, 0.01, 1)
    assert t is not None
    assert null.tail_p_value(tail, t) <= 0.01 * (1 + 1e-9)
    assert null.tail_p_value(tail, t - 0.5) > 0.01


def test_threshold_beyond_the_toys_is_none() -> None:
    null = NullDistribution(RNG.chisquare(30.0, 50))
    assert threshold_t(null, "toys", 1e-6, 1) is None
    assert threshold_t(null, "toys", 0.05, 2) is None
    assert threshold_t(null, "chi2", 0.0, 1) is None


def test_bins_hold_the_bulk_of_both_and_whole_numbers_their_own() -> None:
    edges = bin_edges(Comparison("x", RNG.normal(size=500), RNG.normal(5.0, 1.0, 500)))
    assert edges[0] < -2
    assert edges[-1] > 7
    counts = Comparison("n", np.array([0.0, 4.0]), np.array([1.0]), is_count=True)
    assert bin_edges(counts).tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert len(bin_edges(Comparison("flat", np.zeros(5), np.zeros(5)))) > 2


def texts(figure: Figure) -> str:
    figure.savefig(io.BytesIO(), format="png")
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def axes_of(figure: Figure) -> int:
    return sum(axes.axison for axes in figure.findobj(mpl.axes.Axes))


def test_every_quantity_is_drawn_with_its_unit(
    alarm: AlarmContents, learned: LearnedDensity
) -> None:
    figure = alarm_figure(alarm, learned)
    said = texts(figure)
    for wanted in ("embedding 4", "leading pT [GeV]", "MET [GeV]", "electrons", "muons", "jets",
                   "learned density", "alarms from t =", f"Z = {alarm.result['z_alarm']:.2f}",
                   "f: log density ratio"):  # fmt: skip
        assert wanted in said
    assert "embedding 5" not in said
    assert axes_of(figure) == 3 + 2 * (4 + 5)  # null, plane, colour bar, the others in pairs


def test_what_needs_the_reference_is_left_out(
    alarm: AlarmContents, learned: LearnedDensity
) -> None:
    assert axes_of(alarm_figure(alarm, None)) == 3
    older = replace(learned, quantities=None)
    assert axes_of(alarm_figure(alarm, older)) == 3 + 2 * 4


@pytest.mark.parametrize("dim", [1, 2, 12])
def test_any_number_of_coordinates_can_be_drawn(
    alarm: AlarmContents, learned: LearnedDensity, dim: int
) -> None:
    wide = replace(alarm, embeddings=RNG.normal(size=(200, dim)).astype(np.float32))
    same = replace(learned, embeddings=RNG.normal(size=(2000, dim)).astype(np.float32))
    said = texts(alarm_figure(wide, same))
    assert f"embedding {min(dim, 8)}\n" in said
    assert "embedding 9" not in said


@pytest.mark.parametrize("t", [-1e9, 1e9])
def test_t_far_from_its_null_is_named_at_the_edge(alarm: AlarmContents, t: float) -> None:
    far = replace(alarm, result={**alarm.result, "t": t})
    said = texts(alarm_figure(far, None))
    assert "beyond the axis" in said
    assert f"t = {t:.1f}" in said


def test_hostile_names_are_drawn_as_escapes(alarm: AlarmContents) -> None:
    hostile = replace(alarm, sources={"$\\frac{$\x1b\u202e": 200})
    assert r"$\frac{$\x1b\u202e" in texts(alarm_figure(hostile, None))


def test_picture_is_not_blank(
    alarm: AlarmContents, learned: LearnedDensity, tmp_path: Path
) -> None:
    draw_alarm(alarm, learned, tmp_path / "alarm.png")
    picture = imread(tmp_path / "alarm.png")[:, :, :3]
    height, width, _ = picture.shape
    for rows, columns in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = picture[rows * height // 2 :, columns * width // 2 :][: height // 2, : width // 2]
        assert 0.02 < (part.min(axis=2) < 0.9).mean() < 0.6
    colours = {tuple(np.round(255 * rgb).astype(int)) for rgb in picture.reshape(-1, 3)[::7]}
    assert {(220, 38, 38), (37, 99, 235), (17, 24, 39)} <= colours  # learned, reference, window


def test_umap_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingPackageError, match=r"nplm-stream\[umap\]"):
        check_umap()


def test_plane_without_umap_is_the_principal_one() -> None:
    events = RNG.normal(size=(50, 3)).astype(np.float32)
    plane, names = flat_map(events, umap=False)
    assert plane.shape == (50, 2)
    assert names == ("first principal axis", "second principal axis")
