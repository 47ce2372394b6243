"""Whom a consumer knows, who is there, and whether two use one name."""

import pytest

from stream.delivery.sources import Sources


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_source_met_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.delivery.sources._MOST_KNOWN", 4)
    sources = Sources({"old": 5, "older": 6, "new": 7}, {"new": 2}, Clock())
    assert sources["new"].missing == 2
    _, gone = sources.begin("fourth", 0)
    assert gone == ""
    sources.meet("old", b"A")
    sources.leave("old")
    assert [sources.begin(name, 0)[1] for name in ("a", "b")] == ["older", "new"]
    sources.meet("fourth", b"A")
    sources.meet("a", b"A")
    assert [sources.begin(name, 0)[1] for name in ("c", "d", "e")] == ["old", "b", "c"]
    assert sources.get("old") is None
    assert sources.of(b"A") == ["fourth", "a"]


def test_who_is_not_heard_of_within_the_hour_makes_room() -> None:
    clock = Clock()
    sources = Sources({"a": 0, "b": 0}, {}, clock)
    sources.meet("a", b"A")
    clock.now += 3000.0
    sources.meet("b", b"B")
    clock.now += 1000.0
    sources.let_go()
    assert (sources.is_present("a"), sources.is_present("b"), sources.n_present) == (0, 1, 1)
    assert sources["a"].peer == b""


@pytest.mark.parametrize(
    ("peers", "step_s", "wanted"),
    [
        ("AB" * 20, 1.0, True),
        ("AAABBB" * 5, 1.0, True),
        ("A" * 50 + "B" * 50, 1.0, False),
        ("A" + "BA" * 4 + "B" * 50, 1.0, False),  # what an old connection has left
        ("AB" * 5, 60.0, False),  # goes back to where it was, as to another embedder
        ("ABCDEFGHIJKLMNOPQRST", 1.0, False),  # a bad line
    ],
)
def test_two_connections_in_turns_are_noticed(peers: str, step_s: float, wanted: bool) -> None:
    clock = Clock()
    sources = Sources({"a": 0}, {}, clock)
    found = []
    for peer in peers:
        clock.now += step_s
        found.append(sources.meet("a", peer.encode()))
    assert any(found) == wanted


def test_what_could_not_be_read_on_one_connection_says_nothing_of_another() -> None:
    sources = Sources({"a": 0}, {}, Clock())
    sources.meet("a", b"A")
    sources["a"].n_unread = 2
    sources.meet("a", b"A")
    assert sources["a"].n_unread == 2
    sources.meet("a", b"B")
    assert sources["a"].n_unread == 0
