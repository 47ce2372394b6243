"""Features of events, computed beside the stream as the events arrive.

Closing a window then costs only the fit, and embedding waits for neither. What nobody holds any
more is not computed: when a window is skipped and its events are let go, so is the work that still
waits for them. So the work that waits is bounded by the events of the open window and of the
windows that wait for their test.
"""

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Protocol

from engines.types import FloatArray
from stream.priority import step_back

__all__ = ["Features", "Featuriser", "PendingFeatures"]


class Features(Protocol):
    """One row an event; what a row holds is the reference's business."""

    def __len__(self) -> int:
        """Return the number of events."""

    def __getitem__(self, rows: slice, /) -> "Features":
        """Return some of the events, without copying them."""


class _Batch(Future[Features]):
    """The features of embeddings that were submitted together."""

    def __init__(self, embeddings: FloatArray) -> None:
        super().__init__()
        self.embeddings = embeddings


class PendingFeatures:
    """Rows of features that are being computed; slicing is free.

    Holding it keeps the work for it in the queue; letting the last part of a batch go drops it.
    """

    def __init__(self, batch: Future[Features], start: int, stop: int) -> None:
        """Refer to rows from `start` up to `stop` of a batch."""
        self._batch, self._start, self._stop = batch, start, stop

    @classmethod
    def of(cls, features: Features) -> "PendingFeatures":
        """Return features that are already there."""
        batch: Future[Features] = Future()
        batch.set_result(features)
        return cls(batch, 0, len(features))

    def __len__(self) -> int:
        """Return the number of events."""
        return self._stop - self._start

    def __getitem__(self, rows: slice) -> "PendingFeatures":
        """Return some of the events; whether their features are there or not."""
        first, stop, step = rows.indices(len(self))
        if step != 1:
            msg = f"rows must be consecutive; got a step of {step}; slice without one"
            raise ValueError(msg)
        return PendingFeatures(self._batch, self._start + first, self._start + max(first, stop))

    def result(self) -> Features:
        """Wait for the features.

        Raises:
            Exception: what computing them raised.
            CancelledError: if the featuriser was closed before it came to them.
        """
        return self._batch.result()[self._start : self._stop]


class Featuriser:
    """Computes features on one thread of its own, in the order of submission.

    Args:
        compute: (n, d) float32 embeddings to n features; called on that thread.
        observe: called there with the seconds that each batch took.
        clock: seconds.
    """

    def __init__(
        self,
        compute: Callable[[FloatArray], Features],
        observe: Callable[[float], object] = lambda _: None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the thread."""
        self._compute, self._observe, self._clock = compute, observe, clock
        self._queue: SimpleQueue[weakref.ref[_Batch] | None] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="nplm-features", daemon=True)
        self._thread.start()

    def submit(self, embeddings: FloatArray) -> PendingFeatures:
        """Queue (n, d) embeddings; never blocks."""
        batch = _Batch(embeddings)
        self._queue.put(weakref.ref(batch))
        return PendingFeatures(batch, 0, len(embeddings))

    @property
    def n_waiting(self) -> int:
        """Batches that wait, those that nobody holds any more among them."""
        return self._queue.qsize()

    @property
    def is_alive(self) -> bool:
        """Whether features are computed; once closed it may be done."""
        return self._closing or self._thread.is_alive()

    def close(self) -> None:
        """Finish the batch at hand, cancel those that wait, end the thread."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        step_back()
        while (waiting := self._queue.get()) is not None:
            self._finish(waiting())

    def _finish(self, batch: _Batch | None) -> None:
        if batch is None:
            return
        if self._closing:
            batch.cancel()
            return
        started = self._clock()
        try:
            features = self._compute(batch.embeddings)
        except Exception as exc:  # noqa: BLE001 - whoever tests these events learns of it
            batch.set_exception(exc)
        else:
            batch.set_result(features)
            self._observe(self._clock() - started)
