"""Peer tests, their calibration on shared toys, and the command that compares their power."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from bench import power
from bench.experiment import Experiment
from bench.peers import PEERS, KolmogorovSmirnovPeer, MmdPeer, OnlineMmdPeer, Peer, PeerConfig
from bench.peers import median_width as width_of
from bench.power_curve import Trial, _draw_line, check_rates, draw_power, measure, share, threshold
from engines.calibration_config import CalibrationConfig
from engines.errors import MissingPackageError, ParameterError, SampleSizeError
from engines.samples import sample_path
from engines.types import AnyArray, Float64Array, FloatArray, IntArray
from tests.support import LinearEngine, gaussians, window_spec

WINDOW = 100
CONFIG = PeerConfig(window=WINDOW, n_centres=20, online_reference=200)


class FakeDetector:
    """Stands in for CapyMOA's detector: its statistic is the window's distance from the mean."""

    def __init__(self, window_size: int, sigma: float, n_permutations: int) -> None:
        self.window: list[AnyArray] = []
        self.size, self.settings = window_size, (sigma, n_permutations)

    def fit(self, reference: AnyArray) -> None:
        self.reference = reference

    def add_element(self, event: AnyArray) -> None:
        self.window = [*self.window, event][-self.size :]

    def reset(self) -> None:
        self.window = []

    @property
    def result(self) -> SimpleNamespace:
        assert len(self.window) == self.size
        shift = np.mean(self.window, axis=0) - self.reference.mean(axis=0)
        return SimpleNamespace(statistic=float(shift @ shift))


def pretend_capymoa(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    for name in ("capymoa", "capymoa.drift"):
        monkeypatch.setitem(sys.modules, name, None if module is None else ModuleType(name))
    monkeypatch.setitem(sys.modules, "capymoa.drift.detectors", module)


@pytest.fixture
def fake_capymoa(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("capymoa.drift.detectors")
    module.MMD = FakeDetector
    pretend_capymoa(monkeypatch, module)


@pytest.fixture(params=list(PEERS))
def peer(request: pytest.FixtureRequest, fake_capymoa: None) -> Peer:
    rng = np.random.default_rng(1)
    return PEERS[request.param](gaussians(500, rng), gaussians(1000, rng), CONFIG)


def disjoint(n_windows: int) -> list[AnyArray]:
    return list(np.arange(n_windows * WINDOW).reshape(n_windows, WINDOW))


def test_calibrated_peer_alarms_as_often_as_asked(peer: Peer) -> None:
    n_toys = n_null = 99
    events = gaussians((n_toys + n_null) * WINDOW, np.random.default_rng(2))
    t = peer.statistics(events, disjoint(n_toys + n_null))
    alarms = share(t[n_toys:], threshold(t[:n_toys], 0.1))["alarms"]
    # A binomial count whose probability is itself beta distributed, since the threshold is random.
    low, high = stats.betabinom(n_null, 10, 90).ppf([1e-3, 1 - 1e-3])
    assert low <= alarms <= high


def test_peer_always_sees_a_huge_shift(peer: Peer) -> None:
    rng = np.random.default_rng(3)
    null, shifted = gaussians(50 * WINDOW, rng), gaussians(20 * WINDOW, rng) + np.float32(2)
    t = peer.statistics(np.concatenate([null, shifted]), disjoint(70))
    assert share(t[50:], threshold(t[:50], 0.02))["share"] == 1.0


def test_peer_counts_windows_and_ignores_the_order_of_events(peer: Peer) -> None:
    events, done = gaussians(3 * WINDOW, np.random.default_rng(4)), [0]

    def count(n: int) -> None:
        done[0] += n

    windows = disjoint(3)
    t = peer.statistics(events, windows, done=count)
    assert done[0] == 3
    assert t.shape == (3,)
    np.testing.assert_allclose(
        peer.statistics(events, [window[::-1].copy() for window in windows]), t, rtol=1e-4
    )
    np.testing.assert_allclose(peer.statistics(events, windows[1:]), t[1:], rtol=1e-4)


def naive_mmd2(x: AnyArray, y: AnyArray, sigma: float) -> float:
    def mean(a: AnyArray, b: AnyArray, *, same: bool) -> float:
        kept = [
            np.exp(-np.sum((a[i] - b[j]) ** 2) / (2 * sigma**2))
            for i in range(len(a))
            for j in range(len(b))
            if not (same and i == j)
        ]
        return float(np.mean(kept))

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


def test_mmd_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(5)
    reference, events = gaussians(60, rng), gaussians(80, rng)
    windows = [np.arange(30), np.arange(20, 80)]
    peer = MmdPeer(reference)
    expected = [
        naive_mmd2(reference.astype(float), events[window].astype(float), width_of(reference))
        for window in windows
    ]
    np.testing.assert_allclose(peer.statistics(events, windows), expected, atol=1e-12)


def test_mmd_by_blocks_is_that_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    reference, events = gaussians(100, rng), gaussians(70, rng)
    whole = MmdPeer(reference).statistics(events, [np.arange(70)])
    monkeypatch.setattr("bench.peers._BLOCK", 32)
    for threads in (1, 2):
        by_blocks = MmdPeer(reference, threads).statistics(events, [np.arange(70)])
        np.testing.assert_allclose(by_blocks, whole)


def test_online_mmd_of_capymoa_is_the_same_estimate() -> None:
    pytest.importorskip("jpype", reason="needs the extra bench: pip install 'nplm-stream[bench]'")
    rng = np.random.default_rng(7)
    reference, events = gaussians(300, rng), gaussians(3 * WINDOW, rng)
    online = OnlineMmdPeer(reference, PeerConfig(WINDOW, 20, online_reference=300))
    whole = MmdPeer(reference)
    windows = disjoint(3)
    expected = whole.statistics(events, windows)
    np.testing.assert_allclose(online.statistics(events, windows), expected, atol=1e-12)
    assert online.settings["sigma"] == whole.settings["sigma"]


@pytest.mark.usefixtures("fake_capymoa")
def test_online_detector_gets_the_reference_asked_for_and_whole_windows() -> None:
    rng = np.random.default_rng(8)
    reference, events = gaussians(500, rng), gaussians(2 * WINDOW, rng)
    peer = OnlineMmdPeer(reference, CONFIG)
    shifts = events.reshape(2, WINDOW, 4).mean(axis=1) - reference[:200].mean(axis=0)
    expected = (shifts**2).sum(axis=1)
    np.testing.assert_allclose(peer.statistics(events, disjoint(2)), expected, rtol=1e-5)
    assert peer.settings["n_ref"] == 200


def test_ks_is_the_largest_distance_between_distribution_functions() -> None:
    rng = np.random.default_rng(9)
    reference, data = gaussians(300, rng), gaussians(50, rng) + np.array([0, 0, 0.4, 0], np.float32)
    grid = np.concatenate([reference, data])
    distance = 0.0
    for j in range(4):
        for value in grid[:, j]:
            difference = np.mean(reference[:, j] <= value) - np.mean(data[:, j] <= value)
            distance = max(distance, abs(float(difference)))
    got = KolmogorovSmirnovPeer(reference).statistics(data, [np.arange(50)])
    assert got[0] == pytest.approx(distance)


def test_median_width_is_that_of_pairs_and_must_not_vanish() -> None:
    line = np.array([[0.0], [1.0], [3.0]], np.float32)  # distances 1, 2, 3
    assert width_of(line) == 2.0
    with pytest.raises(ParameterError, match=r"must be above zero; got 0\.0"):
        width_of(np.ones((5, 2), np.float32))


def absent() -> ModuleType | None:
    return None


def without_java() -> ModuleType:
    module = ModuleType("capymoa.drift.detectors")

    def fail(name: str) -> None:
        msg = "Java not found. See https://capymoa.org/setup/#java."
        raise RuntimeError(msg)

    module.__getattr__ = fail  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("module", [absent, without_java])
def test_missing_library_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, module: Callable[[], ModuleType | None]
) -> None:
    pretend_capymoa(monkeypatch, module())
    wanted = r"needs the package capymoa and Java; got .*bench"
    with pytest.raises(MissingPackageError, match=wanted):
        OnlineMmdPeer(gaussians(300, np.random.default_rng(10)), CONFIG)


def test_threshold_counts_toys() -> None:
    t_toys = np.random.default_rng(11).permutation(np.arange(1.0, 100.0))  # 1 to 99
    assert threshold(t_toys, 0.01) == 99.0
    assert threshold(t_toys, 0.05) == 95.0
    assert threshold(t_toys, 0.29) == 71.0
    p_values = [(sum(t_toys >= t) + 1) / 100 for t in (95.0, 95.5)]
    assert p_values == [0.06, 0.05]
    with pytest.raises(ParameterError, match=r"1 / \(toys \+ 1\) = 0\.01; got 0\.001; take 999"):
        check_rates([0.05, 0.001], 99)


def test_share_has_a_binomial_interval() -> None:
    got = share(np.array([1.0, 2.0, 3.0, 4.0]), 2.0)
    assert (got["windows"], got["alarms"], got["share"]) == (4, 2, 0.5)
    low, high = got["share_68"]
    assert stats.binom.sf(1, 4, low) == pytest.approx(0.16, abs=1e-6)  # at least 2 of 4
    assert stats.binom.cdf(2, 4, high) == pytest.approx(0.16, abs=1e-6)
    assert share(np.zeros(10), 1.0)["share_68"][0] == 0.0
    assert share(np.ones(10), 0.0)["share_68"][1] == 1.0


def trial(fractions: tuple[float, ...] = (0.05, 0.3)) -> Trial:
    rng = np.random.default_rng(12)
    calibration = 5 + 3 * gaussians(9000, rng)
    test = 5 + 3 * gaussians(2050, rng)
    signal = 11 + 3 * gaussians(800, rng)
    experiment = Experiment(calibration, test, {"bump": signal})
    config = CalibrationConfig(window=window_spec("count", WINDOW), n_toys=49, n_ref=1000)
    return Trial.of(experiment, config, fractions, 30)


def test_trial_keeps_samples_apart_and_standardises_by_the_reference() -> None:
    made = trial()
    assert (len(made.basis), len(made.reference), len(made.pool)) == (5000, 1000, 3000)
    np.testing.assert_allclose(made.reference.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(made.reference.std(axis=0), 1.0, atol=1e-5)
    together = np.concatenate([made.basis, made.reference, made.pool])
    assert len(np.unique(together, axis=0)) == 9000
    assert made.events[:2050].mean() == pytest.approx(0.0, abs=0.1)
    assert made.events[2050:].mean() == pytest.approx(2.0, abs=0.1)
    assert (len(made.toys), len(made.null)) == (49, 30)
    assert max(toy.max() for toy in made.toys) < 3000
    assert max(window.max() for window in made.null) < 2050
    injected = np.concatenate(made.signal[0.3]) >= 2050
    assert injected.mean() == pytest.approx(0.3, abs=0.05)


def test_trial_refuses_what_it_cannot_fill() -> None:
    with pytest.raises(SampleSizeError, match=r"share of 0\.95.*got 50 and 10"):
        Trial.of(
            Experiment(
                gaussians(9000, np.random.default_rng(0)),
                np.zeros((50, 4), np.float32),
                {"bump": np.zeros((10, 4), np.float32)},
            ),
            CalibrationConfig(window=window_spec("count", WINDOW), n_toys=9, n_ref=1000),
            [0.95],
            5,
        )


class MeanPeer:
    """The mean of the first coordinate: power and false alarms can be counted by hand."""

    name = "mean"
    settings: dict[str, Any] = {}  # noqa: RUF012 - a Protocol's attribute

    def statistics(
        self,
        pool: FloatArray,
        windows: Sequence[IntArray],
        *,
        done: Callable[[int], None] | None = None,
    ) -> Float64Array:
        if done is not None:
            done(len(windows))
        return np.array([pool[window, 0].mean(dtype=float) for window in windows])


def test_measured_shares_are_those_counted_by_hand() -> None:
    made = trial()
    got = measure(MeanPeer(), made, [0.02, 0.1])

    def means(pool: FloatArray, windows: list[AnyArray]) -> AnyArray:
        return np.array([pool[window, 0].mean(dtype=float) for window in windows])

    toys = np.sort(means(made.pool, made.toys))
    for entry, least in zip(got["rates"], (toys[-1], toys[-5]), strict=True):
        assert entry["threshold"] == least
        null = means(made.events, made.null) > least
        assert (entry["null"]["windows"], entry["null"]["alarms"]) == (30, null.sum())
        for point in entry["power"]:
            alarms = means(made.events, made.signal[point["fraction"]]) > least
            assert (point["windows"], point["alarms"]) == (len(alarms), alarms.sum())
    low, high = got["rates"][0]["false_alarm_68"]
    assert (1 - low) ** 49 == pytest.approx(0.84)  # the largest of 49 toys lies below 1 - low
    assert (1 - high) ** 49 == pytest.approx(0.16)
    assert got["rates"][1]["power"][1]["share"] == 1.0
    assert got["t_toys"] == pytest.approx([toys.mean(), toys.std(ddof=1)])


class MetEngine(LinearEngine):
    """Reads MET and the leading jet off an event."""

    dim = 4

    def embed(self, particles: FloatArray) -> FloatArray:
        return np.ascontiguousarray(particles[:, (0, 0, 9, 9), (0, 2, 0, 1)])


@pytest.fixture
def _keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_command_prints_the_table_and_saves_record_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.engine.open_engine", lambda *_, **__: MetEngine())
    record, picture = tmp_path / "out.json", tmp_path / "out.png"
    cocktail, signal = sample_path("sm_cocktail"), sample_path("A4l")
    ranges = ["--calibration", f"{cocktail}@0:8000", "--test", f"{cocktail}@8000:9000"]
    sizes = ["--window", "100", "--n-ref", "1000", "--toys", "49", "--null-windows", "10"]
    choice = ["--tests", "nplm", "mmd", "ks", "--fractions", "0.5", "0.1"]
    rates = ["--false-alarms", "0.02", "0.1"]
    outputs = ["--json", str(record), "--plot", str(picture)]
    signals = ["--signal", f"{signal}@0:900"]
    assert power.main([*ranges, *signals, *sizes, *choice, *rates, *outputs]) == 0
    saved = json.loads(record.read_text())
    assert saved["settings"]["test"] == "sm_cocktail.h5@8000:9000"
    assert saved["settings"]["fractions"] == [0.1, 0.5]
    assert saved["settings"]["n_ref"] == 1000
    assert saved["machine"]["processor"]
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert "A4l 10 % | A4l 50 %" in rows[0]
    assert len(rows) == 1 + 3 * 2
    for result in saved["results"]:
        assert result["rates"][1]["power"][1]["share"] >= 0.9
        assert any(f"| {result['name']} | 10 % |" in row for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_picture_has_a_panel_for_each_rate(tmp_path: Path) -> None:
    power_points = [{"fraction": f, **share(np.arange(9.0), 5)} for f in (0.01, 0.1)]
    entries = [{"false_alarm": rate, "power": power_points} for rate in (0.01, 0.001)]
    draw_power([{"name": "a", "rates": entries}], "bump", tmp_path / "p.png")
    width = int.from_bytes((tmp_path / "p.png").read_bytes()[16:20], "big")
    draw_power([{"name": "a", "rates": entries[:1]}], "bump", tmp_path / "q.png")
    assert int.from_bytes((tmp_path / "q.png").read_bytes()[16:20], "big") < width


def test_line_and_band_are_the_shares_at_the_fractions_in_percent() -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    points = [{"fraction": f, **share(np.arange(9.0), 5)} for f in (0.0025, 0.01)]
    _draw_line(axes, "NPLM", points)
    (line,) = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[0.25, 1 / 3], [1.0, 1 / 3]])
    (band,) = axes.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert [heights.min(), heights.max()] == pytest.approx(points[0]["share_68"])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.25", "1"]
    assert axes.get_xticklabels(minor=True) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--false-alarms", "0"], "--false-alarms: must lie between 0 and 1; got 0"),
        (["--fractions", "many"], "--fractions: must lie between 0 and 1; got many"),
        (["--false-alarms", "0.001"], "got 0.001; take 999 toys"),
        (["--tests", "river"], "--tests: invalid choice: 'river'"),
        (["--engine", "absent.onnx"], "engine absent.onnx does not exist"),
        (["--plot", "/proc/x.png"], "cannot write /proc/x.png"),
    ],
)
@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_bad_option_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    try:
        code: int | str | None = power.main(arguments)
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1, err
    assert text in err
