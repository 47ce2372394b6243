"""Messages on their way into one micro-batch."""

from engines.types import FloatArray
from stream.memory import EventMemory
from stream.stages import Arrival

__all__ = ["MicroBatch"]


class MicroBatch:
    """Accepted messages that will be embedded together, their events side by side in memory.

    Args:
        memory: where the events are written.
        max_events: beyond it a message begins the next batch, unless this one is empty.

    Attributes:
        messages: those added so far, messages without events among them.
    """

    def __init__(self, memory: EventMemory, max_events: int) -> None:
        """Start empty."""
        self._memory, self._max_events = memory, max_events
        self._rows = memory.rows(max_events)
        self._n = 0
        self.messages: list[Arrival] = []

    def __len__(self) -> int:
        """Return the number of events."""
        return self._n

    @property
    def is_full(self) -> bool:
        """Whether no message with events can join any more."""
        return self._n >= self._max_events

    def fits(self, n: int) -> bool:
        """Return whether a message of n events may still join."""
        return not self._n or self._n + n <= self._max_events

    def rows(self, n: int) -> FloatArray:
        """Return where the n events of a message that fits are to be written, (n, 19, 3)."""
        if not self._n:
            self._rows = self._memory.rows(max(n, self._max_events))
        return self._rows[self._n : self._n + n]

    def add(self, message: Arrival) -> None:
        """Add a message whose events have been written to its rows."""
        self.messages.append(message)
        self._n += message.header.n

    def take(self) -> tuple[FloatArray, list[Arrival]]:
        """Return the events of all messages, (n, 19, 3), and the messages; start empty again."""
        particles, messages = self._rows[: self._n], self.messages
        self._memory.take(self._n)
        self._n, self.messages = 0, []
        return particles, messages
