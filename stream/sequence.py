"""Lost and repeated messages, noticed by their sequence numbers; and how many sources there are."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from engines.errors import MessageError
from stream.header import Reason

__all__ = ["DEFAULT_MAX_SOURCES", "SequenceTracker"]

DEFAULT_MAX_SOURCES = 500
_MAX_LEAP = 1_000_000
_MAX_REMEMBERED = 10_000
_SILENT_S = 3600.0


class SequenceTracker:
    """Follows each source's `seq`, so that lost and repeated messages are noticed.

    A source's first message may have any `seq`: a consumer may join late. A leap of more than a
    million is refused, as one damaged header must not blind the consumer to all that follows; it is
    believed when the next message continues it.

    A source is at work until it ends or is silent for an hour; it is remembered after that, the
    last 10,000 of them, so that its messages are still known when they are repeated.

    Args:
        max_sources: sources at work; a further one is refused until one makes room.
        clock: seconds.

    Attributes:
        on_forget: called with the name of a source that is remembered no more.

    >>> tracker = SequenceTracker()
    >>> [tracker.check("detector", seq) for seq in (5, 6, 9)]
    [0, 0, 2]
    """

    def __init__(
        self,
        max_sources: int = DEFAULT_MAX_SOURCES,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with no source known."""
        self._max_sources, self._clock = max_sources, clock
        self._expected: OrderedDict[str, int] = OrderedDict()
        self._heard_s: dict[str, float] = {}
        self._past: OrderedDict[str, int] = OrderedDict()
        self._leapt: dict[str, int] = {}
        self.on_forget: Callable[[str], None] = lambda _: None

    def check(self, source: str, seq: int) -> int:
        """Return how many messages of the source went missing just before this one.

        Raises:
            MessageError: if the source has already passed this `seq`, leaps ahead, or is one too
                many.
        """
        now = self._clock()
        expected = self._expected.get(source, -1)
        is_new = expected < 0
        if is_new:
            expected = self._past.get(source, seq)
        if seq < expected:
            msg = (
                f"'seq' of source {source!r} must be at least {expected}; got {seq}; "
                "a producer that restarts must use a new source name"
            )
            raise MessageError(Reason.REPEATED, msg)
        if is_new:
            self._make_room(source, now)
        if seq - expected > _MAX_LEAP and self._leapt.pop(source, None) != seq:
            self._leapt = {source: seq + 1}
            msg = f"'seq' of source {source!r} leaps from {expected} to {seq}; count by one"
            raise MessageError(Reason.LEAP, msg)
        self._past.pop(source, None)
        self._expected[source], self._heard_s[source] = seq + 1, now
        self._expected.move_to_end(source)
        return seq - expected

    def end(self, source: str) -> None:
        """Let a source that is done make room for others."""
        if source in self._expected:
            del self._heard_s[source]
            self._past[source] = self._expected.pop(source)
            self._past.move_to_end(source)
            self._forget_oldest()

    def state(self) -> dict[str, int]:
        """Return the `seq` that each source is to send next, JSON-able; silent longest first."""
        return {**self._past, **self._expected}

    def restore(self, sources: Mapping[str, int]) -> None:
        """Know what a tracker knew when it gave its `state`, and nothing else.

        Sources are at work again when they send again: those that are gone take no room.
        """
        self._expected, self._heard_s, self._leapt = OrderedDict(), {}, {}
        self._past = OrderedDict(sources)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._past) > _MAX_REMEMBERED:
            self.on_forget(self._past.popitem(last=False)[0])

    def _make_room(self, source: str, now: float) -> None:
        """Refuse a source beyond the limit, unless the one silent for longest has long been so."""
        if len(self._expected) < self._max_sources:
            return
        oldest = next(iter(self._expected))
        if now - self._heard_s[oldest] > _SILENT_S:
            self.end(oldest)
            return
        msg = (
            f"at most {self._max_sources} sources may be at work; source {source!r} is one more; "
            "give --max-sources, or end sources that are done"
        )
        raise MessageError(Reason.TOO_MANY_SOURCES, msg)
