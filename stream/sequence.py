"""Lost and repeated messages, noticed by their sequence numbers."""

from collections import OrderedDict

from engines.errors import MessageError
from stream.message import Reason

__all__ = ["SequenceTracker"]

_MAX_LEAP = 1_000_000


class SequenceTracker:
    """Follows each source's `seq`, so that lost and repeated messages are noticed.

    A source's first message may have any `seq`: a consumer may join late. A leap of more than a
    million is refused, as one damaged header must not blind the consumer to all that follows; it is
    believed when the next message continues it.

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
        self._leapt: dict[str, int] = {}

    def check(self, source: str, seq: int) -> int:
        """Return how many messages of the source went missing just before this one.

        Raises:
            MessageError: if the source has already passed this `seq`, or leaps ahead.
        """
        expected = self._expected.get(source, seq)
        if seq < expected:
            msg = (
                f"'seq' of source {source!r} must be at least {expected}; got {seq}; "
                "a producer that restarts must use a new source name"
            )
            raise MessageError(Reason.REPEATED, msg)
        if seq - expected > _MAX_LEAP and self._leapt.pop(source, None) != seq:
            self._leapt = {source: seq + 1}
            msg = f"'seq' of source {source!r} leaps from {expected} to {seq}; count by one"
            raise MessageError(Reason.LEAP, msg)
        self._expected[source] = seq + 1
        self._expected.move_to_end(source)
        if len(self._expected) > self._max_sources:
            self._expected.popitem(last=False)
        return seq - expected
