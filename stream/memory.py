"""Memory for the events that arrive: micro-batches lie in it side by side, and it is used again."""

import ctypes
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np

from engines.types import FloatArray

__all__ = ["EventMemory"]


class EventMemory:
    """Rows for events, in slabs; a slab serves again once nobody views any of its rows.

    Windows hold the events that they were given, as views. Once they let go, their slabs come
    back, so a stream in equilibrium allocates nothing.

    Args:
        allocate: returns (n, 19, 3) float32, as `Engine.input_buffer` does.
        n_events: rows of a slab.
    """

    def __init__(self, allocate: Callable[[int], FloatArray], n_events: int) -> None:
        """Allocate nothing yet."""
        self._allocate, self._n_events = allocate, n_events
        self._idle: deque[FloatArray] = deque()
        self._slab: FloatArray | None = None
        self._next = 0
        self.n_slabs = 0

    def fits(self, n: int) -> bool:
        """Return whether n rows are left in the slab at hand."""
        return self._slab is not None and self._next + n <= len(self._slab)

    def rows(self, n: int) -> FloatArray:
        """Return the next n rows, (n, 19, 3), of a new slab if they do not fit; `take` keeps them.

        Until then the same rows are returned again.
        """
        if self._slab is None or not self.fits(n):
            self._slab, self._next = self._lease(max(n, self._n_events)), 0
        return self._slab[self._next : self._next + n]

    def take(self, n: int) -> None:
        """Keep the first n of the rows that `rows` returned."""
        self._next += n

    def _lease(self, n: int) -> FloatArray:
        """Return a slab whose memory comes back when its last view is gone."""
        if n > self._n_events:  # a message larger than any slab: memory of its own, once
            return self._allocate(n)
        try:
            memory = self._idle.popleft()
        except IndexError:
            memory = self._allocate(n)
            self.n_slabs += 1
        lease = (ctypes.c_float * memory.size).from_buffer(memory.data)
        weakref.finalize(lease, self._idle.append, memory).atexit = False
        rows: FloatArray = np.frombuffer(memoryview(lease).cast("B"), np.float32)
        return rows.reshape(memory.shape)
