"""Overlapping windows and longer time scales hold exactly the events they should."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.block import Block
from stream.nested import NestedWindows
from stream.sliding import SlidingWindows
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow, Windows
from tests.support_stream import block

PANES = st.integers(2, 5)


@st.composite
def streams(draw: st.DrawFn, *, in_order: bool = False) -> list[Block]:
    """Messages of two sources whose events are numbered as they arrive."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=25))
    times = draw(st.lists(st.integers(0, 80), min_size=len(sizes), max_size=len(sizes)))
    firsts = itertools.accumulate(sizes, initial=0)
    return [
        block(draw(st.sampled_from("ab")), seq, t_ns, np.arange(first, first + size))
        for seq, (first, size, t_ns) in enumerate(
            zip(firsts, sizes, sorted(times) if in_order else times, strict=False)
        )
    ]


def feed(windows: Windows, blocks: list[Block]) -> list[ClosedWindow]:
    return [window for message in blocks for window in windows.add(message)]


def ids(window: ClosedWindow) -> list[int]:
    features = np.concatenate([np.asarray(piece) for piece in window.features()])
    np.testing.assert_array_equal(features, window.embeddings)
    return [int(value) for value in window.embeddings[:, 0]]


@given(blocks=streams(), step=st.integers(1, 12), n_panes=PANES)
def test_count_windows_are_slices_of_the_stream(
    blocks: list[Block], step: int, n_panes: int
) -> None:
    windows = SlidingWindows(CountWindows(step), n_panes)
    closed = feed(windows, blocks)
    n_events = sum(map(len, blocks))
    ends = range(n_panes * step, n_events + 1, step)
    assert [ids(window) for window in closed] == [
        list(range(end - n_panes * step, end)) for end in ends
    ]
    assert [window.index for window in closed] == list(range(len(closed)))
    for one, following in itertools.pairwise(closed):
        shared = set(ids(one)) & set(ids(following))
        assert len(shared) / len(following) == (n_panes - 1) / n_panes == following.overlap
    assert windows.n_unclosed == n_events - (max(ends) if ends else 0)
    held = n_events - max(n_events // step * step - (n_panes - 1) * step, 0)
    assert windows.n_open == held


@given(blocks=streams(in_order=True), step_ns=st.integers(1, 12), n_panes=PANES)
def test_time_windows_are_the_messages_of_their_span(
    blocks: list[Block], step_ns: int, n_panes: int
) -> None:
    windows = SlidingWindows(TimeWindows(step_ns), n_panes, step_ns)
    closed = feed(windows, blocks)
    start_ns = blocks[0].t_ns
    n_slots = (blocks[-1].t_ns - start_ns) // step_ns
    wanted = []
    for first in range(n_slots - n_panes + 1):
        low = start_ns + first * step_ns
        high = low + n_panes * step_ns
        inside = [b.embeddings[:, 0].astype(int) for b in blocks if low <= b.t_ns < high]
        wanted.append((low, high, [int(i) for part in inside for i in part]))
    found = [(window.t_start_ns, window.t_end_ns, ids(window)) for window in closed]
    assert found == [item for item in wanted if item[2]]
    assert windows.n_empty == sum(not item[2] for item in wanted)


@given(blocks=streams(), step_ns=st.integers(1, 40), n_panes=PANES)
def test_nothing_is_lost_when_clocks_jump(blocks: list[Block], step_ns: int, n_panes: int) -> None:
    """Each pane is in as many windows as its place allows, the first ones in fewer."""
    panes = feed(TimeWindows(step_ns), blocks)
    windows = SlidingWindows(TimeWindows(step_ns), n_panes, step_ns)
    closed = feed(windows, blocks)
    for window in closed:
        inside = [p for p in panes if window.t_start_ns <= p.t_start_ns < window.t_end_ns]
        assert ids(window) == [i for pane in inside for i in ids(pane)]
    seen = {i for window in closed for i in ids(window)}
    assert len(seen) + windows.n_unclosed == sum(map(len, blocks))


@given(
    blocks=streams(),
    length=st.integers(1, 9),
    scales=st.lists(st.integers(2, 5), min_size=1, max_size=3, unique=True),
    lost=st.sets(st.integers(0, 40)),
)
def test_nested_sums_are_the_sums_over_their_events(
    blocks: list[Block], length: int, scales: list[int], lost: set[int]
) -> None:
    windows = [w for w in feed(CountWindows(length), blocks) if w.index not in lost]
    nested = NestedWindows(scales)
    merged = [m for w in windows for m in nested.add(w, w.embeddings.sum(axis=0, dtype=np.float64))]
    groups = itertools.groupby(windows, key=lambda w: w.index - windows.index(w))
    runs = [list(run) for _, run in groups]
    for scale in scales:
        wanted = [
            [i for window in run[first : first + scale] for i in ids(window)]
            for run in runs
            for first in range(0, len(run) - scale + 1, scale)
        ]
        found = [m for m in merged if m.scale == scale]
        assert [(m.n_events, float(m.sums[0])) for m in found] == [
            (len(events), float(sum(events))) for events in wanted
        ]
        broken = sum(len(run) % scale > 0 for run in runs[:-1])
        assert nested.n_broken[scale] == broken
        assert [m.index for m in found] == list(range(len(found)))
