"""Lost and repeated messages, noticed by their sequence numbers."""

from collections import OrderedDict

from engines.errors import MessageError
from stream.message import Reason

__all__ = ["SequenceTracker"]


class SequenceTracker:
    """Follows each source's `seq`, so that lost and repeated messages are noticed.

    A source's first message may have any `seq`: a consumer may join late.

    Args:
        max_sources: sources remembered; beyond it the one silent for longest is forgotten.

    >>> tracker = SequenceTracker()
    >>> [tracker.check("detector", seq) for seq in (5, 6, 9)]
    [0, 0, 2]
    """

    def __init__(self, max_sources: int = 10_000) -> None:
        """Start with no source known."""
        self._max_sources = max_sources
        self._expected: OrderedDict[str, int] = OrderedDict()

    def check(self, source: str, seq: int) -> int:
        """Return how many messages of the source went missing just before this one.

        Raises:
            MessageError: if the source has already passed this `seq`.
        """
        expected = self._expected.get(source, seq)
        if seq < expected:
            msg = (
                f"'seq' of source {source!r} must be at least {expected}; got {seq}; "
                "a producer that restarts must use a new source name"
            )
            raise MessageError(Reason.REPEATED, msg)
        self._expected[source] = seq + 1
        self._expected.move_to_end(source)
        if len(self._expected) > self._max_sources:
            self._expected.popitem(last=False)
        return seq - expected
