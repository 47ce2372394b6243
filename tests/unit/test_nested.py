"""Longer time scales: what completes them and what breaks them."""

import numpy as np
import pytest

from engines.errors import ParameterError
from engines.types import Float64Array
from stream.block import Span
from stream.nested import MergedWindow, NestedWindows
from stream.window import ClosedWindow
from tests.support_stream import block

S = 10**9


def window(index: int, start_s: int | None = None, length_s: int = 10) -> ClosedWindow:
    """Return a window of two events, one message, `index` its sequence number."""
    start_ns = (index * length_s if start_s is None else start_s) * S
    piece = block("a", index, start_ns + S, np.array([index, index]))
    return ClosedWindow(index, start_ns, start_ns + length_s * S, (piece,))


def sums(closed: ClosedWindow) -> Float64Array:
    return np.asarray(closed.embeddings.sum(axis=0), dtype=np.float64)


def feed(nested: NestedWindows, windows: list[ClosedWindow]) -> list[MergedWindow]:
    return [merged for w in windows if nested.wants(w) for merged in nested.add(w, sums(w))]


def test_merged_window_says_what_it_holds() -> None:
    nested = NestedWindows([2, 4])
    merged = feed(nested, [window(index) for index in range(5)])
    assert [(m.scale, m.index) for m in merged] == [(2, 0), (2, 1), (4, 0)]
    whole = merged[-1]
    assert (whole.n_events, whole.sums.tolist(), whole.n_missing) == (8, [12.0], 0)
    assert (whole.t_start_ns, whole.t_end_ns) == (0, 40 * S)
    assert whole.spans == (Span("a", 0, 0, 3, 2),)
    assert nested.n_broken == {2: 0, 4: 0}


def test_skipped_window_breaks_the_run_and_is_counted() -> None:
    nested = NestedWindows([2, 3])
    merged = feed(nested, [window(index) for index in (0, 1, 3, 4, 5, 7, 8)])
    assert [(m.scale, m.index, m.sums.tolist()) for m in merged] == [
        (2, 0, [2.0]), (2, 1, [14.0]), (3, 0, [24.0]), (2, 2, [30.0]),
    ]  # fmt: skip
    assert nested.n_broken == {2: 1, 3: 1}


def test_gap_in_time_breaks_the_run() -> None:
    windows = [window(0, 0), window(1, 10), window(2, 30), window(3, 40)]
    by_time, by_count = NestedWindows([3], by_time=True), NestedWindows([3])
    assert feed(by_time, windows) == []
    assert by_time.n_broken == {3: 1}
    assert [m.sums.tolist() for m in feed(by_count, windows)] == [[6.0]]


@pytest.mark.parametrize("by_time", [False, True])
def test_of_overlapping_windows_only_disjoint_ones_enter(by_time: bool) -> None:
    sliding = [window(index, start_s=index, length_s=4) for index in range(12)]
    nested = NestedWindows([2], n_panes=4, by_time=by_time)
    (merged,) = feed(nested, sliding)
    assert merged.sums.tolist() == [2 * (0 + 4)]
    assert nested.n_broken == {2: 0}


def test_overlapping_windows_after_a_gap_start_at_once() -> None:
    sliding = [window(index, start_s=index, length_s=4) for index in (0, 1, 2, 3, 5, 6, 9, 10)]
    nested = NestedWindows([2], n_panes=4, by_time=True)
    (merged,) = feed(nested, sliding)
    assert merged.sums.tolist() == [2 * (5 + 9)]
    assert nested.n_broken == {2: 1}


def test_sums_given_are_not_changed() -> None:
    nested = NestedWindows([2])
    given = np.ones(3)
    for index in range(4):
        nested.add(window(index), given)
    assert given.tolist() == [1, 1, 1]


def test_scale_below_two_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"two or more windows each; got \(10, 1\)"):
        NestedWindows([10, 1])


@pytest.mark.parametrize("length_s", [4, 8])
def test_clock_that_is_set_back_begins_anew(length_s: int) -> None:
    """Windows follow each other each 4 s, overlapping or not; the clock goes an hour back."""
    starts = [*range(7200, 7260, 4), *range(3600, 3660, 4)]
    windows = [window(index, start, length_s) for index, start in enumerate(starts)]
    nested = NestedWindows([2], n_panes=length_s // 4, by_time=True)
    after = [m.t_start_ns for m in feed(nested, windows) if m.t_end_ns < 7000 * S]
    assert after
    assert after[0] == 3600 * S
