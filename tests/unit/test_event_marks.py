"""Events are recognised by content, wherever they stand."""

import base64

import numpy as np
import pytest

from engines.event_marks import N_MARKS, count_marked, mark_events
from engines.types import FloatArray


def _events(n: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    events = rng.exponential(30, size=(n, 19, 3)).astype(np.float32)
    events[:, 1:][rng.random((n, 18)) < 0.7] = 0  # the MET is always there
    return events


def test_all_marks_are_found_in_the_same_events_shuffled_and_renamed() -> None:
    events = _events(20_000)
    marks = mark_events(events)
    assert count_marked(np.random.default_rng(1).permutation(events), marks) == N_MARKS


def test_other_events_have_none() -> None:
    assert count_marked(_events(50_000, seed=1), mark_events(_events(20_000))) == 0


def test_a_tenth_of_the_events_holds_a_tenth_of_the_marks() -> None:
    events = _events(20_000)
    found = count_marked(events[5000:7000], mark_events(events))
    expected = N_MARKS / 10
    assert abs(found - expected) < 5 * np.sqrt(expected)


def test_few_events_are_all_marked() -> None:
    events = _events(50)
    marks = mark_events(events)
    assert [count_marked(event[None], marks) for event in events] == [1] * 50


def test_one_number_that_differs_makes_another_event() -> None:
    events = _events(500)
    other = events.copy()
    other[:, 0, 0] = np.nextafter(other[:, 0, 0], np.float32(np.inf))
    assert count_marked(other, mark_events(events)) == 0


def test_the_same_numbers_in_other_slots_make_another_event() -> None:
    events = _events(500)
    events[:, -1] = 0
    assert count_marked(events[:, ::-1], mark_events(events)) == 0


def test_negative_zero_is_zero() -> None:
    events = _events(500)
    assert count_marked(np.where(events == 0, np.float32(-0.0), events), mark_events(events)) == 500


def test_marks_are_uniform_over_64_bits() -> None:
    marks = np.frombuffer(base64.b64decode(mark_events(_events(N_MARKS))), "<u8")
    bits = (marks[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(N_MARKS)


def test_no_marks_recognise_nothing_and_damaged_ones_are_an_error() -> None:
    assert count_marked(_events(10), "") == 0
    assert count_marked(np.empty((0, 19, 3), np.float32), mark_events(_events(10))) == 0
    with pytest.raises(ValueError, match="base64"):
        count_marked(_events(10), "no marks!")
