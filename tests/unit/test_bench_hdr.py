"""Recordings of latencies against numpy on the events one by one."""

import numpy as np
import pytest

from bench.hdr import QUANTILES, Recording
from engines.errors import ArtifactError, ParameterError
from engines.types import AnyArray


def recorded(rng: np.random.Generator, n: int = 500) -> tuple[dict[int, int], AnyArray]:
    values = rng.integers(0, 10_000_000, size=n)
    events = rng.integers(1, 300, size=n)
    counts = {int(value): int(count) for value, count in zip(values, events, strict=True)}
    single = np.repeat(list(counts), list(counts.values()))
    return counts, np.sort(single)


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_those_of_the_single_events(seed: int) -> None:
    counts, single = recorded(np.random.default_rng(seed))
    recording = Recording(counts)
    for q in (0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.99999, 1.0):
        wanted = np.quantile(single, q, method="inverted_cdf")
        assert recording.quantile_s(q) == pytest.approx(wanted / 1e9)
    assert recording.max_s == pytest.approx(single[-1] / 1e9)
    assert recording.mean_s == pytest.approx(single.mean() / 1e9)
    assert len(recording) == len(single)


def test_a_quantile_that_falls_between_two_events_is_the_lower_one() -> None:
    recording = Recording(dict.fromkeys(range(1, 11), 1))
    assert recording.quantile_s(0.9) == 9e-9
    assert recording.quantile_s(0.91) == 10e-9


def test_few_slow_events_show_in_the_high_quantiles_only() -> None:
    summary = Recording({1_000_000: 9_950, 1_000_000_000: 50}).summary()
    assert summary["p50_s"] == summary["p90_s"] == summary["p99_s"] == 1e-3
    assert summary["p999_s"] == summary["max_s"] == 1.0
    assert summary["events"] == 10_000
    assert set(QUANTILES) < set(summary)


def test_merging_counts_every_event_once() -> None:
    counts, single = recorded(np.random.default_rng(0))
    others, more = recorded(np.random.default_rng(1))
    merged = Recording.merged([Recording(counts), Recording(others)])
    together = np.sort(np.concatenate([single, more]))
    assert len(merged) == len(together)
    assert merged.quantile_s(0.99) == pytest.approx(
        np.quantile(together, 0.99, method="inverted_cdf") / 1e9
    )


def test_buckets_without_events_do_not_count() -> None:
    assert Recording({5: 1, 9_000: 0}).max_s == 5e-9


def test_the_curve_rises_to_the_maximum() -> None:
    counts, _ = recorded(np.random.default_rng(2))
    recording = Recording(counts)
    q, seconds = recording.curve()
    assert q[0] == 0
    assert np.all(np.diff(q) > 0)
    assert np.all(np.diff(seconds) >= 0)
    assert seconds[-1] == recording.max_s


def test_json_keys_are_read_as_nanoseconds() -> None:
    assert Recording.from_counts({"250": 3}).quantile_s(1.0) == 250e-9


@pytest.mark.parametrize("counts", [{}, {"a": 1}, {"5": None}, {"-5": 1}, {"5": -1}, {"5": 0}])
def test_damaged_counts_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ArtifactError, match="measure again"):
        Recording.from_counts(counts)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_quantile_is_a_share(q: float) -> None:
    with pytest.raises(ParameterError, match="between 0 and 1"):
        Recording({1: 1}).quantile_s(q)
