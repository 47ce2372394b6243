"""The null checks: what they count, and that they find a calibration that is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import null
from bench.coverage import CoverageConfig, SmallPool, coverage, small_pools
from bench.honesty import RelabelConfig, relabelled_p_values, summarise, summarise_relabelling
from bench.null_windows import Budget, Mode, NullRun, run_mode
from engines.nplm import NullDistribution, WidthNulls
from engines.types import Float64Array

BUDGET = Budget(n_windows=25, n_toys=99, n_pool=4000, n_basis=300, threads=1)
SMALL = Mode("fixed", n_expected=40, n_ref=400)
SLIDING = replace(SMALL, title="sliding", n_panes=4)
RELABEL = RelabelConfig(n_experiments=8, n_relabellings=9, n_basis=100, n_ref=200, n_data=20)
POOLS = CoverageConfig(
    n_calibrations=3, n_data=50, n_pool=200, n_ref=200, n_toys=19, n_fresh=10, n_basis=100
)


def chi2_run(t: Float64Array, *, n_panes: int = 1) -> NullRun:
    """A run whose toys are chi-square of ten degrees of freedom."""
    toys = np.random.default_rng(0).chisquare(10, (2999, 1))
    return NullRun(Mode("made up", n_panes=n_panes), WidthNulls(toys), t, 0.0)


@pytest.mark.parametrize(
    ("mode", "n_tests", "n_widths"),
    [
        (SMALL, 25, 1),
        (replace(SMALL, title="Poisson", count="time"), 25, 1),
        (replace(SMALL, title="widths", sigma_quantiles=(0.2, 0.9)), 25, 2),
        (replace(SMALL, title="likelihood", loss="likelihood"), 25, 1),
        (SLIDING, 97, 1),
        (Mode("nested", n_expected=10, n_ref=400, scale=4), 25, 1),
    ],
    ids=lambda value: value.title if isinstance(value, Mode) else "",
)
def test_each_mode_tests_every_window_once(mode: Mode, n_tests: int, n_widths: int) -> None:
    done: list[int] = []
    run = run_mode(mode, BUDGET, np.random.default_rng(0), done.append)
    assert run.t.shape == (n_tests, n_widths)
    assert np.isfinite(run.t).all()
    assert len(run.t_disjoint) == BUDGET.n_windows
    assert sum(done) == BUDGET.n_toys + n_tests == BUDGET.n_toys + mode.n_tests(BUDGET.n_windows)
    result = summarise(run)
    assert result["windows"] == BUDGET.n_windows
    assert (result["ks_p_chi2"] is None) == (n_widths > 1)
    json.dumps(result, allow_nan=False)


def test_t_of_the_null_is_found_uniform() -> None:
    result = summarise(chi2_run(np.random.default_rng(1).chisquare(10, (600, 1))))
    for test in ("toys", "chi2", "gamma", "two_sample"):
        assert result[f"ks_p_{test}"] > 0.01
    assert result["below_toys"]["0.01"]["expected"] == 6


def test_shifted_t_is_found_out() -> None:
    t = np.random.default_rng(1).chisquare(10, (600, 1)) + 3
    result = summarise(chi2_run(t))
    for test in ("toys", "chi2", "gamma", "two_sample"):
        assert result[f"ks_p_{test}"] < 0.001
    shares = result["below_toys"]["0.05"]
    assert shares["share_68"][0] > 0.05
    assert shares["seen"] == sum(p <= 0.05 for p in chi2_run(t).p_values("toys"))


def test_overlapping_windows_are_charged_for_their_step_and_alarm_in_clusters() -> None:
    t = np.full((41, 1), 10.0) + np.random.default_rng(0).normal(size=(41, 1))
    t[[3, 4, 5, 20]] = 1000.0
    found = summarise(chi2_run(t, n_panes=4))["overlapping"]
    assert found["windows"] == 41
    assert found["false_alarms"]["expected"] == pytest.approx(0.01 / 4 * 41)
    assert found["false_alarms"]["seen"] == 4
    assert found["clusters"] == 2
    assert found["correlation_by_lag"][0] > found["correlation_by_lag"][3]


def test_relabelled_p_lies_on_its_steps() -> None:
    p = relabelled_p_values(RELABEL, np.random.default_rng(0))
    assert p.shape == (8,)
    np.testing.assert_allclose(10 * p, np.rint(10 * p))
    assert 0.1 <= p.min() <= p.max() <= 1


def test_relabelling_is_judged_by_the_counts_of_its_values() -> None:
    config = RelabelConfig(n_relabellings=9)
    even = np.tile(np.arange(1, 11) / 10, 60)
    result, randomised = summarise_relabelling(even, config, np.random.default_rng(0))
    assert result["chi2_p_steps"] == pytest.approx(1.0)
    assert result["ks_p_randomised"] > 0.5
    assert (randomised <= even).all()
    assert (randomised >= even - 0.1).all()
    low, _ = summarise_relabelling(np.minimum(even, 0.8), config, np.random.default_rng(0))
    assert low["chi2_p_steps"] < 1e-6


def test_coverage_of_offsets_of_the_stated_size_is_right() -> None:
    """Pools whose toys are off by the systematic: nothing but that and the statistics differ."""
    rng = np.random.default_rng(0)
    config = CoverageConfig(n_calibrations=100)
    spread = np.sqrt(2 * 70)
    pools = [
        SmallPool(
            NullDistribution(rng.chisquare(70, config.n_toys) + spread * shift),
            NullDistribution(rng.chisquare(70, config.n_fresh)),
        )
        for shift in config.offset_share * rng.normal(size=config.n_calibrations)
    ]
    covered = coverage(pools, config)
    assert covered["shift_std"] == pytest.approx(config.offset_share, rel=0.25)
    for k, share in (("1", 0.683), ("2", 0.954)):
        assert covered["shift_within"][k] == pytest.approx(share, abs=0.1)
        assert covered["z_within"][k] == pytest.approx(covered["z_within_expected"][k], abs=0.1)
    alarms = covered["p_below_0.05"]
    assert alarms["as calibrated"]["share"] > 0.055
    assert alarms["t lowered by the systematic"]["share"] < 0.045
    averaged = alarms["averaged over the systematic"]
    assert averaged["share"] == pytest.approx(0.05, abs=3 * averaged["error"])


def test_small_pools_are_calibrated_one_by_one() -> None:
    done: list[int] = []
    pools = small_pools(POOLS, np.random.default_rng(0), done.append)
    assert done == [1, 1, 1]
    assert {(len(pool.null.t), len(pool.fresh.t)) for pool in pools} == {(19, 10)}
    assert len({pool.null.mean for pool in pools}) == 3
    json.dumps(coverage(pools, POOLS), allow_nan=False)


def test_command_prints_and_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.null_windows.MODES", {"sliding": SLIDING})
    monkeypatch.setattr("bench.coverage.CoverageConfig", lambda **_: POOLS)
    monkeypatch.setattr("bench.honesty.RelabelConfig", lambda *_: RELABEL)
    saved, picture = tmp_path / "null.json", tmp_path / "null.png"
    sizes = [
        "--windows",
        "20",
        "--toys",
        "99",
        "--pool",
        "2000",
        "--calibrations",
        "3",
        "--threads",
        "1",
    ]
    modes = ["--modes", "sliding", "relabelling"]
    assert null.main([*modes, *sizes, "--json", str(saved), "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "| sliding | 20 |" in printed
    assert "77 overlapping windows" in printed
    assert "| relabelling | 8 |" in printed
    assert "3 calibrations" in printed
    record = json.loads(saved.read_text())
    assert set(record["results"]) == {"sliding", "relabelling"}
    assert record["settings"]["windows"] == 20
    assert record["coverage"]["calibrations"] == 3
    assert record["machine"]["cores"] >= 1
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--toys", "98"], "toys must be at least 99"),
        (["--windows", "1"], "windows must be at least 2"),
        (["--calibrations", "1"], "calibrations must be 0, or at least 2"),
        (["--seed", "-1"], "seed must be"),
        (["--plot", "null.exe"], "suffix"),
        (["--json", "/nowhere/null.json"], "/nowhere"),
    ],
)
def test_command_refuses_before_it_computes(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert null.main(options) != 0
    assert message in capsys.readouterr().err
