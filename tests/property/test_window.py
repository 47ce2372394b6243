"""However the stream is cut into messages, windows lose and duplicate nothing."""

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.block import Block
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow, Windows
from tests.support_stream import block

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=25)


@st.composite
def streams(draw: st.DrawFn, *, in_order: bool = False) -> list[Block]:
    """Messages of up to three sources, some lost, whose events are numbered as they arrive."""
    sizes = draw(SIZES)
    times = draw(st.lists(st.integers(0, 60), min_size=len(sizes), max_size=len(sizes)))
    times = sorted(times) if in_order else times
    next_seq = {"a": 0, "b": 5, "c": 100}
    blocks, first = [], 0
    for size, t_ns in zip(sizes, times, strict=True):
        source = draw(st.sampled_from("abc"))
        seq = next_seq[source] + draw(st.integers(0, 2))
        next_seq[source] = seq + 1
        blocks.append(block(source, seq, t_ns, np.arange(first, first + size)))
        first += size
    return blocks


def feed(windows: Windows, blocks: list[Block]) -> list[ClosedWindow]:
    return [window for message in blocks for window in windows.add(message)]


def ids(window: ClosedWindow) -> list[int]:
    np.testing.assert_array_equal(window.particles[:, 0, 0], window.embeddings[:, 0])
    return [int(value) for value in window.embeddings[:, 0]]


def events_of(spans: ClosedWindow, blocks: list[Block]) -> Iterator[int]:
    """Yield the events that a window's spans name, message by message."""
    for span in spans.spans:
        for message in blocks:
            if message.source != span.source:
                continue
            for place, value in enumerate(message.embeddings[:, 0]):
                after = (message.seq, place) >= (span.first_seq, span.first_event)
                if after and (message.seq, place) < (span.last_seq, span.stop_event):
                    yield int(value)


def check_nothing_is_lost(windows: Windows, closed: list[ClosedWindow], n_events: int) -> None:
    seen = list(itertools.chain.from_iterable(map(ids, closed)))
    assert seen == list(range(len(seen)))
    assert len(seen) + windows.n_open == n_events
    assert [window.index for window in closed] == list(range(len(closed)))


@given(blocks=streams(), n=st.integers(1, 30))
def test_count_windows_hold_each_event_once_and_n_of_them(blocks: list[Block], n: int) -> None:
    windows = CountWindows(n)
    closed = feed(windows, blocks)
    check_nothing_is_lost(windows, closed, sum(map(len, blocks)))
    assert all(len(window) == n for window in closed)
    assert windows.n_open < n


@given(blocks=streams(), span_ns=st.integers(1, 40))
def test_time_windows_hold_each_event_once(blocks: list[Block], span_ns: int) -> None:
    windows = TimeWindows(span_ns)
    closed = feed(windows, blocks)
    check_nothing_is_lost(windows, closed, sum(map(len, blocks)))
    assert all(window.t_end_ns - window.t_start_ns == span_ns for window in closed)
    for one, following in itertools.pairwise(closed):
        assert following.t_start_ns >= one.t_end_ns


@given(blocks=streams(), n=st.integers(1, 30), span_ns=st.integers(1, 40))
def test_spans_name_exactly_the_events_of_the_window(
    blocks: list[Block], n: int, span_ns: int
) -> None:
    for windows in (CountWindows(n), TimeWindows(span_ns)):
        for window in feed(windows, blocks):
            assert sorted(events_of(window, blocks)) == ids(window)


@given(sizes=SIZES, other=SIZES, n=st.integers(1, 30))
def test_messages_boundaries_do_not_matter(sizes: list[int], other: list[int], n: int) -> None:
    total = min(sum(sizes), sum(other))

    def cut(lengths: list[int]) -> list[Block]:
        ends = [min(end, total) for end in itertools.accumulate(lengths)]
        pairs = [(a, b) for a, b in itertools.pairwise([0, *ends]) if b > a]
        return [block("a", seq, 0, np.arange(a, b)) for seq, (a, b) in enumerate(pairs)]

    one, two = (feed(CountWindows(n), cut(lengths)) for lengths in (sizes, other))
    assert list(map(ids, one)) == list(map(ids, two))


@given(blocks=streams(in_order=True), span_ns=st.integers(1, 40))
def test_time_windows_place_messages_by_their_time(blocks: list[Block], span_ns: int) -> None:
    windows = TimeWindows(span_ns)
    closed = feed(windows, blocks)
    start = blocks[0].t_ns
    number = {id(b): (b.t_ns - start) // span_ns for b in blocks}
    wanted: dict[int, list[int]] = {}
    for message in blocks:
        wanted.setdefault(number[id(message)], []).extend(map(int, message.embeddings[:, 0]))
    last = max(wanted)
    assert [((w.t_start_ns - start) // span_ns, ids(w)) for w in closed] == [
        (place, events) for place, events in sorted(wanted.items()) if place != last
    ]
    assert windows.n_empty == last + 1 - len(wanted)
