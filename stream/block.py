"""Embedded events on their way into a window, and how a window names what it holds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from engines.types import FloatArray
from stream.features import PendingFeatures

__all__ = ["Block", "Part", "Span", "join_spans"]

#: Names a block that can be made again: the number its message is stored under, its first event,
#: how many, and how many messages went missing just before it.
Part: TypeAlias = tuple[int, int, int, int]


@dataclass(slots=True, eq=False)
class Block:
    """Embedded events of one message, or a part of it; not to be changed.

    Attributes:
        source, seq: which message.
        t_ns: its production time, unix nanoseconds.
        particles: (n, 19, 3) float32; (0, 19, 3) where only embeddings came.
        embeddings: (n, d) float32.
        features: of the n events; they may still be being computed.
        first: index of the first event within the message.
        n_missing: messages of the source that went missing just before this one.
        number: that its message is stored under, -1 if it is not.
    """

    source: str
    seq: int
    t_ns: int
    particles: FloatArray
    embeddings: FloatArray
    features: PendingFeatures
    first: int = 0
    n_missing: int = 0
    number: int = -1

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.embeddings)

    def split(self, n: int) -> tuple["Block", "Block"]:
        """Return the first n events and the rest."""
        head = replace(
            self,
            particles=self.particles[:n],
            embeddings=self.embeddings[:n],
            features=self.features[:n],
        )
        tail = replace(
            self,
            particles=self.particles[n:],
            embeddings=self.embeddings[n:],
            features=self.features[n:],
            first=self.first + n,
            n_missing=0,
        )
        return head, tail

    def name(self) -> Part:
        """Return what names it for good."""
        return self.number, self.first, len(self), self.n_missing

    def part(self, name: Part) -> "Block":
        """Return the part of a whole message that a name stands for."""
        _, first, n, n_missing = name
        part = self.split(first)[1].split(n)[0]
        return replace(part, n_missing=n_missing)


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


def join_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return one span a source, from its first event to its last, given them in order."""
    joined: dict[str, Span] = {}
    for span in spans:
        first = joined.get(span.source, span)
        joined[span.source] = replace(first, last_seq=span.last_seq, stop_event=span.stop_event)
    return tuple(joined.values())
