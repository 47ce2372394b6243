"""Event files as a stream: batches of background with signal mixed in, and when each is due.

Nothing here knows of sockets, and generators and clocks are passed in, so a run replays exactly.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray

__all__ = ["DEFAULT_FRACTION", "Batch", "EventFeed", "Injection", "Pacer", "replay"]

_LOGGER = logging.getLogger(__name__)
#: Of signal, where a signal is injected.
DEFAULT_FRACTION = 0.01


@dataclass(frozen=True, eq=False)
class Batch:
    """Events of one message: (n, 19, 3) float32, and which of the n are signal, in order."""

    particles: FloatArray
    signal: tuple[int, ...] = ()


class EventFeed:
    """Hands out events in order, any number at a time, holding one block in memory.

    Args:
        blocks: starts a pass over the events, giving blocks of (n, 19, 3) float32.
        loop: start another pass when one ends.
    """

    def __init__(self, blocks: Callable[[], Iterable[FloatArray]], *, loop: bool = False) -> None:
        """Stand before the first event; the first block is read now, so that its errors show."""
        self._blocks, self._loop = blocks, loop
        self._pass = iter(blocks())
        self._block = np.empty((0, N_OBJECTS, N_FEATURES), dtype=np.float32)
        self._pass_has_events = False
        self._refill()

    def take(self, n: int) -> FloatArray:
        """Return the next n events, (n, 19, 3) float32; fewer only where the events end."""
        parts = [self._block[:n]]
        self._block = self._block[n:]
        missing = n - len(parts[0])
        while missing > 0 and self._refill():
            parts.append(self._block[:missing])
            self._block = self._block[missing:]
            missing -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _refill(self) -> bool:
        while len(self._block) == 0:
            block = next(self._pass, None)
            if block is not None:
                self._block = block
            elif self._loop and self._pass_has_events:
                self._pass, self._pass_has_events = iter(self._blocks()), False
            else:
                return False
        self._pass_has_events = True
        return True


class Injection:
    """Decides which events of the stream are signal, and supplies them.

    Args:
        feed: the signal events.
        fraction: probability that an event is signal, 0 <= fraction < 1.
        after: events of the stream, from its start, that are background for certain.
        rng: where chance comes from; one number is drawn per event, so that which events are
            signal does not depend on the batch.
    """

    def __init__(
        self, feed: EventFeed, fraction: float, after: int, rng: np.random.Generator
    ) -> None:
        """Keep what chooses and what is chosen."""
        self._feed, self._fraction, self._after, self._rng = feed, fraction, after, rng
        self._used, self._exhausted = 0, False

    def draw(self, position: int, n: int) -> tuple[AnyArray, FloatArray]:
        """Return which of n events from `position` on are signal, (k,) int, and the k events."""
        first = min(n, max(0, self._after - position))
        chosen = first + np.flatnonzero(self._rng.random(n - first) < self._fraction)
        signal = self._feed.take(len(chosen))
        self._used += len(signal)
        if len(signal) < len(chosen) and not self._exhausted:
            self._exhausted = True
            _LOGGER.warning(
                "the signal file ran out after %d events, at event %d of the stream, which goes on "
                "with background only; --loop repeats it",
                self._used,
                position + int(chosen[len(signal)]),
            )
        return chosen[: len(signal)], signal


def replay(
    background: EventFeed,
    size: int,
    *,
    injection: Injection | None = None,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Yield the stream's batches; it ends where an event should be background and none is left.

    Args:
        background: the background events; all of them pass, in order.
        size: events a batch; the last may be smaller.
        injection: signal events to insert among them.
        limit: events after which the stream ends, signal included.
    """
    position = 0
    while limit is None or position < limit:
        n = size if limit is None else min(size, limit - position)
        batch = _mix(background, n, injection, position)
        if len(batch.particles) > 0:
            yield batch
        if len(batch.particles) < n:
            return
        position += n


def _mix(background: EventFeed, n: int, injection: Injection | None, position: int) -> Batch:
    if injection is None:
        return Batch(background.take(n))
    slots, signal = injection.draw(position, n)
    is_signal = np.zeros(n, dtype=bool)
    is_signal[slots] = True
    others = background.take(n - len(slots))
    if len(others) < n - len(slots):
        is_signal = is_signal[: np.flatnonzero(~is_signal)[len(others)]]
    particles = np.empty((len(is_signal), N_OBJECTS, N_FEATURES), dtype=np.float32)
    particles[is_signal] = signal[: int(is_signal.sum())]
    particles[~is_signal] = others
    return Batch(particles, tuple(np.flatnonzero(is_signal).tolist()))


class Pacer:
    """Says when events are due, by the clock alone: whoever is late catches up.

    Args:
        rate: events a second; 0 means that everything is due at once.
        clock: monotonic seconds; the pacer starts when it is made.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        """Start the stream's time."""
        self._rate, self._clock, self._start = rate, clock, clock()

    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._start

    def left_s(self, n_events: int) -> float:
        """Return the seconds until the event after the first n is due; 0 or less if it is late."""
        return n_events / self._rate - self.elapsed_s() if self._rate > 0 else 0.0
