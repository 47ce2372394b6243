"""Kill -9 at random instants under load: every event in one window, every window as undisturbed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("victim", "options"),
    [("consumer", ()), ("producer", ("--spool",)), ("producer", ()), ("both", ("--spool",))],
)
def test_kills_change_nothing(tmp_path: Path, victim: str, options: tuple[str, ...]) -> None:
    place = tmp_path / "kills.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.kills", "--victim", victim, *options),
            *("--kills", "3", "--longest", "3", "--rate", "15000", "--json", str(place)),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(place.read_text())["results"]
    assert results["kills"] > 0
    assert results["same_contents"]
    assert results["each_event_once"]
    assert results["trials_without_a_gap"]
    assert results["windows"] == results["windows_undisturbed"]
    in_windows = results["events_in_windows"] + results["events_of_the_last_window"]
    assert in_windows == results["events_sent"]
    assert results["largest_difference_of_t"] < 1e-3
    assert "each once, contents as undisturbed" in done.stdout
