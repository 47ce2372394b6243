"""Further responses to one event, with detectors that accept as told."""

import numpy as np
import pytest

from engines.types import BoolArray, FloatArray
from tests.support_simulation import block
from training.simulation.chunk import resimulate
from training.simulation.particles import EventBlock

MUON = (13, 30.0, 0.0, 1.0)


class CountingDetector:
    """Answers with how often it was asked; accepts a share of the events."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.asked = 0

    def respond(self, hard: EventBlock, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        particles = np.zeros((len(hard), 19, 3), np.float32)
        particles[:, 0, 0] = self.asked + 1 + np.arange(len(hard))
        particles[:, 1, 0] = hard.p4[hard.offsets[:-1], 3]
        self.asked += len(hard)
        return particles, rng.random(len(hard)) < self.share


def draw(share: float, k: int) -> tuple[FloatArray, int, CountingDetector]:
    hard = block([MUON], [(13, 40.0, 0.0, 1.0)], [(13, 50.0, 0.0, 1.0)])
    first = np.full((3, 19, 3), -1.0, np.float32)
    detector = CountingDetector(share)
    found, repeated = resimulate(
        hard,
        first,
        k,
        detector,  # type: ignore[arg-type]
        np.random.default_rng(0),
    )
    return found, repeated, detector


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_every_realisation_is_a_response_to_its_own_event(share: float) -> None:
    found, repeated, _ = draw(share, 6)
    assert found.shape == (3, 6, 19, 3)
    assert repeated == 0
    energies = found[:, :, 1, 0]
    np.testing.assert_allclose(energies, np.repeat([[30.0], [40.0], [50.0]], 6, axis=1))
    assert len(np.unique(found[:, :, 0, 0])) == 18


def test_no_more_is_drawn_than_is_needed() -> None:
    _, _, detector = draw(1.0, 6)
    assert detector.asked == 18


def test_hopeless_events_repeat_their_first_response() -> None:
    found, repeated, detector = draw(0.0, 2)
    assert repeated == 6
    assert (found == -1.0).all()
    assert detector.asked == 20 * 6


def test_none_asked_for() -> None:
    found, repeated, detector = draw(1.0, 0)
    assert found.shape == (3, 0, 19, 3)
    assert (repeated, detector.asked) == (0, 0)
