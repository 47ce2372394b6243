"""The stream that a file becomes: order, injection, reproducibility, pacing."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from engines.types import FloatArray
from stream.replay import Batch, EventFeed, Injection, Pacer, replay


def numbered(first: int, stop: int) -> FloatArray:
    """Events whose every value is their number."""
    numbers = np.arange(first, stop, dtype=np.float32)
    return np.broadcast_to(numbers[:, None, None], (len(numbers), 19, 3)).copy()


def feed(first: int, stop: int, *, block: int = 7, loop: bool = False) -> EventFeed:
    def blocks() -> Iterator[FloatArray]:
        for start in range(first, stop, block):
            yield numbered(start, min(start + block, stop))

    return EventFeed(blocks, loop=loop)


def injected(signal: EventFeed, fraction: float, after: int = 0, seed: int = 0) -> Injection:
    return Injection(signal, fraction, after, np.random.default_rng(seed))


def numbers(batches: list[Batch]) -> list[int]:
    return [int(event[0, 0]) for batch in batches for event in batch.particles]


def signal_positions(batches: list[Batch]) -> list[int]:
    sizes = np.cumsum([0] + [len(batch.particles) for batch in batches])
    return [
        int(start) + i for start, batch in zip(sizes, batches, strict=False) for i in batch.signal
    ]


@pytest.mark.parametrize("size", [1, 5, 7, 20, 100])
def test_background_passes_whole_and_in_order(size: int) -> None:
    batches = list(replay(feed(0, 20), size))
    assert numbers(batches) == list(range(20))
    assert all(len(batch.particles) == size for batch in batches[:-1])
    assert all(batch.signal == () for batch in batches)


def test_limit_ends_the_stream() -> None:
    assert numbers(list(replay(feed(0, 20), 8, limit=10))) == list(range(10))


def test_loop_starts_over() -> None:
    batches = list(replay(feed(0, 5, loop=True), 4, limit=12))
    assert numbers(batches) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_loop_over_nothing_ends() -> None:
    assert list(replay(feed(0, 0, loop=True), 4)) == []


def test_injection_keeps_every_background_event_and_says_where_signal_is() -> None:
    injection = injected(feed(1000, 2000), 0.3, after=50)
    batches = list(replay(feed(0, 200), 16, injection=injection))
    stream, positions = numbers(batches), signal_positions(batches)
    assert [x for x in stream if x < 1000] == list(range(200))
    assert [i for i, x in enumerate(stream) if x >= 1000] == positions
    assert [stream[i] for i in positions] == list(range(1000, 1000 + len(positions)))
    assert min(positions) >= 50
    assert 30 < len(positions) < 110


def test_stream_depends_on_the_seed_but_not_on_the_batch() -> None:
    def stream(size: int, seed: int) -> list[int]:
        injection = injected(feed(1000, 2000), 0.2, after=11, seed=seed)
        return numbers(list(replay(feed(0, 100), size, injection=injection)))

    assert stream(1, seed=4) == stream(16, seed=4) == stream(999, seed=4)
    assert stream(16, seed=4) != stream(16, seed=5)


def test_fraction_zero_injects_nothing() -> None:
    batches = list(replay(feed(0, 50), 8, injection=injected(feed(1000, 1010), 0.0)))
    assert numbers(batches) == list(range(50))


def test_signal_that_runs_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    injection = injected(feed(1000, 1003), 0.5)
    with caplog.at_level(logging.WARNING):
        batches = list(replay(feed(0, 100), 8, injection=injection))
    assert len(signal_positions(batches)) == 3
    assert [x for x in numbers(batches) if x < 1000] == list(range(100))
    assert [r.message for r in caplog.records if "ran out after 3 events" in r.message] != []
    assert len(caplog.records) == 1


def test_looped_signal_does_not_run_out() -> None:
    injection = injected(feed(1000, 1003, loop=True), 0.5)
    assert len(signal_positions(list(replay(feed(0, 100), 8, injection=injection)))) > 60


def test_limit_counts_signal() -> None:
    injection = injected(feed(1000, 2000), 0.5)
    batches = list(replay(feed(0, 1000), 16, injection=injection, limit=40))
    assert len(numbers(batches)) == 40


def test_pacer_holds_events_to_their_time() -> None:
    now = [100.0]
    pacer = Pacer(1000.0, lambda: now[0])
    assert pacer.left_s(0) == 0.0
    assert pacer.left_s(500) == pytest.approx(0.5)
    now[0] += 0.7
    assert pacer.elapsed_s() == pytest.approx(0.7)
    assert pacer.left_s(500) < 0
    assert pacer.left_s(800) == pytest.approx(0.1)


def test_pacer_without_a_rate_never_holds() -> None:
    assert Pacer(0.0, lambda: 3.0).left_s(10**9) == 0.0
