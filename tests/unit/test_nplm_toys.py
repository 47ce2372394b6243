"""Toys: which events of the pool they take."""

import itertools

import numpy as np
import pytest

from engines.errors import SampleSizeError
from engines.nplm import draw_toys, events_for_pool, offset_share
from tests.support import window_spec


def test_toy_has_no_event_twice_and_all_its_events() -> None:
    toys = list(draw_toys(window_spec("count", 30), 100, 20, np.random.default_rng(0)))
    assert len(toys) == 20
    for toy in toys:
        assert len(set(toy.tolist())) == len(toy) == 30
        assert toy.min() >= 0
        assert toy.max() < 100


def test_toys_are_disjoint_until_the_pool_is_used_up() -> None:
    toys = list(draw_toys(window_spec("count", 30), 100, 9, np.random.default_rng(0)))
    for round_of_three in (toys[:3], toys[3:6], toys[6:]):
        assert len(set(np.concatenate(round_of_three).tolist())) == 90
    assert set(toys[0].tolist()) & set(np.concatenate(toys[3:6]).tolist())


def test_pool_of_one_window_gives_that_window() -> None:
    toys = list(draw_toys(window_spec("count", 10), 10, 3, np.random.default_rng(0)))
    assert [sorted(toy.tolist()) for toy in toys] == [list(range(10))] * 3


def test_time_window_has_a_poisson_count() -> None:
    toys = draw_toys(window_spec("time", 50), 10_000, 2000, np.random.default_rng(0))
    counts = np.array([len(toy) for toy in toys])
    assert counts.mean() == pytest.approx(50, abs=5 * np.sqrt(50 / 2000))
    assert counts.var() == pytest.approx(50, rel=0.2)


def test_time_window_is_never_empty() -> None:
    toys = draw_toys(window_spec("time", 1), 100, 500, np.random.default_rng(0))
    assert min(len(toy) for toy in toys) == 1


def test_same_seed_gives_the_same_toys() -> None:
    one, same, other = (
        np.concatenate(list(draw_toys(window_spec("time", 20), 200, 5, np.random.default_rng(s))))
        for s in (1, 1, 2)
    )
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()


def test_every_event_of_the_pool_is_used_alike() -> None:
    toys = draw_toys(window_spec("count", 10), 100, 1000, np.random.default_rng(0))
    used = np.bincount(np.concatenate(list(toys)), minlength=100)
    assert used.tolist() == [100] * 100


def test_pool_too_small_for_a_toy_is_refused() -> None:
    with pytest.raises(SampleSizeError, match="a toy needs 30 events; the pool holds 29"):
        list(draw_toys(window_spec("count", 30), 29, 1, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("n_data", "n_ref", "share"),
    list(itertools.product((1, 100, 12_345.6), (50, 20_000, 10**6), (0.1, 0.25, 0.5))),
)
def test_pool_for_a_share_is_the_least_that_keeps_it(
    n_data: float, n_ref: int, share: float
) -> None:
    pool = events_for_pool(n_data, n_ref, share)
    assert offset_share(n_data, pool, n_ref) <= share * (1 + 1e-12)
    assert pool >= 2 * n_data
    if pool > 2 * n_data + 1:
        assert offset_share(n_data, pool - 1, n_ref) > share
