"""What a window is, and what cuts the stream into windows.

`stream.tumbling` cuts disjoint ones, `stream.sliding` makes overlapping ones of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from engines.types import FloatArray
from stream.block import Block, Part, Span, join_spans
from stream.features import Features

__all__ = [
    "CLOCK_JUMP_NS",
    "ClosedWindow",
    "Find",
    "State",
    "Windows",
]

#: Production time that falls back further than that is a clock set back, not messages out of order.
CLOCK_JUMP_NS = 60 * 10**9

#: What JSON can hold, enough to go on with.
State: TypeAlias = dict[str, Any]
#: Returns the block that a name stands for; None if it is lost.
Find: TypeAlias = Callable[[Part], Block | None]


@dataclass(frozen=True)
class ClosedWindow:
    """A complete window, in the pieces in which its events came.

    Overlapping windows share their pieces; whole arrays are made when they are asked for.

    Attributes:
        index: 0 for the first window of the run.
        t_start_ns, t_end_ns: first and last production time in it; for a time window its bounds.
        blocks: its events.
        n_missing_after: messages that went missing between it and the message that closed it.
        overlap: share of it that the window before has too, by design: 1 - step / window.
        cut: whether a clock that was set back cut it short or filled it up, or it held too much.
    """

    scale: ClassVar[int] = 1
    index: int
    t_start_ns: int
    t_end_ns: int
    blocks: tuple[Block, ...]
    n_missing_after: int = 0
    overlap: float = 0.0
    cut: bool = False

    def __len__(self) -> int:
        """Return the number of events."""
        return sum(map(len, self.blocks))

    @property
    def particles(self) -> FloatArray:
        """All events, (n_data, 19, 3) float32; (0, 19, 3) where only embeddings came."""
        return np.concatenate([block.particles for block in self.blocks])

    @property
    def embeddings(self) -> FloatArray:
        """Embeddings of all events, (n_data, d) float32."""
        return np.concatenate([block.embeddings for block in self.blocks])

    @property
    def spans(self) -> tuple[Span, ...]:
        """Its events by source."""
        return join_spans(
            Span(block.source, block.seq, block.first, block.seq, block.first + len(block))
            for block in self.blocks
        )

    @property
    def n_missing(self) -> int:
        """Messages known to be missing from it, or just after it."""
        return self.n_missing_after + sum(block.n_missing for block in self.blocks)

    def features(self) -> list[Features]:
        """Wait for the features of all events; return them in pieces.

        Raises:
            Exception: what computing them raised.
        """
        return [block.features.result() for block in self.blocks]


class Windows(Protocol):
    """Takes blocks as they arrive, gives windows as they close."""

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""

    @property
    def n_empty(self) -> int:
        """Time windows so far in which no event was produced; they are not tested."""

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""

    @property
    def n_closed(self) -> int:
        """Windows closed so far, which is the index of the next."""

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield each window that it closes. Exhaust the iterator.

        One that was accepted in another life is taken whether there is room or not.
        """

    def state(self) -> State:
        """Return everything that the windows to come depend on, blocks by their names."""

    def restore(self, state: State, find: Find) -> None:
        """Go on from a state, as if what came before it had been added."""
