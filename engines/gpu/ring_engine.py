"""Engines on a device: a ring of buffers lets batches be copied while others are computed.

While one batch is computed, the next is copied in and the last is copied out. A thread works with
buffers and streams of its own, a lane; lanes are made as threads need them and used again.
"""

import threading
import traceback
from abc import abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Protocol

from engines.artifact import EngineFacts
from engines.engine import EngineBase, check_embeddings
from engines.errors import EngineError
from engines.types import FloatArray

__all__ = ["Lane", "RingEngine", "Slot", "batch_buckets", "bucket_of"]

#: A GPU computes so few events as fast as one.
_SMALLEST_BUCKET = 16


class Slot(Protocol):
    """Buffers for one batch."""

    def submit(self, particles: FloatArray) -> None:
        """Start to copy in, compute and copy out, and wait for none of it.

        Args:
            particles: (n, 19, 3) float32; not changed before `finish`.
        """

    def finish(self, embeddings: FloatArray) -> None:
        """Wait for the batch and write its embeddings, (n, d) float32."""


class Lane(Protocol):
    """What one thread at a time works with."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The ring, used in this order."""

    def close(self) -> None:
        """Wait for what is in flight and release everything, also after a failure."""


class RingEngine(EngineBase):
    """An engine whose batches run through lanes.

    Args:
        dim: number of embedding coordinates d.
        max_batch: largest number of events computed at once.
        fingerprint: SHA-256 of the ONNX graph.
        facts: provenance of the encoder.
        failures: what the device's packages raise.
    """

    def __init__(
        self,
        dim: int,
        max_batch: int,
        fingerprint: str,
        facts: EngineFacts,
        failures: tuple[type[Exception], ...],
    ) -> None:
        """Make no lane yet."""
        super().__init__(dim, max_batch, fingerprint, facts)
        self._failures = failures
        self._idle: list[Lane] = []
        self._in_use, self._closed = 0, False
        self._changed = threading.Condition()

    @abstractmethod
    def _make_lane(self) -> Lane:
        """Return a new lane, ready for every size of batch."""

    @abstractmethod
    def _release(self) -> None:
        """Release what the lanes shared, once they are closed."""

    def prepare(self) -> None:
        """Make the first lane, so that no event waits for it."""
        with self._lane():
            pass

    def embed_into(self, particles: FloatArray, embeddings: FloatArray) -> None:
        """Write the embeddings of checked events; see `Engine.embed_into`.

        Raises:
            EngineError: if the encoder fails, gives non-finite embeddings, or is closed.
        """
        self._compute(particles, embeddings)
        check_embeddings(embeddings)

    def _compute(self, particles: FloatArray, embeddings: FloatArray) -> None:
        with self._lane() as lane:
            in_flight: deque[tuple[Slot, FloatArray]] = deque()
            ring = cycle(lane.slots)
            for first in range(0, len(particles), self._max_batch):
                if len(in_flight) == len(lane.slots):
                    slot, rows = in_flight.popleft()
                    slot.finish(rows)
                slot = next(ring)
                slot.submit(particles[first : first + self._max_batch])
                in_flight.append((slot, embeddings[first : first + self._max_batch]))
            for slot, rows in in_flight:
                slot.finish(rows)

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """Lend a lane to this thread; one that failed is closed, not lent again."""
        with self._changed:
            if self._closed:
                msg = "an engine must be open to embed; it was closed; open it again"
                raise EngineError(msg)
            self._in_use += 1
            lane = self._idle.pop() if self._idle else None
        try:
            lane = lane or self._make_lane()
            yield lane
        except BaseException as exc:
            traceback.clear_frames(exc.__traceback__)  # their variables keep what is to be released
            if lane is not None:
                lane.close()
                lane = None
            if isinstance(exc, self._failures):
                reason = str(exc).strip().partition("\n")[0]
                msg = f"the encoder failed on the GPU ({reason}); restart, or run it on the CPU"
                raise EngineError(msg) from exc
            raise
        finally:
            with self._changed:
                self._in_use -= 1
                if lane is not None:
                    self._idle.append(lane)
                self._changed.notify_all()

    def close(self) -> None:
        """Wait for what other threads compute, then release the lanes and what they shared."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._in_use == 0)
        try:
            while self._idle:
                self._idle.pop().close()
        finally:
            self._release()


def batch_buckets(smallest: int, largest: int) -> list[int]:
    """Return the batch sizes that are computed; others are padded to the next.

    >>> batch_buckets(1, 100)
    [16, 32, 64, 100]
    >>> batch_buckets(1, 8)
    [8]
    """
    first = max(smallest, min(largest, _SMALLEST_BUCKET))
    sizes = [first]
    while sizes[-1] < largest:
        sizes.append(min(2 * sizes[-1], largest))
    return sizes


def bucket_of(n: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds n events.

    >>> bucket_of(17, [16, 32, 64])
    32
    """
    return buckets[bisect_left(buckets, n)]
