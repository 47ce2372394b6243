"""What reliable delivery costs: who takes turns, what is compared, and one round in earnest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import reliability, reliability_measure
from bench.reliability_load import Acknowledged
from bench.reliability_measure import PLAIN, WAYS
from bench.reliability_run import Streamed, Way
from bench.stream_run import Feed, Served
from engines.errors import WorkerError

WORDS = ["--repeat", "2", "--batch", "256", "--duration", "3", "--warm-up", "1"]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Way, Feed, Path]]:
    """Return the runs asked for, none of which takes place; each is slower than the last."""
    asked: list[tuple[Way, Feed, Path]] = []

    def run(
        served: Served, feed: Feed, way: Way, places: tuple[Path, Path], *, skip_events: int
    ) -> Streamed:
        asked.append((way, feed, places[0]))
        return Streamed(
            rate_hz=1000.0 - 10 * len(asked),
            load={"acknowledged": {"1000000": 99, "5000000": 1}},
            cpu_s_per_million=2.0,
            tested=3,
            skipped=1,
            runtime="a stand-in",
        )

    monkeypatch.setattr(reliability_measure, "run_way", run)
    return asked


@pytest.mark.usefixtures("keep_logging")
def test_every_way_takes_its_turn_and_is_compared_with_its_own_round(
    turns: list[tuple[Way, Feed, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, disk, memory = tmp_path / "out.json", tmp_path / "disk", tmp_path / "memory"
    disk.mkdir()
    memory.mkdir()
    places = ["--disk", str(disk), "--memory", str(memory), "--json", str(saved)]
    assert reliability.main([*WORDS, *places]) == 0
    reliable = [way for way, _ in WAYS.values() if way.reliable]
    one_round = [way for way, _ in WAYS.values()] + reliable
    assert [way for way, _, _ in turns] == 2 * one_round
    rates = [feed.rate_hz for _, feed, _ in turns]
    assert rates == 2 * ([0.0] * len(WAYS) + [20_000.0] * len(reliable))
    assert [place for _, _, place in turns[:3]] == [disk, memory, disk]
    record: dict[str, Any] = json.loads(saved.read_text())
    rates_of_256 = record["results"]["rates"]["256"]
    assert rates_of_256[PLAIN]["share"]["median"] == 1.0
    # The fifth run of each round, beside the first one of the same round.
    second = 1000 - 10 * (len(one_round) + 5), 1000 - 10 * (len(one_round) + 1)
    wanted = np.median([950 / 990, second[0] / second[1]])
    assert rates_of_256["reliable"]["share"]["median"] == pytest.approx(wanted)
    times = record["results"]["acknowledgements"]["256"]["reliable"]
    assert (times["messages"], times["p50_s"], times["max_s"]) == (200, 1e-3, 5e-3)
    assert record["results"]["places"]["disk"]["sync_p50_s"] > 0
    assert "1.00, 1.00, 5.00" in capsys.readouterr().out


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--duration", "1", "--warm-up", "2"], "--warm-up must be shorter"),
        (["--json", "/nowhere/out.json"], "cannot write /nowhere/out.json"),
        (["--disk", "/nowhere"], "cannot write in /nowhere"),
    ],
)
def test_bad_usage_ends_with_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reliability.main(words) == 2
    assert sentence in capsys.readouterr().err


def test_an_event_that_is_not_counted_fails_the_measurement(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    path.write_text(json.dumps({"n_events": 511}))
    with pytest.raises(WorkerError, match="all 512 events must count once; 511 did"):
        Streamed.read({}, 512, path)


class _Producer:
    """Stands in a reliable producer's place; acknowledges what it is told to."""

    following = n_unacknowledged = 0


def test_a_message_is_timed_from_its_handing_over_to_its_acknowledgement() -> None:
    producer = _Producer()
    clock = Acknowledged(producer)
    for _ in range(3):
        clock.sending()
        producer.following += 1
        producer.n_unacknowledged += 1
    clock.sleep(0.02)
    assert clock.counts(0) == {}
    producer.n_unacknowledged = 1
    clock.sleep(0.005)
    took_ns = [int(ns) for ns, n in clock.counts(0).items() for _ in range(n)]
    assert len(took_ns) == 2
    assert all(20e6 <= ns < 5e9 for ns in took_ns)
    assert sum(clock.counts(1).values()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("keep_logging")
def test_one_round_counts_every_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compared with itself, and nothing settles: two short runs instead of eleven.
    name = "reliable, spool"
    monkeypatch.setattr(reliability_measure, "PLAIN", name)
    monkeypatch.setattr(reliability_measure, "WAYS", {name: WAYS[name]})
    monkeypatch.setattr(reliability_measure, "_SETTLING_EVENTS", 1000)
    saved = tmp_path / "out.json"
    words = ["--repeat", "1", "--batch", "256", "--duration", "1", "--warm-up", "0.2"]
    places = ["--disk", str(tmp_path), "--memory", str(tmp_path), "--json", str(saved)]
    assert reliability.main([*words, *places]) == 0
    results = json.loads(saved.read_text())["results"]
    assert results["rates"]["256"][name]["events_hz"]["median"] > 1000
    times = results["acknowledgements"]["256"][name]
    assert times["messages"] > 50
    assert 0 < times["p50_s"] <= times["p99_s"] <= times["max_s"]
    assert "% of pull" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [saved]
