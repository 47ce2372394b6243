"""The detector's response to events made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from engines.types import BoolArray, FloatArray
from tests.support_simulation import block, soft_pool
from training.simulation.detector_config import DetectorConfig
from training.simulation.overlay import overlay
from training.simulation.particles import kinematics

pytest.importorskip("fastjet", reason="needs the extra sim")

from training.simulation.detector import Detector

PERFECT = replace(
    DetectorConfig(),
    n_soft=0,
    hadron_resolution=0.0,
    photon_resolution=0.0,
    electron_resolution=(0.0, 0.0),
    muon_resolution=(0.0, 0.0),
    electron_efficiency=(1.0, 1.0),
    soft_electron_efficiency=1.0,
    muon_efficiency=1.0,
    jet_noise_gev=0.0,
    met_noise_gev=0.0,
)
POOL = soft_pool(50)
E, MU, PI = 11, 13, 211


def respond(
    config: DetectorConfig, *events: list[tuple[int, float, float, float]]
) -> tuple[FloatArray, BoolArray]:
    return Detector(config, POOL).respond(block(*events), np.random.default_rng(1))


def test_perfect_detector_gives_back_the_event() -> None:
    particles, passes = respond(PERFECT, [(MU, 40.0, 1.0, 0.5), (PI, 50.0, -0.5, 2.0)])
    event = particles[0]
    assert passes[0]
    np.testing.assert_allclose(event[5], (40.0, 1.0, 0.5), rtol=1e-4)
    np.testing.assert_allclose(event[9], (50.0 * 1.08, -0.5, 2.0), rtol=1e-4)
    balance = 40.0 * np.exp(0.5j) + 50.0 * np.exp(2.0j)
    np.testing.assert_allclose(event[0], (abs(balance), 0.0, np.angle(-balance)), rtol=1e-3)
    others = np.delete(event, [0, 5, 9], axis=0)
    assert not others.any()


def test_objects_are_ordered_and_what_is_too_many_is_left_out() -> None:
    pts = (12.0, 30.0, 9.0, 25.0, 40.0, 5.0)
    muons = [(MU, pt, 0.7 * i - 1.8, 0.1) for i, pt in enumerate(pts)]
    electrons = [(-E, 26.0, -2.0, 2.0), (E, 51.0, 2.0, -2.0)]
    particles, _ = respond(PERFECT, muons + electrons)
    np.testing.assert_allclose(particles[0, 5:9, 0], (40.0, 30.0, 25.0, 12.0), rtol=1e-4)
    np.testing.assert_allclose(particles[0, 1:5, 0], (51.0, 26.0, 0.0, 0.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("lepton", "found"),
    [
        ((E, 30.0, 2.9, 0.0), True),
        ((E, 30.0, 3.1, 0.0), False),
        ((MU, 30.0, 2.0, 0.0), True),
        ((MU, 30.0, 2.2, 0.0), False),
        ((MU, 2.9, 0.0, 0.0), False),
    ],
)
def test_acceptance(lepton: tuple[int, float, float, float], *, found: bool) -> None:
    particles, passes = respond(PERFECT, [lepton])
    assert bool(particles[0, 1:9, 0].any()) == found
    assert passes[0] == found


@pytest.mark.parametrize(("near", "isolated"), [(13.0, True), (14.0, False)])
def test_isolation_compares_the_cone_with_the_lepton(near: float, *, isolated: bool) -> None:
    particles, _ = respond(PERFECT, [(MU, 30.0, 0.0, 0.0), (PI, near, 0.2, 0.2)])
    assert (particles[0, 5, 0] > 0) == isolated
    # A muon that is not isolated is part of the jet.
    assert (particles[0, 9, 0] > 40.0) == (not isolated)


def test_muon_far_forward_is_missing_and_electron_becomes_a_jet() -> None:
    particles, _ = respond(PERFECT, [(MU, 30.0, 2.7, 0.0)], [(E, 30.0, 3.5, 0.0)])
    assert particles[0, 0, 0] == 0.0
    assert particles[0, 9, 0] == 0.0
    assert particles[1, 9, 0] == pytest.approx(30.0 * 1.08, rel=1e-3)


def test_efficiencies_and_resolutions_are_those_of_the_settings() -> None:
    config = replace(PERFECT, electron_efficiency=(0.9, 0.7), muon_resolution=(0.02, 0.0))
    n = 4000
    events = [[(E, 30.0, 0.5, 0.0), (E, 30.0, -2.5, 2.0), (MU, 50.0, 0.0, -2.0)]] * n
    particles, _ = respond(config, *events)
    electrons = particles[:, 1:5]
    for eta, efficiency in ((0.5, 0.9), (-2.5, 0.7)):
        share = (np.isclose(electrons[:, :, 1], eta, atol=1e-3)).any(axis=1).mean()
        assert share == pytest.approx(efficiency, abs=4 * np.sqrt(0.25 / n))
    assert particles[:, 5, 0].mean() == pytest.approx(50.0, abs=0.1)
    assert particles[:, 5, 0].std() == pytest.approx(1.0, rel=0.06)


def test_noise_of_the_missing_momentum() -> None:
    config = replace(PERFECT, met_noise_gev=8.0)
    particles, _ = respond(config, *([[(MU, 30.0, 0.0, 1.0)]] * 4000))
    met = particles[:, 0, 0] * np.exp(1j * particles[:, 0, 2]) + 30.0 * np.exp(1.0j)
    assert met.real.std() == pytest.approx(8.0, rel=0.06)
    assert met.imag.std() == pytest.approx(8.0, rel=0.06)


def test_overlay_adds_soft_events_and_leaves_the_hard_one() -> None:
    hard = block([(MU, 30.0, 0.0, 1.0)], [(E, 40.0, 1.0, 2.0), (PI, 3.0, 0.0, 0.0)])
    both = overlay(hard, POOL, 2, 0.0, np.random.default_rng(3))
    assert len(both) == 2
    for i, n in enumerate(hard.counts):
        start = both.offsets[i]
        np.testing.assert_array_equal(both.p4[start : start + n], hard.p4[hard.events == i])
    # Rotations and reflections keep pT and |eta|: each soft event is one of the pool.
    added = np.delete(both.p4, [both.offsets[0], both.offsets[1], both.offsets[1] + 1], axis=0)
    known = kinematics(POOL.p4)
    for pt, eta, _ in kinematics(added):
        assert np.any(np.isclose(known[:, 0], pt) & np.isclose(abs(known[:, 1]), abs(eta)))


def test_response_depends_on_the_generator_alone() -> None:
    detector = Detector(DetectorConfig(), POOL)
    event = block(*([[(MU, 30.0, 0.0, 1.0), (PI, 40.0, 1.0, 2.0)]] * 5))
    first, again, other = (
        detector.respond(event, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_empty_event() -> None:
    particles, passes = respond(PERFECT, [], [(MU, 30.0, 0.0, 1.0)])
    assert not particles[0].any()
    assert passes.tolist() == [False, True]
