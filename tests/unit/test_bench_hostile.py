"""A hostile producer beside a good one: what is followed, and a few kinds in earnest."""

from typing import Any

import pytest

from bench import hostile
from bench.hostile_consumer import Row, tapped
from bench.hostile_kinds import KINDS
from stream.header import Header
from stream.stages import Arrival, Stages
from tests.support_bench import run_at_once


def arrival(source: str, t_ns: int, n: int, wire_s: float) -> Arrival:
    return Arrival(Header(source, 0, n, "<f4", t_ns, end=False), 0, wire_s, 10.0, 10.1)


def test_only_the_good_ones_latency_is_noted() -> None:
    stages, rows, seen = Stages(), list[Row](), []

    def observe(_: Stages, messages: object, *times_s: float) -> None:
        seen.append((messages, times_s))

    messages = [arrival("good", 5, 256, 0.5), arrival("large", 6, 16_384, 3.0)]
    tapped(observe, rows)(stages, messages, 10.2, 10.3, 10.4)
    assert seen == [(messages, (10.2, 10.3, 10.4))]
    ((t_ns, n, latency_s),) = rows
    assert (t_ns, n) == (5, 256)
    assert latency_s == pytest.approx(0.8)


def test_the_command_knows_every_kind() -> None:
    assert list(KINDS) == list(hostile._KINDS)
    text = " ".join(hostile._TEXT.split())
    assert all(f" {kind} " in text for kind in KINDS)


@pytest.mark.usefixtures("keep_logging")
def test_bad_usage_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile.main(["--json", "/nowhere/out.json"]) == 2
    assert "cannot write /nowhere/out.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """Return records and texts of kinds of hostility."""
    words = (
        *("bench.hostile", "--rate", 5000, "--alone", 0.6, "--beside", 1, "--batch", 64),
        "--consumer=--max-sources 50",
    )
    deliveries = {"garbage": "pull", "sources": "reliable", "uninvited": "reliable"}
    commands = {
        kind: (*words, "--kinds", kind, "--delivery", delivery)
        for kind, delivery in deliveries.items()
    }
    return run_at_once(tmp_path_factory.mktemp("hostile"), commands)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["garbage", "sources", "uninvited"])
def test_the_good_ones_events_are_all_counted(
    runs: dict[str, tuple[dict[str, Any], str]], kind: str
) -> None:
    record, said = runs[kind]
    (run,) = record["results"]["runs"]
    assert run["kind"] == kind
    assert run["all_counted"]
    assert run["sent"] >= 10_000
    for part in ("alone", "beside"):
        assert 0 < run[part]["p50_s"] <= run[part]["p99_s"]
        assert run[part]["peak_mb"] > 50
        assert run[part]["series"] > 100
    if kind == "garbage":
        assert sum(run["rejected"].values()) >= run["hostile_sent"] / 2 > 0
        assert run["hostile_events_accepted"] == 0
    elif kind == "sources":
        assert run["rejected"]["too-many-sources"] > 0
        assert run["hostile_events_accepted"] > 0
    else:
        assert run["denied_connections"] > 0
        assert run["hostile_sent"] > 0
        assert run["hostile_events_accepted"] == 0
    assert "the good one sends 5000 events/s" in said
