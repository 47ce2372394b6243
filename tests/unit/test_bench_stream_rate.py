"""The stream's rate beside its limits: who takes turns with whom, and what is compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import stream_rate, throughput
from bench.hdr import Recording
from bench.stream_run import Cpu, Feed, Served, StreamRun

CPU = {"process": 2.0, "engine": 1.0, "MainThread": 1.2, "ZMQ": 0.05}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was measured, in order; the stream gets slower with every round."""
    order: list[str] = []

    def run(served: Served, feed: Feed, *, skip_events: int) -> StreamRun:
        kind = "untested" if "--no-tests" in served.options else "stream"
        order.append(f"{kind} {feed.dtype}")
        rate_hz = 1000.0 - 10 * len(order)
        return StreamRun(
            load={"rate_hz": rate_hz, "cpu_s": 0.5, "events": 1e6},
            stages={"latency": Recording({1: 1})},
            events=2_000_000,
            wall_s=1.0,
            cpu=Cpu.of(CPU),
            runtime="a stand-in",
            tested=7,
            skipped=3,
            test_s=1.0,
        )

    def bare(feed: Feed) -> float:
        order.append(f"bare {feed.dtype}")
        return 2000.0 if feed.dtype == "<f4" else 500.0

    monkeypatch.setattr(stream_rate, "run_stream", run)
    monkeypatch.setattr(stream_rate, "receive_hz", bare)
    monkeypatch.setattr(stream_rate, "_engine_hz", lambda *_: 1000.0)
    return order


@pytest.mark.usefixtures("keep_logging")
def test_everything_takes_its_turn_and_is_compared_with_the_lower_limit(
    turns: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    words = ["stream", "--repeat", "2", "--dtype", "<f4", "<f2", "--json", str(path)]
    assert throughput.main(words) == 0
    one_round = [
        f"{kind} {dtype}" for dtype in ("<f4", "<f2") for kind in ("bare", "stream", "untested")
    ]
    assert turns == 2 * one_round
    record: dict[str, Any] = json.loads(path.read_text())
    assert record["benchmark"] == "stream-throughput"
    f4, f2 = record["results"]["<f4"], record["results"]["<f2"]
    # Rounds 1 and 2 of f4 ran second and eighth; the engine is the lower limit there.
    assert f4["stream"]["events_hz"]["median"] == pytest.approx((980 + 920) / 2)
    assert f4["stream"]["share_of_limit"]["median"] == pytest.approx((0.98 + 0.92) / 2)
    # The bare loop is the lower one for f2.
    assert f2["stream"]["share_of_limit"]["median"] == pytest.approx((950 + 890) / 2 / 500)
    assert f4["stream"]["cpu_s_per_million"]["engine"]["median"] == 0.5
    assert f4["stream"]["overhead"]["median"] == pytest.approx(0.25 / 2.0)
    assert f4["stream"]["overhead_of_stream"]["median"] == pytest.approx(0.25 / 1.25)
    assert f4["stream"]["sender_cpu_s_per_million"]["median"] == pytest.approx(0.5)
    text = capsys.readouterr().out
    assert "7 tested, 3 skipped" in text
    assert "95 (" in text
