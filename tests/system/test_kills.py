"""Kill -9 at random instants under load: every event in one window, every window as undisturbed."""

from typing import Any

import pytest

from tests.support_bench import run_at_once

VICTIMS = {"producer": ("producer",), "both": ("both", "--spool")}
N_KILLS = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str]]:
    """Return records and texts of streams with kills, by who is killed."""
    words = ("bench.kills", "--kills", N_KILLS, "--longest", 3, "--rate", 6_000)
    commands = {name: (*words, "--victim", *victim) for name, victim in VICTIMS.items()}
    return run_at_once(tmp_path_factory.mktemp("kills"), commands)


@pytest.mark.parametrize("victim", VICTIMS)
def test_kills_change_nothing(runs: dict[str, tuple[dict[str, Any], str]], victim: str) -> None:
    record, said = runs[victim]
    results = record["results"]
    assert results["kills"] == N_KILLS
    assert 0 < results["kills_counted_from_work"] < N_KILLS
    assert results["same_contents"]
    assert results["each_event_once"]
    assert results["trials_without_a_gap"]
    assert results["windows"] == results["windows_undisturbed"]
    in_windows = results["events_in_windows"] + results["events_in_the_open_window"]
    assert in_windows == results["events_sent"]
    assert results["largest_difference_of_t"] < 1e-3
    assert "each once, contents as undisturbed" in said
