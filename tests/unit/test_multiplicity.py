"""Every event is computed once, with all that is there, in about as few tokens as can be."""

from itertools import combinations

import numpy as np
import pytest

from engines import multiplicity
from engines.event_files import read_events
from engines.events import EventRange
from engines.multiplicity import N_TOKENS, buckets, choose_lengths
from engines.samples import sample_path
from engines.types import BoolArray, FloatArray


def make_particles(n: int, seed: int = 0) -> FloatArray:
    """Events with any number of objects from none to all."""
    rng = np.random.default_rng(seed)
    particles = rng.uniform(1, 90, (n, 19, 3)).astype(np.float32)
    particles[rng.random((n, 19)) < rng.random((n, 1))] = 0
    particles[:2] = 0
    particles[2:3] = 7
    return particles


def tokens_there(particles: FloatArray) -> BoolArray:
    """Return whether a token is there, (n, 20): the CLS token is."""
    return np.pad(particles[:, :, 0] > 0, ((0, 0), (1, 0)), constant_values=True)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1500])
def test_every_event_is_computed_once_with_all_that_is_there(n: int) -> None:
    particles = make_particles(n)
    there = tokens_there(particles)
    seen = []
    for bucket in buckets(particles):
        seen += bucket.events.tolist()
        assert bucket.tokens.shape[0] == len(bucket.events)
        for row, (event, tokens) in enumerate(zip(bucket.events, bucket.tokens, strict=True)):
            own = tokens - row * N_TOKENS
            assert own[0] == 0
            assert set(np.flatnonzero(there[event])) <= set(own) <= set(range(N_TOKENS))
            assert len(set(own)) == len(own)
    assert sorted(seen) == list(range(n))


def test_no_call_outgrows_the_cache() -> None:
    sizes = [bucket.tokens.size for bucket in buckets(make_particles(4000))]
    assert max(sizes) <= multiplicity._MOST_TOKENS + N_TOKENS
    assert len(sizes) < 50


@pytest.mark.parametrize(("n", "most_wasted"), [(64, 0.3), (512, 0.1), (4096, 0.02)])
def test_little_of_real_events_is_computed_in_vain(n: int, most_wasted: float) -> None:
    particles = read_events(EventRange(sample_path("sm_cocktail"), 0, n))
    computed = sum(bucket.tokens.size for bucket in buckets(particles))
    needed = int(tokens_there(particles).sum())
    assert needed <= computed <= needed * (1 + most_wasted)


@pytest.mark.parametrize("seed", range(5))
def test_lengths_are_the_best_of_all(seed: int) -> None:
    n_events = np.random.default_rng(seed).integers(0, 60, 9)
    n_events[0], n_events[-1] = 0, 2

    def cost(lengths: tuple[int, ...]) -> int:
        ends = (0, *lengths)
        tokens = [
            b * int(n_events[a + 1 : b + 1].sum()) for a, b in zip(ends, lengths, strict=False)
        ]
        return sum(tokens) + multiplicity._CALL_TOKENS * len(lengths)

    choices = [(*some, 8) for k in range(8) for some in combinations(range(1, 8), k)]
    chosen = choose_lengths(n_events.tolist())
    assert cost(tuple(chosen)) == min(map(cost, choices))
