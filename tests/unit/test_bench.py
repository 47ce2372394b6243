"""Windows of the physics benchmark, and its baselines."""

import numpy as np

from bench.baselines import leading_pt, raw_inputs
from bench.experiment import signal_windows
from bench.stamp import machine_stamp


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


def test_baselines_pick_the_right_objects() -> None:
    particles = np.arange(2 * 57, dtype=np.float32).reshape(2, 19, 3)
    assert raw_inputs(particles).shape == (2, 57)
    np.testing.assert_array_equal(leading_pt(particles)[0], [0, 15, 18, 3, 6, 27])


def test_machine_stamp_names_the_machine() -> None:
    stamp = machine_stamp()
    assert stamp["processor"]
    assert stamp["cores"] >= 1
    assert stamp["memory_gib"] > 0
