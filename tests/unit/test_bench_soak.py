"""A long run: what is fitted to its memory, what is drawn and said, and a short one in earnest."""

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from bench import soak
from bench.scrape import Scrape, quantile_s
from bench.soak_fit import slope
from bench.usage import forget_peak, usage
from engines.errors import WorkerError
from tests.support_bench import run_at_once

Soaks: TypeAlias = dict[str, tuple[dict[str, Any], str]]
TIMES_S = np.arange(0.0, 1200.0, 4.0)
HISTOGRAM = """\
# TYPE nplm_stream_event_latency_seconds histogram
nplm_stream_event_latency_seconds_bucket{le="0.001"} 10.0
nplm_stream_event_latency_seconds_bucket{le="0.002"} 30.0
nplm_stream_event_latency_seconds_bucket{le="+Inf"} 40.0
nplm_stream_event_latency_seconds_count 40.0
nplm_stream_rejected_messages_total{reason="shape"} 2.0
nplm_stream_rejected_messages_total{reason="clock"} 3.0
nplm_stream_rejected_messages_total{reason="leap"} 0.0
"""


def test_a_leak_is_seen_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1.0, len(TIMES_S))
    leaking = slope(TIMES_S, 600 + 0.01 * TIMES_S + noise)
    assert leaking is not None
    assert not leaking.is_flat
    assert leaking.per_s == pytest.approx(0.01, abs=4 * leaking.error_per_s)
    flat = [slope(TIMES_S, rng.normal(600, 1.0, len(TIMES_S))) for _ in range(200)]
    # Two standard deviations: 4.6 % of noise.
    assert sum(line is not None and not line.is_flat for line in flat) < 25


def test_memory_that_wanders_is_not_taken_for_a_leak_as_often_as_least_squares_would() -> None:
    rng = np.random.default_rng(1)
    wandering = rng.normal(0, 1.0, (200, len(TIMES_S)))
    for place in range(1, len(TIMES_S)):
        wandering[:, place] += 0.8 * wandering[:, place - 1]
    lines = [slope(TIMES_S, values) for values in wandering]
    assert sum(line is not None and not line.is_flat for line in lines) < 30


def test_few_samples_have_no_slope() -> None:
    assert slope(TIMES_S[:4], TIMES_S[:4]) is None


def test_metrics_are_read_as_prometheus_reads_them() -> None:
    seen = Scrape(HISTOGRAM)
    assert len(seen) == 7
    assert seen.total("rejected_messages_total") == 5.0
    assert seen.total("rejected_messages_total", reason="clock") == 3.0
    assert seen.total("unheard_of") == 0.0
    assert seen.by("rejected_messages_total", "reason") == {"shape": 2.0, "clock": 3.0}
    bounds_s, counts = seen.buckets("event_latency_seconds")
    assert quantile_s(bounds_s, counts, 0.125) == pytest.approx(0.0005)
    assert quantile_s(bounds_s, counts, 0.5) == pytest.approx(0.0015)
    assert quantile_s(bounds_s, counts, 0.99) == 0.002
    assert quantile_s(bounds_s, 0 * counts, 0.5) is None


def test_a_process_is_looked_at_from_outside(tmp_path: Path) -> None:
    before = usage(os.getpid())
    with (tmp_path / "file").open("w"):
        assert usage(os.getpid()).descriptors == before.descriptors + 1
    assert before.peak_bytes >= before.resident_bytes > 10_000_000
    assert before.cpu_s > 0
    forget_peak(os.getpid())
    with pytest.raises(WorkerError, match="must be running"):
        usage(2**22 + 1)


@pytest.mark.usefixtures("keep_logging")
def test_bad_usage_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--minutes", "1", "--warm-up", "1"]) == 2
    assert "--warm-up must be shorter" in capsys.readouterr().err


@pytest.fixture(scope="module")
def soaks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Soaks]:
    """Return a folder with pictures, and records and texts of runs by the way of delivery."""
    folder = tmp_path_factory.mktemp("soak")
    words = ("--minutes", 0.04, "--warm-up", 0.01, "--rate", 10_000, "--every", 0.3)
    commands = {
        name: ("bench.soak", *words, *mode, "--plot", folder / f"{name}.png")
        for name, mode in (("pull", ()), ("reliable", ("--reliable",)))
    }
    return folder, run_at_once(folder, commands)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pull", "reliable"])
def test_a_short_run_counts_everything_and_is_drawn(soaks: tuple[Path, Soaks], mode: str) -> None:
    folder, runs = soaks
    record, said = runs[mode]
    assert "each counted" in said
    assert "MB an hour" in said
    assert record["benchmark"] == "soak"
    assert record["settings"]["reliable"] == (mode == "reliable")
    results = record["results"]
    assert results["counts"]["events"] == results["events_sent"] == 24_064
    assert results["counts"]["missing"] == 0
    curves = results["curves"]
    assert {len(values) for values in curves.values()} == {len(curves["t_s"])}
    assert 3 <= len(curves["t_s"]) <= 300
    assert max(curves["p99_s"]) >= max(curves["p50_s"]) > 0
    assert (folder / f"{mode}.png").read_bytes().startswith(b"\x89PNG")
