"""The latency benchmark around its runs: what is asked for, what is made of the answers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import latency, latency_command
from bench.hdr import Recording
from bench.latency import Settings, always_testing, measure
from bench.stream_run import Cpu, Feed, Served, StreamRun
from engines.errors import ParameterError
from engines.windows import WindowSpec
from stream.stages import STAGES

SERVED = Served(Path("d4.onnx"), options=("--max-delay", "1ms"))
CPU = {"process": 10.0, "engine": 5.0, "MainThread": 6.0, "ZMQ": 0.5, "nplm-test": 2.0, "x": 1.5}


def one_run(latency_ns: int = 2_000_000, rate_hz: float = 1000.0) -> StreamRun:
    stages = {stage: Recording({10_000 * (k + 1): 500_000}) for k, stage in enumerate(STAGES)}
    stages["latency"] = Recording({latency_ns: 500_000})
    load = {"rate_hz": rate_hz, "seconds": 10.0, "late_p99_s": 1e-4, "late_max_s": 1e-3}
    return StreamRun(
        load={**load, "cpu_s": 0.1},
        stages=stages,
        events=500_000,
        wall_s=10.0,
        cpu=Cpu.of(CPU),
        runtime="a stand-in",
        tested=4,
        skipped=1,
        test_s=5.0,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Served, Feed, int]]:
    """Return the runs asked for; none takes place."""
    runs: list[tuple[Served, Feed, int]] = []

    def run(served: Served, feed: Feed, *, skip_events: int) -> StreamRun:
        runs.append((served, feed, skip_events))
        return one_run(1_000_000 * len(runs), rate_hz=80_000.0)

    monkeypatch.setattr(latency, "run_stream", run)
    _calibrated_for(monkeypatch, WindowSpec("count", 5000.0))
    return runs


def _calibrated_for(monkeypatch: pytest.MonkeyPatch, window: WindowSpec) -> None:
    artifact = SimpleNamespace(facts=SimpleNamespace(window=window))
    monkeypatch.setattr(latency, "load_reference", lambda _: artifact)


def test_capacity_comes_first_then_each_load_without_and_with_tests(
    asked: list[tuple[Served, Feed, int]],
) -> None:
    results = measure(SERVED, Settings(loads=(0.1, 0.5), repeat=2))
    assert results["capacity_hz"] == 80_000.0
    rates = [feed.rate_hz for _, feed, _ in asked]
    assert rates == [0.0, *2 * [8000.0, 8000.0, 40_000.0, 40_000.0]]
    assert [skipped for _, _, skipped in asked[1:5]] == [16_000, 16_000, 80_000, 80_000]
    tests = ["--no-tests" not in served.options for served, _, _ in asked]
    assert tests == [True, *4 * [False, True]]
    assert all(served.options[:2] == ("--max-delay", "1ms") for served, _, _ in asked)
    # Both runs of a kind count; the numbers of the runs are their latencies in ms.
    first = results["points"][0]["latency"]
    assert (first["events"], first["p50_s"], first["p99_s"]) == (1_000_000, 2e-3, 6e-3)


def test_a_known_capacity_is_not_measured(asked: list[tuple[Served, Feed, int]]) -> None:
    results = measure(SERVED, Settings(loads=(0.5,), capacity_hz=1000.0))
    assert [feed.rate_hz for _, feed, _ in asked] == [500.0, 500.0]
    assert results["capacity_hz"] == 1000.0


def test_a_reference_for_windows_of_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _calibrated_for(monkeypatch, WindowSpec("time", 5000.0, 60.0))
    with pytest.raises(ParameterError, match="number of events"):
        measure(SERVED, Settings())


@pytest.mark.parametrize("rate_hz", [10.0, 5_000.0, 40_000.0, 123_456.0, 499_999.0, 1e7])
def test_windows_close_faster_than_tests_and_the_step_divides_the_window(rate_hz: float) -> None:
    options = always_testing(rate_hz, 5000)
    step = int(options[1]) if options else 5000
    assert 5000 % step == 0
    assert step / rate_hz <= 0.01 or step == 1


def test_the_cpu_of_the_parts_adds_up() -> None:
    cpu = Cpu.of(CPU)
    assert (cpu.engine, cpu.own, cpu.wire, cpu.nplm) == (5.0, 1.0, 0.5, 3.5)
    assert cpu.engine + cpu.own + cpu.wire + cpu.nplm == cpu.total
    assert cpu.overhead == pytest.approx(0.15)
    assert cpu.overhead_of_stream == pytest.approx(1.5 / 6.5)


def test_a_run_is_longer_than_its_warm_up() -> None:
    with pytest.raises(ParameterError, match="warm-up must be shorter"):
        Settings(duration_s=2.0, warm_up_s=2.0)


@pytest.mark.usefixtures("keep_logging", "asked")
def test_the_command_prints_saves_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, drawn = tmp_path / "out.json", tmp_path / "out.png"
    words = ["--loads", "0.1", "0.95", "--json", str(saved), "--plot", str(drawn)]
    assert latency_command.main([*words, "--consumer=--max-delay 1ms"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("capacity 80000 events/s")
    assert len({len(row) for row in rows[1:6]}) == 1
    assert rows[5].split()[:8] == ["95", "76", "50", "5.00", "5.00", "5.00", "5.00", "5.00"]
    record: dict[str, Any] = json.loads(saved.read_text())
    assert record["benchmark"] == "latency"
    assert record["settings"]["consumer"] == ["--max-delay", "1ms"]
    point = record["results"]["points"][3]
    assert (point["load"], point["testing"], point["test_share"]) == (0.95, True, 0.5)
    assert point["cpu_s_per_million"]["engine"] == 10.0
    assert list(point["stages"]) == list(STAGES)
    assert point["stages"]["embed"]["p50_s"] == 4e-5
    assert drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("keep_logging", "asked")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--duration", "1", "--warm-up", "2"], "warm-up must be shorter"),
        (["--json", "/nowhere/out.json"], "cannot write /nowhere/out.json"),
    ],
)
def test_bad_usage_ends_with_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency_command.main(words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
