"""Overlapping windows: the cases that a property does not name."""

from dataclasses import replace

import numpy as np
import pytest

from engines.errors import ParameterError
from engines.windows import WindowSpec
from stream.block import Span
from stream.sliding import SlidingWindows, open_windows, panes_per_window
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow, Windows
from tests.support_stream import block

S = 10**9


def ids(window: ClosedWindow) -> list[int]:
    return [int(value) for value in window.embeddings[:, 0]]


def by_time(n_panes: int) -> SlidingWindows:
    """Return windows of n panes of ten seconds."""
    return SlidingWindows(TimeWindows(10 * S), n_panes, 10 * S)


def add(windows: Windows, seq: int, t_s: int, n_missing: int = 0) -> list[ClosedWindow]:
    """Add a message of one event, its number the time."""
    message = block("a", seq, t_s * S, np.array([t_s]))
    return list(windows.add(replace(message, n_missing=n_missing)))


@pytest.mark.parametrize(
    ("window", "step", "n_panes"),
    [("10000", "2500", 4), ("10000", "10000", 1), ("10", " 1 ", 10), ("60s", "15s", 4),
     ("1m", "500ms", 120), ("0.3s", "100ms", 3), ("1h", "1h", 1)],
)  # fmt: skip
def test_step_divides_the_window(window: str, step: str, n_panes: int) -> None:
    assert panes_per_window(WindowSpec.parse(window, 1000.0), step) == n_panes


@pytest.mark.parametrize(
    ("window", "step", "reason"),
    [("10000", "3000", "must divide the window of 10000 events"), ("100", "200", "must divide"),
     ("100", "0", "must divide"), ("60s", "25s", "must divide the window of 60 s"),
     ("60s", "2m", "must divide"), ("100", "10s", "must be a number of events"),
     ("60s", "10", "must be a duration"), ("60s", "often", "a duration must be a number"),
     ("100", "-5", "must be a number of events"), ("60s", "0.0000000001ms", "must divide")],
)  # fmt: skip
def test_step_that_does_not_is_explained(window: str, step: str, reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        panes_per_window(WindowSpec.parse(window, 1000.0), step)


@pytest.mark.parametrize("n_panes", [1, 4])
@pytest.mark.parametrize(
    "spec", [WindowSpec("count", 100.0), WindowSpec("time", 50.0, 0.5)], ids=["count", "time"]
)
def test_spec_chooses_the_windowing(spec: WindowSpec, n_panes: int) -> None:
    windows = open_windows(spec, n_panes)
    tumbling = CountWindows if spec.mode == "count" else TimeWindows
    assert type(windows) is (tumbling if n_panes == 1 else SlidingWindows)
    closed = [
        window
        for seq in range(101)
        for window in windows.add(block("a", seq, seq * S // 100, np.arange(2)))
    ]
    assert [len(window) for window in closed] == [100] * (1 + n_panes)
    assert {window.overlap for window in closed} == {(n_panes - 1) / n_panes}


def test_windows_share_what_they_overlap_in_and_do_not_copy_it() -> None:
    windows = SlidingWindows(CountWindows(2), 3)
    first, second = windows.add(block("a", 0, 5, np.arange(9)))
    assert (ids(first), ids(second)) == ([0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7])
    assert second.spans == (Span("a", 0, 2, 0, 8),)
    assert first.blocks[1:] == second.blocks[:2]
    assert all(one is other for one, other in zip(first.blocks[1:], second.blocks[:2], strict=True))
    assert (first.index, second.index, second.overlap) == (0, 1, 2 / 3)
    assert (windows.n_open, windows.n_unclosed) == (5, 1)


def test_first_window_closes_when_it_is_full() -> None:
    windows = SlidingWindows(CountWindows(2), 3)
    assert list(windows.add(block("a", 0, 0, np.arange(5)))) == []
    assert (windows.n_open, windows.n_unclosed) == (5, 5)
    (window,) = windows.add(block("a", 1, 0, np.arange(5, 6)))
    assert ids(window) == list(range(6))
    assert (windows.n_open, windows.n_unclosed) == (4, 0)


def test_pane_without_events_is_still_part_of_a_window() -> None:
    windows = by_time(3)
    assert add(windows, 0, 5) == []
    closed = [window for seq, t_s in ((1, 35), (2, 45)) for window in add(windows, seq, t_s)]
    bounds = [(window.t_start_ns // S, window.t_end_ns // S) for window in closed]
    assert [ids(window) for window in closed] == [[5], [35]]
    assert bounds == [(5, 35), (15, 45)]
    assert windows.n_empty == 0


def test_long_silence_is_counted_and_costs_nothing() -> None:
    windows = by_time(3)
    add(windows, 0, 0)
    add(windows, 1, 15)
    year_s = 365 * 86_400
    closed = add(windows, 2, year_s)
    assert [ids(window) for window in closed] == [[0, 15], [15]]
    assert [window.t_end_ns // S for window in closed] == [30, 40]
    assert windows.n_empty == year_s // 10 - 4
    (after,) = add(windows, 3, year_s + 10)
    assert ids(after) == [year_s]
    assert after.t_end_ns == after.t_start_ns + 30 * S == (year_s // 10 + 1) * 10 * S
    assert after.index == 2


def test_missing_messages_are_charged_once_to_each_window_they_may_belong_to() -> None:
    windows = by_time(2)
    lost = {25: 3}
    closed = [
        window
        for seq, t_s in enumerate((0, 10, 25, 32, 40, 50, 60))
        for window in add(windows, seq, t_s, lost.get(t_s, 0))
    ]
    found = [(window.t_start_ns // S, window.n_missing) for window in closed]
    assert found == [(0, 3), (10, 3), (20, 3), (30, 0), (40, 0)]


def test_missing_messages_of_a_count_window_are_in_its_blocks() -> None:
    windows = SlidingWindows(CountWindows(2), 2)
    late = replace(block("a", 5, 0, np.arange(5)), n_missing=4)
    closed = [*windows.add(block("a", 0, 0, np.arange(3))), *windows.add(late)]
    assert [window.n_missing for window in closed] == [4, 4, 0]


def test_every_window_over_a_clock_set_back_is_cut() -> None:
    windows = by_time(2)
    closed = [w for seq, t in enumerate([*range(1000, 1025), *range(100, 160)])
              for w in add(windows, seq, t)]  # fmt: skip
    assert [(w.t_start_ns // S, w.cut) for w in closed] == [
        (1000, False), (1010, True), (100, True), (110, False), (120, False), (130, False)
    ]  # fmt: skip


@pytest.mark.parametrize("n_panes", [1, 2])
def test_time_window_holds_ten_times_what_it_expects(n_panes: int) -> None:
    windows = open_windows(WindowSpec("time", 60.0, 2.0), n_panes)
    flood = [block("a", seq, S // 2, np.arange(20)) for seq in range(70)]
    times = [k * S + S // 2 for k in range(2, 12)]
    calm = [block("b", seq, t_ns, np.arange(9)) for seq, t_ns in enumerate(times)]
    closed = [window for one in (*flood, *calm) for window in windows.add(one)]
    first_whole = next(place for place, window in enumerate(closed) if not window.cut)
    assert all(window.cut for window in closed[:first_whole])
    assert not any(window.cut for window in closed[first_whole:])
    assert max(map(len, closed)) == 600
    if n_panes == 1:
        assert [len(window) for window in closed[:first_whole]] == [600, 600, 200]
