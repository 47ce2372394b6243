"""Features computed beside the stream."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest

from engines.types import FloatArray
from stream.features import Featuriser, PendingFeatures

WAIT_S = 20.0


class Worker:
    """Doubles embeddings, one batch each time it is let; keeps what it was given."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.computed: list[int] = []

    def compute(self, embeddings: FloatArray) -> FloatArray:
        self.begun.release()
        if not self.go.acquire(timeout=WAIT_S):
            msg = "nobody let the features go on"
            raise TimeoutError(msg)
        if embeddings[0, 0] < 0:
            msg = "these embeddings have no features"
            raise ValueError(msg)
        self.computed.append(int(embeddings[0, 0]))
        return 2 * embeddings


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def featuriser(worker: Worker) -> Iterator[Featuriser]:
    made = Featuriser(worker.compute)
    yield made
    worker.go.release(1000)
    made.close()


def batch(first: int, n: int = 3) -> FloatArray:
    return np.arange(first, first + n, dtype=np.float32)[:, None]


def values(features: PendingFeatures) -> list[float]:
    return [float(value) for value in np.asarray(features.result()).ravel()]


def test_slices_of_slices_are_the_right_rows(worker: Worker, featuriser: Featuriser) -> None:
    features = featuriser.submit(batch(0, 10))
    part = features[2:9]
    deeper = part[1:][:3]
    assert (len(features), len(part), len(deeper), len(part[7:])) == (10, 7, 3, 0)
    worker.go.release()
    assert values(deeper) == [6, 8, 10]
    assert values(part) == [4, 6, 8, 10, 12, 14, 16]
    assert worker.computed == [0]


@pytest.mark.parametrize("rows", [slice(None, None, 2), slice(None, None, -1)])
def test_rows_are_consecutive(rows: slice) -> None:
    with pytest.raises(ValueError, match="rows must be consecutive"):
        PendingFeatures.of(batch(0))[rows]


def test_rows_beyond_the_end_are_none() -> None:
    features = PendingFeatures.of(batch(0))
    assert [len(features[s]) for s in (slice(5, 9), slice(2, 1), slice(-2, None))] == [0, 0, 2]
    assert values(features[-2:]) == [1, 2]


def test_batches_are_computed_in_order_and_timed(worker: Worker) -> None:
    ticks, observed = iter((0.0, 0.5, 1.0, 3.0)), list[float]()
    featuriser = Featuriser(worker.compute, observed.append, clock=lambda: next(ticks))
    waiting = [featuriser.submit(batch(first)) for first in (4, 7)]
    worker.go.release(2)
    assert values(waiting[1]) == [14, 16, 18]
    featuriser.close()
    assert worker.computed == [4, 7]
    assert observed == [0.5, 2.0]


def test_what_nobody_holds_is_not_computed(worker: Worker, featuriser: Featuriser) -> None:
    first = featuriser.submit(batch(0))
    assert worker.begun.acquire(timeout=WAIT_S)  # at work on the first, however long
    held = {n: featuriser.submit(batch(n)) for n in range(1, 500)}
    half = held[300][:1]
    for n in range(1, 499):
        del held[n]
    gc.collect()
    worker.go.release(1000)
    assert values(held[499]) == [998, 1000, 1002]
    assert worker.computed == [0, 300, 499]
    assert values(half) == [600]
    assert values(first) == [0, 2, 4]


def test_failure_reaches_whoever_asks_and_the_thread_goes_on(
    worker: Worker, featuriser: Featuriser
) -> None:
    bad, good = featuriser.submit(batch(-1)), featuriser.submit(batch(1))
    worker.go.release(2)
    for part in (bad, bad[1:]):
        with pytest.raises(ValueError, match="no features"):
            part.result()
    assert values(good) == [2, 4, 6]


def test_close_cancels_what_waits(worker: Worker, featuriser: Featuriser) -> None:
    at_hand, waiting = featuriser.submit(batch(1)), featuriser.submit(batch(2))
    assert worker.begun.acquire(timeout=WAIT_S)
    closing = threading.Thread(target=featuriser.close)
    closing.start()
    while not featuriser._closing:
        closing.join(0.001)
    worker.go.release()
    closing.join(WAIT_S)
    assert values(at_hand) == [2, 4, 6]
    with pytest.raises(CancelledError):
        waiting.result()
    assert worker.computed == [1]
