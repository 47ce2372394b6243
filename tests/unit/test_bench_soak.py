"""A long run: what is fitted to its memory, what is drawn and said, and a short one in earnest."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bench import soak
from bench.scrape import Scrape, quantile_s
from bench.soak_fit import slope
from bench.usage import forget_peak, usage
from engines.errors import WorkerError

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


@pytest.mark.slow
@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize("mode", [[], ["--reliable"]])
def test_a_short_run_counts_everything_and_is_drawn(
    mode: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, drawn = tmp_path / "soak.json", tmp_path / "soak.png"
    words = ["--minutes", "0.07", "--warm-up", "0.01", "--rate", "10000", "--every", "0.5"]
    assert soak.main([*words, *mode, "--json", str(saved), "--plot", str(drawn)]) == 0
    said = capsys.readouterr().out
    assert "each counted" in said
    assert "MB an hour" in said
    record = json.loads(saved.read_text())
    assert record["benchmark"] == "soak"
    results = record["results"]
    assert results["counts"]["events"] == results["events_sent"] == 42_240
    assert results["counts"]["missing"] == 0
    curves = results["curves"]
    assert {len(values) for values in curves.values()} == {len(curves["t_s"])}
    assert 3 <= len(curves["t_s"]) <= 300
    assert max(curves["p99_s"]) >= max(curves["p50_s"]) > 0
    assert drawn.read_bytes().startswith(b"\x89PNG")
