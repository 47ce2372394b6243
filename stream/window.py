"""Cutting the stream into windows: every event lands in exactly one, in the order of arrival.

Windows here are tumbling: disjoint, so that their p-values under the null share the reference and
nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from engines.types import FloatArray
from engines.windows import WindowSpec

__all__ = [
    "Block",
    "ClosedWindow",
    "CountWindows",
    "Span",
    "TimeWindows",
    "Windows",
    "open_windows",
]


@dataclass(frozen=True)
class Block:
    """Embedded events of one message, or a part of it.

    Attributes:
        source, seq: which message.
        t_ns: its production time, unix nanoseconds.
        particles: (n, 19, 3) float32.
        embeddings: (n, d) float32.
        first: index of the first event within the message.
        n_missing: messages of the source that went missing just before this one.
    """

    source: str
    seq: int
    t_ns: int
    particles: FloatArray
    embeddings: FloatArray
    first: int = 0
    n_missing: int = 0

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.embeddings)

    def split(self, n: int) -> tuple["Block", "Block"]:
        """Return the first n events and the rest."""
        head = replace(self, particles=self.particles[:n], embeddings=self.embeddings[:n])
        tail = replace(
            self,
            particles=self.particles[n:],
            embeddings=self.embeddings[n:],
            first=self.first + n,
            n_missing=0,
        )
        return head, tail


@dataclass(frozen=True)
class Span:
    """Which events of a source a window holds.

    From event `first_event` of message `first_seq` up to, not including, event `stop_event` of
    message `last_seq`, less the messages that were lost or refused on the way.
    """

    source: str
    first_seq: int
    first_event: int
    last_seq: int
    stop_event: int


@dataclass(frozen=True)
class ClosedWindow:
    """A complete window.

    Attributes:
        index: 0 for the first window of the run.
        t_start_ns, t_end_ns: first and last production time in it; for a time window its bounds.
        particles: (n_data, 19, 3) float32.
        embeddings: (n_data, d) float32.
        spans: its events by source.
        n_missing: messages known to be missing from it, or just after it.
    """

    index: int
    t_start_ns: int
    t_end_ns: int
    particles: FloatArray
    embeddings: FloatArray
    spans: tuple[Span, ...]
    n_missing: int = 0

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.embeddings)


class Windows(Protocol):
    """Takes blocks as they arrive, gives windows as they close."""

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""

    @property
    def n_empty(self) -> int:
        """Time windows so far in which no event was produced; they are not tested."""

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield each window that it closes. Exhaust the iterator."""


@dataclass
class _Open:
    blocks: list[Block] = field(default_factory=list)
    n_events: int = 0

    def append(self, block: Block) -> None:
        if len(block):
            self.blocks.append(block)
            self.n_events += len(block)

    def close(
        self, index: int, bounds_ns: tuple[int, int] | None = None, n_missing: int = 0
    ) -> ClosedWindow:
        blocks, self.blocks, self.n_events = self.blocks, [], 0
        times = [block.t_ns for block in blocks]
        start, end = bounds_ns or (min(times), max(times))
        return ClosedWindow(
            index=index,
            t_start_ns=start,
            t_end_ns=end,
            particles=np.concatenate([block.particles for block in blocks]),
            embeddings=np.concatenate([block.embeddings for block in blocks]),
            spans=_spans(blocks),
            n_missing=n_missing + sum(block.n_missing for block in blocks),
        )


def _spans(blocks: list[Block]) -> tuple[Span, ...]:
    spans: dict[str, Span] = {}
    for block in blocks:
        first = spans.get(block.source)
        spans[block.source] = Span(
            source=block.source,
            first_seq=first.first_seq if first else block.seq,
            first_event=first.first_event if first else block.first,
            last_seq=block.seq,
            stop_event=block.first + len(block),
        )
    return tuple(spans.values())


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

    Args:
        span_ns: length of a window.
    """

    def __init__(self, span_ns: int) -> None:
        """Start before the first message."""
        self._span_ns = span_ns
        self._start_ns: int | None = None
        self._open = _Open()
        self._index = 0
        self._n_empty = 0

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""
        return self._open.n_events

    @property
    def n_empty(self) -> int:
        """Windows so far in which no event was produced."""
        return self._n_empty

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield the window that it closes, if any. Exhaust the iterator."""
        if self._start_ns is None:
            self._start_ns = block.t_ns
        passed = (block.t_ns - self._start_ns) // self._span_ns
        if passed > 0:
            bounds = (self._start_ns, self._start_ns + self._span_ns)
            self._start_ns += passed * self._span_ns
            if self._open.n_events:
                yield self._open.close(self._index, bounds, block.n_missing)
                passed -= 1
                self._index += 1
            self._n_empty += passed
        self._open.append(block)


def open_windows(spec: WindowSpec) -> Windows:
    """Return the windowing that a spec asks for."""
    if spec.mode == "count":
        return CountWindows(round(spec.n_expected))
    return TimeWindows(round(spec.span_s * 1e9))
