"""Months of background: the counts are of what was tested, and a drift is a drift."""

from pathlib import Path

import numpy as np
import pytest

from bench.alarms_plot import draw_months
from bench.alarms_text import month_text
from bench.drift import scale_jets
from bench.month import MONTH_S, Month, MonthConfig, run_month, summarise
from engines.engine import open_engine
from engines.event_files import read_events
from engines.pretrained import pretrained_path
from engines.samples import sample_path
from engines.types import FloatArray

SMALL = {"windows": 40, "window": 100, "n_ref": 1000, "n_pool": 4000, "n_toys": 50, "threads": 1}


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    return read_events(f"{sample_path('sm_cocktail')}@60000:70000")


def month(particles: FloatArray, seed: int, drift: float = 0.0) -> Month:
    config = MonthConfig(**SMALL, far="1/day", drift=drift)
    done: list[int] = []
    with open_engine(pretrained_path("d4")) as engine:
        embeddings = engine.embed(particles)
        rng = np.random.default_rng(seed)
        made = run_month(engine, particles, embeddings, config, rng, done.append)
    assert sum(done) == config.windows
    return made


def test_a_month_is_tested_by_the_monitor(particles: FloatArray) -> None:
    results = month(particles, 1).results
    assert [result.window for result in results] == list(range(40))
    assert [result.trials for result in results] == list(range(1, 41))
    assert sum(result.spacing_s for result in results) == pytest.approx(MONTH_S)
    assert {result.threshold_p for result in results} == {0.01}
    assert all(result.n_events == 100 for result in results)


def test_counts_are_those_of_the_windows(particles: FloatArray) -> None:
    months = [month(particles, seed) for seed in (1, 2)]
    found = summarise(months)
    p = np.array([[result.p_chi2 for result in one.results] for one in months])
    rate = found["rates"]["1/day"]["chi2"]
    assert rate["seen"] == (p <= 0.01).sum() == sum(rate["by_month"])
    assert rate["promised"] == pytest.approx(0.8)
    low, high = rate["mean_in_95"]
    assert low <= rate["seen"] <= high
    assert found["windows"] == 80
    assert found["alarming_windows"] == rate["by_month"]
    assert sum(part["alarming_windows"] for part in found["by_part"]) == rate["seen"]
    assert sum(part["promised"] for part in found["by_part"]) == pytest.approx(0.8)


def test_the_same_seed_gives_the_same_month_and_a_large_drift_is_seen(
    particles: FloatArray, tmp_path: Path
) -> None:
    still, again, drifts = (
        month(particles, 3), month(particles, 3), month(particles, 3, drift=1.0)
    )  # fmt: skip
    assert [r.t for r in still.results] == [r.t for r in again.results]
    late = slice(30, 40)
    moved = np.mean([r.z_alarm for r in drifts.results[late]])
    assert moved > np.mean([r.z_alarm for r in still.results[late]]) + 1
    text = month_text({"background": summarise([still]), "drifting": summarise([drifts])})
    assert "drifting: 1 months, 40 windows, jet energy scale +100 % over a month" in text
    assert "| 1/month | chi-square | 0.4 |" in text
    draw_months({"background": [still], "drifting": [drifts]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_jets_and_met_move_together(particles: FloatArray) -> None:
    factor = np.full(len(particles), 1.02, np.float32)
    moved = scale_jets(particles, factor)
    jets = slice(9, 19)
    np.testing.assert_allclose(moved[:, jets, 0], 1.02 * particles[:, jets, 0], rtol=1e-6)
    np.testing.assert_array_equal(moved[:, 1:9], particles[:, 1:9])
    for axis in (np.cos, np.sin):
        before = particles[:, 0, 0] * axis(particles[:, 0, 2])
        after = moved[:, 0, 0] * axis(moved[:, 0, 2])
        gained = 0.02 * (particles[:, jets, 0] * axis(particles[:, jets, 2])).sum(axis=1)
        np.testing.assert_allclose(after, before - gained, atol=1e-3)


def test_nothing_moves_at_the_nominal_scale(particles: FloatArray) -> None:
    same = scale_jets(particles, np.ones(len(particles), np.float32))
    np.testing.assert_allclose(same, particles, rtol=1e-5)
