"""Which messages count: what an intake asks about each, whichever way they come."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engines.errors import MessageError
from stream.header import Frame, Header

__all__ = ["Admission", "Admitted", "Receiver"]


class Admitted(NamedTuple):
    """What is known of a message that counts.

    Attributes:
        n_missing: messages of its source that went missing just before it.
        number: that it is stored under, -1 if it is not.
    """

    n_missing: int
    number: int = -1


class Receiver(Protocol):
    """Where messages come from."""

    def receive(self, wait_ms: int) -> list[Frame] | None:
        """Return the frames of the next message; None if none comes in time."""


class Admission(Protocol):
    """Follows the sources' sequences.

    Each message that can be read is first asked about with `admits`; one whose payload is right too
    is then taken with `accept`, any other with `refuse`.

    Attributes:
        max_age_s: a message produced longer ago is refused.
        lasts: whether a message that is refused is gone for good, as its producer forgets it.
    """

    max_age_s: float
    lasts: bool

    def admits(self, header: Header) -> bool:
        """Return whether a message may count; False for one that was taken before."""

    def accept(self, header: Header, frames: Sequence[Frame]) -> Admitted:
        """Take a message.

        Raises:
            MessageError: if its place in the sequence is wrong.
            ArtifactError: if it must be stored and cannot be.
        """

    def refuse(self, header: Header | None, exc: MessageError) -> None:
        """Learn that a message broke a rule; `header` is None if it could not be read."""
