"""Windows of the physics benchmark, and its baselines."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy import stats

from bench import physics, physics_engines
from bench.baselines import make_baselines
from bench.experiment import Experiment, signal_windows
from bench.stamp import machine_stamp
from engines.artifact import EngineFacts, SampleFacts, load_onnx, write_facts
from engines.calibration_config import CalibrationConfig
from engines.engine import open_engine
from engines.errors import SampleSizeError
from engines.events import EventRange
from engines.samples import sample_path
from engines.types import AnyArray
from tests.support import gaussians, window_spec
from tests.support_commands import tiny_encoder

CONFIG = CalibrationConfig(
    window=window_spec("count", 100), n_toys=60, n_basis=500, n_ref=1000, n_centres=20
)


def test_signal_windows_use_each_event_once_and_hold_the_asked_share() -> None:
    n_background, window, fraction = 200_000, 1000, 0.05
    rng = np.random.default_rng(1)
    windows = list(signal_windows(n_background, 20_000, window, fraction, rng))
    assert len(windows) == 200
    assert all(len(indices) == window for indices in windows)
    used = np.concatenate(windows)
    assert len(np.unique(used)) == len(used)
    injected = int((used >= n_background).sum())
    expected = fraction * len(used)
    assert abs(injected - expected) < 4 * np.sqrt(expected)


def test_signal_windows_end_when_the_signal_does() -> None:
    windows = list(signal_windows(10_000, 100, 1000, 0.05, np.random.default_rng(2)))
    assert 1 <= len(windows) < 10
    assert max(indices.max() for indices in windows) < 10_100


def test_baselines_pick_the_right_objects(tmp_path: Path) -> None:
    particles = np.arange(1, 2 * 57 + 1, dtype=np.float32).reshape(2, 19, 3)
    engines = make_baselines(EventRange(sample_path("sm_cocktail"), 500), tmp_path)
    raw, leading = [open_engine(path).embed(particles) for path in engines.values()]
    np.testing.assert_allclose(raw, particles.reshape(2, 57), rtol=1e-6)
    np.testing.assert_allclose(leading[0], [1, 16, 19, 4, 7, 28], rtol=1e-6)


def test_machine_stamp_names_the_machine() -> None:
    stamp = machine_stamp()
    assert stamp["processor"]
    assert stamp["cores"] >= 1
    assert stamp["memory_gib"] > 0


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    rng = np.random.default_rng(3)
    signal = gaussians(400, rng) + np.float32(3)
    return Experiment(gaussians(6000, rng), gaussians(3050, rng), {"bump": signal})


def own_p(null_t: AnyArray, t: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return p from counted toys and from the chi-square of the toys' mean."""
    counted = np.array([(sum(null_t >= value) + 1) / (len(null_t) + 1) for value in t])
    return counted, stats.chi2.sf(t, null_t.mean())


def test_null_honesty_is_that_of_the_test_events(experiment: Experiment) -> None:
    reference, null = experiment.calibrate(CONFIG)
    t = np.array([reference.test(part).t for part in experiment.test[:3000].reshape(30, 100, 4)])
    p, p_chi2 = own_p(null.t, t)
    got = experiment.null_honesty(CONFIG)
    assert (got["window"], got["windows"], got["toys"]) == (100, 30, 60)
    assert got["t_windows"] == pytest.approx([t.mean(), t.std(ddof=1)], rel=1e-3)
    assert got["t_toys"] == pytest.approx([null.t.mean(), null.t.std(ddof=1)])
    assert got["ks_p_toys"] == pytest.approx(stats.kstest(p, "uniform").pvalue, rel=0.02)
    assert got["ks_p_chi2"] == pytest.approx(stats.kstest(p_chi2, "uniform").pvalue, rel=0.02)
    assert got["share_below_0.05"] == pytest.approx((p <= 0.05).mean())
    assert got["share_below_0.01"] == pytest.approx((p <= 0.01).mean())
    assert 0 < (p <= 0.05).mean() < 1


def test_power_is_the_median_z_of_windows_with_signal(experiment: Experiment) -> None:
    reference, null = experiment.calibrate(CONFIG)
    rows = experiment.power(CONFIG, [0.02, 0.1], seed=5)
    assert [(row["signal"], row["fraction"]) for row in rows] == [("bump", 0.02), ("bump", 0.1)]
    for row in rows:
        rng = np.random.default_rng([5, round(1e6 * row["fraction"])])
        signal, first, t = experiment.signals["bump"], 0, []
        for k in range(30):
            n = int(rng.binomial(100, row["fraction"]))
            window = [experiment.test[100 * k : 100 * (k + 1) - n], signal[first : first + n]]
            first += n
            t.append(reference.test(np.concatenate(window)).t)
        z = stats.norm.isf(own_p(null.t, np.array(t))[1])
        assert row["windows"] == 30
        assert row["z_median"] == pytest.approx(np.median(z), abs=0.01)
        assert row["z_68"] == pytest.approx(np.quantile(z, [0.16, 0.84]), abs=0.01)
        assert row["power_3_sigma"] == pytest.approx((z >= 3).mean())
        assert row["t_median"] == pytest.approx(np.median(t), rel=1e-3)
    assert rows[1]["z_median"] > rows[0]["z_median"] + 1
    assert rows[1]["power_3_sigma"] > 0


def test_windows_that_cannot_be_filled_are_named(experiment: Experiment) -> None:
    small = Experiment(experiment.calibration, experiment.test[:150], {"a": experiment.test[:9]})
    with pytest.raises(SampleSizeError, match="must fill two windows of 100; got 150"):
        small.null_honesty(CONFIG)
    with pytest.raises(SampleSizeError, match=r"share of 0\.9; got 150 and 9"):
        small.power(CONFIG, [0.9], seed=0)


@pytest.fixture
def _keep_threads() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("trained", "arguments", "said"),
    [
        ("sm_cocktail@0:45100", [], "trained on 100 of these events (sm_cocktail.h5 events 0 to"),
        ("sm_cocktail@200000:201000", [], "d4: the encoder was trained on 1000 of these events"),
        ("A4l@0:10", [], "trained on 10 of these events (A4l.h5 events 0 to 10"),
        ("sm_rare@0:10", ["--test", "sm_cocktail.h5@149000:235000"], "share 1000; choose ranges"),
    ],
)
@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_events_that_trained_or_calibrated_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trained: str,
    arguments: list[str],
    said: str,
) -> None:
    name, _, span = trained.partition("@")
    source = EventRange.parse(f"{sample_path(name)}@{span}")
    model = load_onnx(tiny_encoder(tmp_path / "d4.onnx"))
    write_facts(model, EngineFacts(trained_on=(SampleFacts.of(source),), dim=3))
    onnx.save_model(model, tmp_path / "d4.onnx")
    words = [w.replace("sm_cocktail.h5", str(sample_path("sm_cocktail"))) for w in arguments]
    assert physics.main(["engines", "--engine", str(tmp_path / "d4.onnx"), *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--fractions", "0.1", "1"], "--fractions: must lie between 0 and 1; got 1"),
        (["--fractions", "nan"], "must lie between 0 and 1; got nan"),
        (["--fractions", "0"], "must lie between 0 and 1; got 0"),
        (["--engine", "absent.onnx"], "engine absent.onnx does not exist"),
        (["--json", "/proc/x.json"], "cannot write /proc/x.json"),
    ],
)
@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_bad_option_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    try:
        code: int | str | None = physics.main(["engines", *arguments])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1, err
    assert text in err


def test_help_shows_ranges_as_they_are_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        physics.main(["engines", "--help"])
    text = capsys.readouterr().out
    assert "sm_cocktail.h5@45000:150000)" in text
    assert "EventRange" not in text
    assert "PosixPath" not in text


def test_settings_are_recorded(tmp_path: Path) -> None:
    options = physics_engines._parser().parse(["--fractions", "0.3", "0.01"])
    options.json, options.signals = tmp_path / "out.json", []
    physics_engines._save(options, {}, {"d4": {"fingerprint": "ab"}})
    record = json.loads(options.json.read_text())
    assert record["settings"]["fractions"] == [0.3, 0.01]
    assert record["settings"]["test"] == "sm_cocktail.h5@150000:235000"
    assert record["engines"] == {"d4": {"fingerprint": "ab"}}
