"""What a study measures: windows, black boxes, and the ranking of recipes."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.physics_study import figure_maps
from bench.physics_study.black_box import NO_SIGNAL, expected_largest, global_z, measure_boxes
from bench.physics_study.config import BlackBox, MeasureConfig
from bench.physics_study.maps import score_window
from bench.physics_study.measure import Deck, divide, measure_windows
from bench.physics_study.selection import agreement, rank_recipes
from bench.physics_study.summary import Row, cell_values, over_seeds, power_interval
from bench.physics_study.tables import reuse_text, seen_signals
from engines.calibration import calibrate_embeddings
from engines.calibration_config import CalibrationConfig, choose_sizes
from engines.errors import SampleSizeError
from engines.events import EventRange
from engines.types import FloatArray
from tests.support import gaussians, window_spec

CONFIG = MeasureConfig(
    window=200, fractions=(0.02, 0.1), windows=30, splits=3, toys=60, n_ref=2000, seed=4
)
BOX = BlackBox(("a",), ("bump",), 0.1, 200, 10, references=3, toys=60, n_ref=2000, seed=1)


@pytest.fixture(scope="module")
def background() -> FloatArray:
    return gaussians(12_000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def bump() -> FloatArray:
    return gaussians(2000, np.random.default_rng(1)) + np.float32(2)


def test_deck_deals_each_event_once_before_it_shuffles_again() -> None:
    deck = Deck(100, np.random.default_rng(0))
    first = np.concatenate([deck.deal(30) for _ in range(3)])
    assert len(np.unique(first)) == 90
    assert len(np.unique(deck.deal(30))) == 30
    with pytest.raises(SampleSizeError, match="needs 101 events of a kind; there are 100"):
        deck.deal(101)


def test_a_division_is_that_of_calibrate_reference(
    background: FloatArray, capsys: pytest.CaptureFixture[str]
) -> None:
    division = divide(background, window=200, toys=40, n_ref=2000, seed=9)
    assert capsys.readouterr().err == ""
    config = CalibrationConfig(window_spec("count", 200), n_toys=40, n_ref=2000, seed=9)
    sizes = choose_sizes(len(background), config)
    made = calibrate_embeddings(background, sizes, config)
    np.testing.assert_array_equal(division.null.t, made.nulls[1].nulls[0].t)
    np.testing.assert_array_equal(division.reference.embeddings, made.reference.embeddings)
    rows = {row.tobytes() for row in background}
    pool = {row.tobytes() for row in division.pool}
    used = {row.tobytes() for row in made.reference.embeddings}
    assert pool <= rows
    assert not pool & used
    assert len(pool) == sizes.n_pool == 12_000 - 5000 - 2000


def test_windows_with_more_of_the_same_follow_the_null(background: FloatArray) -> None:
    """The pool's offset must not enter: a signal like the background moves no t."""
    same = gaussians(12_000, np.random.default_rng(2))
    config = replace(CONFIG, fractions=(0.05,), windows=240, splits=8)
    record = measure_windows(background, {"same": same}, config)
    deviations = np.concatenate(
        [(t - null.mean) / null.std for null, t in cell_values(record, "same", 0.05)]
    )
    assert len(deviations) == 240
    # 240 windows and 480 toys: 0.08; events shared between windows add to that.
    assert abs(deviations.mean()) < 0.35
    assert 0.8 < deviations.std() < 1.25


def test_a_signal_raises_t_with_its_share(background: FloatArray, bump: FloatArray) -> None:
    record = measure_windows(background, {"bump": bump}, CONFIG)
    assert [d["seed"] for d in record["divisions"]] == [4000, 4001, 4002]
    medians = []
    for fraction in CONFIG.fractions:
        cells = list(cell_values(record, "bump", fraction))
        assert [len(t) for _, t in cells] == [10, 10, 10]
        medians.append(np.median([(t - null.mean) / null.std for null, t in cells]))
    assert medians[1] > medians[0] + 2 > 2
    assert record["signal_uses"] == pytest.approx(30 * 200 * 0.1 / 2000)
    assert record == measure_windows(background, {"bump": bump}, CONFIG)


def test_too_few_signal_events_are_named(background: FloatArray, bump: FloatArray) -> None:
    with pytest.raises(SampleSizeError, match="there are 5"):
        measure_windows(background, {"bump": bump[:5]}, CONFIG)
    with pytest.raises(SampleSizeError, match="needs 200 events of bump; there are 5"):
        measure_boxes(background, {"bump": bump[:5]}, BOX)


def test_a_black_box_finds_its_signal_and_no_other(
    background: FloatArray, bump: FloatArray
) -> None:
    record = measure_boxes(background, {"bump": bump}, BOX)
    empty, full = record["boxes"]
    assert (empty["signal"], full["signal"]) == (NO_SIGNAL, "bump")
    assert np.shape(full["z"]) == (3, 10)
    assert record["n_signal"] == 200
    assert np.mean(full["z"]) > np.mean(empty["z"]) + 2
    assert all(r["n_pool"] == 12_000 - 2000 - 5000 - 2000 for r in record["references"])


def test_global_z_is_standard_normal_without_signal() -> None:
    z = np.array([0.3, 2.5, -1.0, 1.0])
    assert global_z(z) == pytest.approx(stats.norm.isf(1 - stats.norm.cdf(2.5) ** 4))
    assert global_z(np.array([8.0, 1.0])) == pytest.approx(stats.norm.isf(2 * stats.norm.sf(8)))
    splits = np.random.default_rng(0).normal(size=(4000, 10))
    found = np.array([global_z(box) for box in splits])
    assert abs(found.mean()) < 4 / np.sqrt(4000)
    assert found.std() == pytest.approx(1, rel=0.05)
    assert expected_largest(10) == pytest.approx(splits.max(axis=1).mean(), abs=0.04)


def test_toys_of_a_finite_pool_scatter_as_the_docstring_says() -> None:
    """The variance of a quadratic form: windows of a pool against windows of endless background."""
    rng, n, n_pool, n_ref, dim = np.random.default_rng(0), 20, 60, 80, 30
    pooled, endless = [], []
    for _ in range(1000):
        pool = rng.normal(size=(n_pool, dim))
        reference = rng.normal(size=dim) / np.sqrt(n_ref)
        toys = np.array([pool[rng.permutation(n_pool)[:n]].mean(axis=0) for _ in range(40)])
        fresh = rng.normal(size=(40, dim)) / np.sqrt(n)
        pooled.append(((toys - reference) ** 2).sum(axis=1).var(ddof=1))
        endless.append(((fresh - reference) ** 2).sum(axis=1).var(ddof=1))
    w, v = n / n_pool, n / n_ref
    wanted = (1 - w**2 + 2 * v * (1 - w)) / (1 + 2 * v)
    assert np.mean(pooled) / np.mean(endless) == pytest.approx(wanted, abs=0.04)


def test_windows_without_signal_count_false_alarms(
    background: FloatArray, bump: FloatArray
) -> None:
    config = replace(CONFIG, fractions=(0.0, 0.1), windows=60)
    record = measure_windows(background, {"bump": bump}, config)
    t = np.concatenate([(t - null.mean) / null.std for null, t in cell_values(record, "bump", 0.0)])
    assert len(t) == 60
    assert abs(t.mean()) < 0.6


def test_the_interval_of_a_power_is_that_of_its_windows() -> None:
    one = replace(row("a", 0, "x", 1.0), windows=60, power_3=0.25)
    low, high = power_interval(one, 3)
    exact = stats.binomtest(15, 60).proportion_ci(0.68, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))


def test_the_smallest_ks_p_over_seeds_is_kept() -> None:
    rows = [replace(row("a", seed, "x", 1), chi2_ks_p=p) for seed, p in enumerate((0.4, 0.1))]
    assert over_seeds(rows)[0].row.chi2_ks_p == 0.1


def test_what_windows_share_is_said() -> None:
    once, twice = (replace(row("a", 0, "x", 1), signal_uses=uses) for uses in (0.5, 2.0))
    test = MeasureConfig(window=100, fractions=(0.1,), windows=60)
    background = EventRange(Path("background.h5"), 1000, 3000)
    rare, often = (
        " ".join(reuse_text(test, background, rows).split()) for rows in ([once], [once, twice])
    )
    assert "use a background event 3 times on average, and a signal event up to 0.5 times." in rare
    assert "a signal event up to 2 times: **the band over windows is too narrow there**." in often


def test_what_training_saw_is_said_by_encoder() -> None:
    rows = [
        *(replace(row("a", 0, s, 1), training=m) for s, m in (("x", "seen"), ("y", "held out"))),
        replace(row("b", 0, "x", 1), training="held out"),
        row("c", 0, "x", 1),
    ]
    assert seen_signals(over_seeds(rows)) == {"a": "x", "b": "none tested"}


def test_the_map_scores_signal_above_background(background: FloatArray, bump: FloatArray) -> None:
    divided = {"toys": 30, "n_ref": 2000, "seed": 1}
    found = score_window(background, bump, window=400, fraction=0.1, divided=divided)
    is_signal = found["is_signal"]
    assert is_signal.sum() == 40
    assert found["embeddings"].shape == (400, 4)
    assert np.median(found["f"][is_signal]) > np.median(found["f"][~is_signal]) + 0.5
    assert found["z"][0] > 3


def row(encoder: str, seed: int, signal: str, z: float, *, dim: int = 4) -> Row:
    rest = {field.name for field in fields(Row)} - {"training", "kept"}
    values: dict[str, Any] = dict.fromkeys(rest, 0.5)
    return Row(**{**values, "encoder": encoder, "dim": dim, "seed": seed, "signal": signal, "z": z})


def test_seeds_are_averaged_with_their_spread() -> None:
    (group,) = over_seeds([row("a", 0, "x", 1.0), row("a", 1, "x", 2.0), row("a", 2, "x", 6.0)])
    assert (group.row.z, group.n_seeds) == (3.0, 3)
    assert group.spread["z"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert len(over_seeds([row("a", 0, "x", 1), row("a", 0, "x", 1, dim=8)])) == 2


def test_recipes_are_ranked_by_their_mean_over_processes_and_seeds() -> None:
    rows = [
        *(row("a", seed, "W", z) for seed, z in enumerate((1.0, 3.0))),
        *(row("a", seed, "Z", z) for seed, z in enumerate((2.0, 2.0))),
        *(row("b", seed, "W", 9.0) for seed in (0, 1)),
        *(row("b", seed, "Z", 1.0) for seed in (0, 1)),
        row("c", 0, "W", 50.0),  # not yet measured without Z
    ]
    first, second = rank_recipes(rows)
    assert (first.recipe, first.score, first.seeds_std) == (("b", 4), 5.0, 0.0)
    assert (second.recipe, second.score) == (("a", 4), 2.0)
    assert second.by_seed == (1.5, 2.5)
    assert second.by_process == {"W": 2.0, "Z": 2.0}
    assert (first.mean_rank, second.mean_rank) == (1.5, 1.5)
    assert rank_recipes([]) == []


def test_agreement_is_a_rank_correlation_with_its_interval() -> None:
    scores = [[float(n), n + 0.1] for n in range(8)]
    same = agreement(scores, [[np.exp(a)] for a, _ in scores])
    assert same is not None
    assert same.spearman == pytest.approx(1.0)
    assert same.low > 0.9
    assert same.p_value == pytest.approx(1 / 1001, abs=2e-3)
    noise = np.random.default_rng(0).normal(size=(8, 1)).tolist()
    none = agreement(scores, noise)
    assert none is not None
    assert none.low < none.spearman < none.high
    assert none.high - none.low > 0.3
    assert agreement(scores[:3], scores[:3]) is None


def test_flat_map_of_a_plane_keeps_its_distances() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) @ np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    points, method = figure_maps.flat_map(plane.astype(np.float32), "pca")
    assert method == "PCA"
    wanted = np.linalg.norm(plane[0] - plane[1])
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(wanted, rel=1e-5)


def test_flat_map_without_umap_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    _, method = figure_maps.flat_map(np.eye(5, dtype=np.float32))
    assert "for want of umap-learn" in method
