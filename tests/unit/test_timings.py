"""Durations by stage: what Prometheus sees, and what a measurement keeps."""

import json
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ArtifactError
from stream.durations import BUCKETS_S, Durations, histogram
from stream.header import Header
from stream.stages import DURATIONS, Arrival, Stages
from stream.timings import Timings, highest_equivalent_ns


def arrival(n: int, wire_s: float, received_s: float, decoded_s: float) -> Arrival:
    return Arrival(Header("me", 0, n, "<f4", 0, False), 0, wire_s, received_s, decoded_s)


def test_histogram_is_what_prometheus_makes_of_it() -> None:
    durations = Durations(("wire", "embed"))
    for seconds in (1e-5, 1.1e-5, 0.003, 61.0):
        durations.add((seconds, 0.5))
    (wire, buckets, wire_s), (embed, _, embed_s) = histogram(durations, ("wire", "embed"))
    assert (wire, embed) == ("wire", "embed")
    found = dict(buckets)
    assert [found[bound] for bound in ("1e-05", "2e-05", "0.002", "0.005", "60.0", "+Inf")] == [
        1, 2, 2, 3, 3, 4
    ]  # fmt: skip
    assert wire_s == pytest.approx(61.003021)
    assert embed_s == 2.0
    assert len(buckets) == len(BUCKETS_S) + 1


def test_durations_are_counted_whenever_they_are_read() -> None:
    durations, seen = Durations(("a",)), []
    for n in range(5000):
        durations.add((n / 1000,))
        if n % 700 == 0:
            seen.append(durations.cumulative()[0][0, -1])
    assert seen == [n + 1 for n in range(0, 5000, 700)]
    counts, sums_s = durations.cumulative()
    assert counts[0, BUCKETS_S.index(1.0)] == 1001
    assert sums_s[0] == pytest.approx(sum(range(5000)) / 1000)


def test_stages_up_to_embed_add_up_to_the_latency() -> None:
    stages = Stages()
    messages = [arrival(10, 0.5, 10.0, 10.25), arrival(20, 0.125, 10.25, 10.5)]
    stages.observe(messages, closed_s=11.0, embedded_s=13.0, placed_s=13.5)
    sums = dict(zip(stages.durations.names, stages.durations.cumulative()[1], strict=True))
    parts = {"wire": 0.625, "decode": 0.5, "wait": 1.25, "embed": 4.0}
    assert sums == {**parts, "window": 1.0, "latency": sum(parts.values())}


def test_message_from_the_future_has_no_negative_latency() -> None:
    stages = Stages()
    stages.observe([arrival(1, -3.0, 1.0, 1.0)], closed_s=1.0, embedded_s=2.0, placed_s=2.0)
    assert stages.durations.cumulative()[1][-1] == 0.0


def test_bucket_is_narrower_than_a_part_in_a_thousand() -> None:
    values_ns = np.array([0, 1, 1023, 1024, 2047, 2048, 999_999, 10**9, 7 * 10**12])
    highest = highest_equivalent_ns(values_ns)
    assert (values_ns <= highest).all()
    assert (highest <= values_ns * 1.001).all()
    assert (highest_equivalent_ns(highest) == highest).all()
    assert (highest_equivalent_ns(highest + 1) > highest).all()


def bucket_of(seconds: float) -> str:
    return str(highest_equivalent_ns(np.array([round(1e9 * seconds)]))[0])


def test_timings_count_events_after_the_warm_up(tmp_path: Path) -> None:
    timings = Timings(tmp_path / "t.json", DURATIONS, skip_events=15)
    stages = Stages(timings)
    for _ in range(5):
        stages.observe([arrival(10, 0.0, 1.0, 1.5)], closed_s=1.5, embedded_s=2.0, placed_s=2.0)
    with stages.engine_cpu():
        sum(range(100_000))
    timings.stop()
    timings.save(engine="a stand-in")
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["events"] == 30
    assert record["engine"] == "a stand-in"
    assert record["stages"]["wire"] == {"0": 30}
    assert record["stages"]["decode"] == {bucket_of(0.5): 30}
    assert record["stages"]["latency"] == {bucket_of(1.0): 30}
    assert 0 < record["cpu_s"]["engine"] <= record["cpu_s"]["process"]
    assert record["cpu_s"]["MainThread"] > 0


def test_timings_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="choose a folder"):
        Timings(tmp_path / "absent" / "t.json", DURATIONS).save()
