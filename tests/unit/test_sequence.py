"""Sources: how many may be at work, which are remembered, and what survives a restart."""

import json

import pytest

from engines.errors import MessageError
from stream.sequence import SequenceTracker


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> SequenceTracker:
    made = SequenceTracker(max_sources=2, clock=clock)
    made.check("a", 5)
    made.check("b", 7)
    return made


def refusal(tracker: SequenceTracker, source: str, seq: int) -> str:
    with pytest.raises(MessageError) as caught:
        tracker.check(source, seq)
    return caught.value.reason


def test_source_too_many_is_refused_and_the_others_go_on(tracker: SequenceTracker) -> None:
    assert {refusal(tracker, f"invented {n}", 0) for n in range(1000)} == {"too-many-sources"}
    assert (tracker.check("a", 6), tracker.check("b", 9)) == (0, 1)
    assert set(tracker.state()) == {"a", "b"}


def test_source_that_ends_makes_room_and_is_remembered(tracker: SequenceTracker) -> None:
    tracker.end("a")
    assert tracker.check("c", 0) == 0
    assert refusal(tracker, "a", 5) == "repeated"
    assert refusal(tracker, "a", 6) == "too-many-sources"
    tracker.end("c")
    assert tracker.check("a", 8) == 2


def test_source_silent_for_an_hour_makes_room_and_is_remembered(
    tracker: SequenceTracker, clock: Clock
) -> None:
    clock.now_s = 3600.0
    assert refusal(tracker, "c", 0) == "too-many-sources"
    tracker.check("b", 8)
    clock.now_s = 3601.0
    assert tracker.check("c", 0) == 0
    assert refusal(tracker, "d", 0) == "too-many-sources"
    assert refusal(tracker, "a", 4) == "repeated"


def test_end_of_an_unknown_source_is_nothing(tracker: SequenceTracker) -> None:
    tracker.end("never heard of")
    tracker.end("a")
    tracker.end("a")
    assert tracker.state() == {"a": 6, "b": 8}


def test_state_goes_through_json_and_back(tracker: SequenceTracker, clock: Clock) -> None:
    tracker.end("a")
    restored = SequenceTracker(max_sources=2, clock=clock)
    restored.restore(json.loads(json.dumps(tracker.state())))
    assert restored.state() == tracker.state()
    assert refusal(restored, "b", 7) == refusal(restored, "a", 5) == "repeated"
    assert restored.check("b", 9) == 1


def test_sources_that_are_restored_take_no_room_until_they_send(clock: Clock) -> None:
    tracker = SequenceTracker(max_sources=2, clock=clock)
    tracker.restore({f"old {n}": n for n in range(100)})
    assert tracker.check("new", 0) == 0
    assert tracker.check("old 99", 99) == 0
    assert refusal(tracker, "old 98", 98) == "too-many-sources"


def test_what_is_remembered_is_bounded() -> None:
    tracker = SequenceTracker()
    forgotten: list[str] = []
    tracker.on_forget = forgotten.append
    for number in range(10_500):
        tracker.check(f"s{number}", 0)
        tracker.end(f"s{number}")
    assert len(tracker.state()) == 10_000
    assert forgotten == [f"s{number}" for number in range(500)]
    tracker.restore({f"s{number}": 1 for number in range(20_000)})
    assert len(tracker.state()) == 10_000
    assert len(forgotten) == 500 + 10_000
