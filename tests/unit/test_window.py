"""Cutting the stream: the cases that a property does not name."""

from dataclasses import replace

import numpy as np
import pytest

from stream.block import Span
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow
from tests.support_stream import block

S = 10**9


def ids(window: ClosedWindow) -> list[int]:
    return [int(value) for value in window.embeddings[:, 0]]


def test_block_splits_without_losing_its_place() -> None:
    head, tail = block("a", 3, 7, np.arange(5)).split(2)
    assert (len(head), head.first, len(tail), tail.first) == (2, 0, 3, 2)
    deeper = tail.split(1)[1]
    assert (deeper.first, deeper.seq, deeper.t_ns, deeper.source) == (3, 3, 7, "a")
    assert deeper.embeddings[:, 0].tolist() == [3, 4]
    assert np.asarray(deeper.features.result())[:, 0].tolist() == [3, 4]


def test_message_longer_than_two_windows_closes_both() -> None:
    windows = CountWindows(3)
    closed = list(windows.add(block("a", 0, 5, np.arange(8))))
    assert [ids(window) for window in closed] == [[0, 1, 2], [3, 4, 5]]
    assert [window.index for window in closed] == [0, 1]
    assert closed[1].spans == (Span("a", 0, 3, 0, 6),)
    assert windows.n_open == 2


def test_window_closes_with_its_last_event_not_later() -> None:
    windows = CountWindows(4)
    assert list(windows.add(block("a", 0, 0, np.arange(3)))) == []
    assert len(list(windows.add(block("a", 1, 0, np.arange(1))))) == 1
    assert windows.n_open == 0
    assert windows.n_empty == 0


def test_two_sources_have_a_span_each() -> None:
    windows = CountWindows(6)
    list(windows.add(block("a", 4, 30, np.arange(2))))
    list(windows.add(block("b", 9, 10, np.arange(2))))
    (window,) = windows.add(block("a", 6, 20, np.arange(5)))
    assert window.spans == (Span("a", 4, 0, 6, 2), Span("b", 9, 0, 9, 2))
    assert (window.t_start_ns, window.t_end_ns) == (10, 30)
    assert len(window) == len(window.particles) == 6


def test_time_window_has_its_bounds_not_its_messages() -> None:
    windows = TimeWindows(10 * S)
    assert list(windows.add(block("a", 0, 100 * S, np.arange(2)))) == []
    assert list(windows.add(block("a", 1, 110 * S - 1, np.arange(3)))) == []
    (window,) = windows.add(block("a", 2, 110 * S, np.arange(4)))
    assert (window.t_start_ns, window.t_end_ns, len(window)) == (100 * S, 110 * S, 5)
    assert windows.n_open == 4


def test_silence_is_counted_as_empty_windows() -> None:
    windows = TimeWindows(10 * S)
    list(windows.add(block("a", 0, 0, np.arange(1))))
    (window,) = windows.add(block("a", 1, 45 * S, np.arange(1)))
    assert (window.index, windows.n_empty) == (0, 3)
    (window,) = windows.add(block("a", 2, 50 * S, np.arange(1)))
    assert (window.index, window.t_start_ns, windows.n_empty) == (1, 40 * S, 3)


def test_late_message_goes_into_the_open_window() -> None:
    windows = TimeWindows(10 * S)
    list(windows.add(block("a", 0, 0, np.array([0]))))
    list(windows.add(block("a", 1, 12 * S, np.array([1]))))
    assert list(windows.add(block("b", 0, 3 * S, np.array([2])))) == []
    (window,) = windows.add(block("a", 2, 20 * S, np.array([3])))
    assert ids(window) == [1, 2]
    assert (window.t_start_ns, window.t_end_ns) == (10 * S, 20 * S)


def test_clock_that_jumps_back_closes_nothing_and_loses_nothing() -> None:
    windows = TimeWindows(10 * S)
    list(windows.add(block("a", 0, 100 * S, np.array([0]))))
    for seq, t_s in enumerate((20, 50, 99, 101), start=1):
        assert list(windows.add(block("a", seq, t_s * S, np.array([seq])))) == []
    (window,) = windows.add(block("a", 5, 111 * S, np.array([5])))
    assert ids(window) == [0, 1, 2, 3, 4]
    assert (windows.n_open, windows.n_empty) == (1, 0)


def test_missing_messages_are_charged_to_every_window_they_may_belong_to() -> None:
    count = CountWindows(4)
    late = replace(block("a", 3, 0, np.arange(6)), n_missing=2)
    list(count.add(block("a", 0, 0, np.arange(1))))
    (first,) = count.add(late)
    (second,) = count.add(block("a", 4, 0, np.arange(1)))
    assert (first.n_missing, second.n_missing) == (2, 0)
    time = TimeWindows(S)
    list(time.add(block("a", 0, 0, np.arange(3))))
    (before,) = time.add(replace(block("a", 3, S, np.arange(3)), n_missing=2))
    (after,) = time.add(block("a", 4, 2 * S, np.arange(3)))
    (whole,) = time.add(block("a", 5, 3 * S, np.arange(3)))
    assert [w.n_missing for w in (before, after, whole)] == [2, 2, 0]


def place(windows: TimeWindows, *times_s: float) -> list[tuple[int, int, bool]]:
    """Add messages of one event; return start, events and `cut` of the windows that close."""
    messages = (block("a", seq, int(t * S), np.array([seq])) for seq, t in enumerate(times_s))
    closed = (window for message in messages for window in windows.add(message))
    return [(window.t_start_ns // S, len(window), window.cut) for window in closed]


def test_clock_set_back_cuts_the_window_and_the_next_begin_anew() -> None:
    """Or everything until the clock has caught up would be one window."""
    times = [*range(1000, 1025), *range(100, 160)]
    closed = place(TimeWindows(10 * S), *times)
    assert closed[:2] == [(1000, 10, False), (1010, 10, False)]
    # Five in time, then late ones for as long as a window.
    assert closed[2] == (1020, 15, True)
    assert closed[3:] == [(110 + 10 * i, 10, False) for i in range(4)]


def test_a_source_that_lags_behind_is_no_clock_set_back() -> None:
    times = [t for t_s in range(1000, 1050) for t in (t_s, t_s - 500)]
    assert place(TimeWindows(10 * S), *times) == [
        (1000 + 10 * i, 20, False) for i in range(4)
    ]  # fmt: skip


def test_window_that_a_small_step_back_fills_up_is_cut() -> None:
    """By less than a minute: its late events are more than two windows hold."""
    times = [*range(1000, 1015), *range(970, 1031)]
    closed = place(TimeWindows(10 * S), *times)
    assert closed[0] == (1000, 10, False)
    assert closed[1][2]
    assert closed[2] == (1020, 10, False)


def fill(windows: TimeWindows, n: int, t_s: float) -> list[ClosedWindow]:
    return list(windows.add(block("a", 0, int(t_s * S), np.arange(n))))


def test_full_window_is_cut_and_so_is_the_rest_of_its_span() -> None:
    windows = TimeWindows(10 * S, full=5)
    assert fill(windows, 4, 1000) == []
    assert fill(windows, 3, 1001) == []  # a message is placed whole
    (full,) = fill(windows, 2, 1002)
    (rest,) = fill(windows, 1, 1010)
    (whole,) = fill(windows, 1, 1020)
    found = [(w.index, len(w), w.cut, w.t_start_ns // S) for w in (full, rest, whole)]
    assert found == [(0, 7, True, 1000), (1, 2, True, 1000), (2, 1, False, 1010)]
    assert windows.n_empty == 0


def test_window_that_is_full_when_its_span_ends_is_cut_once() -> None:
    windows = TimeWindows(10 * S, full=5)
    fill(windows, 6, 0)
    (full,) = fill(windows, 1, 30)
    assert (len(full), full.cut, windows.n_empty) == (6, True, 2)
    (last,) = fill(windows, 1, 40)
    assert not last.cut


def test_flood_of_a_clock_set_back_is_cut_again_and_again() -> None:
    windows = TimeWindows(10 * S, full=5)
    fill(windows, 5, 1000)
    sizes = [len(w) for t_s in (100, 105, 110, 111) for w in fill(windows, 5, t_s)]
    assert sizes == [5, 5, 5, 5]
    assert windows.n_open == 5
    (last,) = fill(windows, 1, 120)
    assert last.t_start_ns == 110 * S


@pytest.mark.parametrize("n_before", range(8))
def test_full_windows_are_the_same_after_a_restart(n_before: int) -> None:
    blocks = [block("a", seq, 3 * seq * S, np.arange(2)) for seq in range(8)]
    through, before, after = (TimeWindows(10 * S, full=3) for _ in range(3))
    wanted = [(w.index, len(w), w.cut) for one in blocks for w in through.add(one)]
    found = [(w.index, len(w), w.cut) for one in blocks[:n_before] for w in before.add(one)]
    after.restore(before.state(), lambda part: blocks[part[0]])
    found += [(w.index, len(w), w.cut) for one in blocks[n_before:] for w in after.add(one)]
    assert found == wanted
