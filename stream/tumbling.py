"""Disjoint windows: every event lands in exactly one, in the order of arrival.

Their p-values under the null share the reference and nothing else.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from stream.block import Block, Part
from stream.window import CLOCK_JUMP_NS, ClosedWindow, Find, State

__all__ = ["CountWindows", "NoWindows", "TimeWindows"]


@dataclass
class _Open:
    blocks: list[Block] = field(default_factory=list)
    n_events: int = 0

    def names(self) -> list[Part]:
        return [block.name() for block in self.blocks]

    def restore(self, names: list[Part], find: Find) -> None:
        self.blocks = [block for name in names if (block := find(name)) is not None]
        self.n_events = sum(map(len, self.blocks))

    def append(self, block: Block) -> None:
        if len(block):
            self.blocks.append(block)
            self.n_events += len(block)

    def close(
        self,
        index: int,
        bounds_ns: tuple[int, int] | None = None,
        n_missing_after: int = 0,
        *,
        cut: bool = False,
    ) -> ClosedWindow:
        blocks, self.blocks, self.n_events = tuple(self.blocks), [], 0
        times = [block.t_ns for block in blocks]
        start, end = bounds_ns or (min(times), max(times))
        return ClosedWindow(index, start, end, blocks, n_missing_after, cut=cut)


class CountWindows:
    """Windows of a fixed number of events.

    Args:
        n_events: events in each.
    """

    n_empty = 0

    def __init__(self, n_events: int) -> None:
        """Start with an empty window."""
        self._n_events = n_events
        self._open = _Open()
        self._index = 0

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""
        return self._open.n_events

    n_unclosed = n_open

    @property
    def n_closed(self) -> int:
        """Windows closed so far, which is the index of the next."""
        return self._index

    def state(self) -> State:
        """Return everything that the windows to come depend on."""
        return {"index": self._index, "open": self._open.names()}

    def restore(self, state: State, find: Find) -> None:
        """Go on from a state."""
        self._index = state["index"]
        self._open.restore(state["open"], find)

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield each window that it closes. Exhaust the iterator."""
        while self._open.n_events + len(block) >= self._n_events:
            head, block = block.split(self._n_events - self._open.n_events)
            self._open.append(head)
            yield self._open.close(self._index)
            self._index += 1
        self._open.append(block)


class TimeWindows:
    """Windows of a fixed span of production time, aligned with the first message.

    A message is placed whole, by its `t_ns`; one that arrives after its window has closed goes
    into the open window. A window closes when a later message arrives, so time without messages
    delays it; a window in which nothing was produced is counted and not tested. Messages missing
    between two windows are charged to both: nobody knows where they belonged.

    Messages from more than a minute before the open window, for as long as a window and none from
    later among them, mean that the clock was set back: the window is cut short, and the next is
    aligned with the message that says so.

    A window that holds `full` events is cut, and what remains of its span is a window that is cut
    too: every event is in one, and no flood fills the memory.

    Args:
        span_ns: length of a window.
        full: events.
    """

    def __init__(self, span_ns: int, full: float = math.inf) -> None:
        """Start before the first message."""
        self._span_ns, self._full = span_ns, full
        self._start_ns: int | None = None
        self._open = _Open()
        self._index = 0
        self._n_empty = 0
        self._late_since_ns: int | None = None
        self._late_ns: list[int] = []
        self._is_rest = False

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""
        return self._open.n_events

    n_unclosed = n_open

    @property
    def n_empty(self) -> int:
        """Windows so far in which no event was produced."""
        return self._n_empty

    @property
    def n_closed(self) -> int:
        """Windows closed so far, which is the index of the next."""
        return self._index

    def state(self) -> State:
        """Return everything that the windows to come depend on."""
        return {
            "index": self._index,
            "open": self._open.names(),
            "start_ns": self._start_ns,
            "n_empty": self._n_empty,
            "late_since_ns": self._late_since_ns,
            "late_ns": self._late_ns,
            "is_rest": self._is_rest,
        }

    def restore(self, state: State, find: Find) -> None:
        """Go on from a state."""
        self._index, self._n_empty = state["index"], state["n_empty"]
        self._start_ns, self._late_since_ns = state["start_ns"], state["late_since_ns"]
        self._late_ns, self._is_rest = list(state["late_ns"]), state["is_rest"]
        self._open.restore(state["open"], find)

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield the window that it closes, if any. Exhaust the iterator."""
        if self._start_ns is None:
            self._start_ns = block.t_ns
        if self._is_set_back(block.t_ns):
            if self._open.n_events:
                yield self._close(block.n_missing, cut=True)
            self._start_ns, self._late_since_ns, self._is_rest = block.t_ns, None, False
        if self._open.n_events >= self._full and len(block):
            yield self._close(block.n_missing, cut=True)
            self._is_rest = True
        passed = (block.t_ns - self._start_ns) // self._span_ns
        if passed > 0:
            n_empty = passed if not (self._open.n_events or self._is_rest) else passed - 1
            if self._open.n_events:
                yield self._close(block.n_missing, cut=self._is_rest)
            self._start_ns += passed * self._span_ns
            self._n_empty += n_empty
            self._is_rest = False
        if block.t_ns < self._start_ns:
            self._late_ns = [min([block.t_ns, *self._late_ns]), max([block.t_ns, *self._late_ns])]
        self._open.append(block)

    def _close(self, n_missing: int, *, cut: bool) -> ClosedWindow:
        """Close the open window; one that has late events of two windows is cut too."""
        first, last = self._late_ns or (0, 0)
        cut = cut or last - first >= 2 * self._span_ns
        start_ns = self._start_ns or 0
        bounds_ns = (start_ns, start_ns + self._span_ns)
        window = self._open.close(self._index, bounds_ns, n_missing, cut=cut)
        self._index += 1
        self._late_ns = []
        return window

    def _is_set_back(self, t_ns: int) -> bool:
        """Return whether messages have been late for as long as a window, none of them in time."""
        if self._start_ns is None or t_ns >= self._start_ns - CLOCK_JUMP_NS:
            self._late_since_ns = None
            return False
        since = self._late_since_ns
        self._late_since_ns = t_ns if since is None else min(since, t_ns)
        return t_ns - self._late_since_ns >= self._span_ns


class NoWindows:
    """Forgets every event."""

    n_open = n_empty = n_unclosed = n_closed = 0

    def state(self) -> State:
        """Return nothing."""
        return {}

    def restore(self, state: State, find: Find) -> None:
        """Forget that too."""

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; no window ever closes."""
        del block
        return iter(())
