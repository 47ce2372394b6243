"""Leading pT, MET and multiplicities of events."""

import numpy as np

from engines.event_quantities import QUANTITIES, event_quantities
from tests.conftest import MakeEvents


def test_quantities_agree_with_a_loop_over_objects(make_events: MakeEvents) -> None:
    particles = make_events(200, seed=3)
    found = event_quantities(particles)
    assert found.shape == (200, len(QUANTITIES))
    assert found.dtype == np.float32
    for event, row in zip(particles, found, strict=True):
        kinds = (event[1:5], event[5:9], event[9:19])
        counts = [sum(1 for pt, _, _ in kind if pt > 0) for kind in kinds]
        lead = max(float(pt) for kind in kinds for pt, _, _ in kind)
        np.testing.assert_array_equal(row, np.array([lead, event[0, 0], *counts], np.float32))


def test_met_is_no_object() -> None:
    event = np.zeros((1, 19, 3), np.float32)
    event[0, 0, 0] = 80.0
    assert event_quantities(event).tolist() == [[0.0, 80.0, 0.0, 0.0, 0.0]]


def test_no_events_have_no_quantities() -> None:
    assert event_quantities(np.zeros((0, 19, 3), np.float32)).shape == (0, 5)


def test_names_are_unique_and_titles_hold_units() -> None:
    assert len({quantity.name for quantity in QUANTITIES}) == len(QUANTITIES)
    assert [quantity.title for quantity in QUANTITIES if not quantity.is_count] == [
        "leading pT [GeV]",
        "MET [GeV]",
    ]
