"""Stored events through the monitor: which events, what is kept, going on after an end."""

import json
from pathlib import Path

import numpy as np
import pytest

from engines.errors import MismatchError, SampleSizeError
from engines.events import EventRange
from stream.scanning.source import StoredWindows
from tests.support import LinearEngine, gaussians, small_artifact
from tests.support_scan import scan, stored, stored_gaussians

N = 200


def test_windows_are_disjoint_and_in_order(tmp_path: Path) -> None:
    """Ranges of two files, a window across both, the rest in none."""
    one = stored_gaussians(tmp_path / "a.h5", 500, 1)
    two = stored_gaussians(tmp_path / "b.h5", 400, 2)
    ranges = [EventRange(one.path, 100, 350), EventRange(two.path, 10)]
    with StoredWindows(ranges, N) as source:
        assert (source.n_events, source.n_windows, source.n_left_over) == (640, 3, 40)
        pieces = [list(source.read(index)) for index in range(3)]
        places = [[(number, first, len(e)) for number, first, e in window] for window in pieces]
        assert places == [[(0, 100, 200)], [(0, 300, 50), (1, 10, 150)], [(1, 160, 200)]]
        for window in pieces:
            for _, first, particles in window:
                assert particles[:, 0, 0].tolist() == list(range(first, first + len(particles)))


def test_too_few_events(tmp_path: Path) -> None:
    few = stored_gaussians(tmp_path / "a.h5", N - 1, 1)
    with pytest.raises(SampleSizeError, match=r"needs the 200 events of one window.*holds 199"):
        StoredWindows([few], N)


def test_events_given_twice(tmp_path: Path) -> None:
    events = stored_gaussians(tmp_path / "a.h5", 2 * N, 1)
    with pytest.raises(MismatchError, match="each event may be given once"):
        StoredWindows([events, EventRange(events.path, 50, 300)], N)


def test_t_is_the_reference_s(tmp_path: Path) -> None:
    artifact, embeddings = small_artifact(), gaussians(3 * N + 7, np.random.default_rng(5))
    with StoredWindows([stored(tmp_path / "a.h5", embeddings)], N) as source:
        journal = scan(source, artifact, tmp_path / "r.jsonl")
    lines = [group[0] for group in journal.windows]
    wanted = [artifact.reference.test(embeddings[k * N : (k + 1) * N]).t[0] for k in range(3)]
    assert [line["t"] for line in lines] == pytest.approx(wanted, rel=1e-6)
    assert [line["window"] for line in lines] == [0, 1, 2]
    (span,) = lines[1]["spans"]
    assert (span["source"], span["first_event"], span["stop_event"]) == ("a.h5", N, 2 * N)
    # A file has no clock, and no line holds a duration.
    assert {lines[1][name] for name in ("spacing_s", "inverse_far_s", "t_start_ns")} == {None}
    assert not {"test_s", "relabel_s"} & set(lines[1])


def test_with_a_spacing_windows_are_charged_for_it(tmp_path: Path) -> None:
    events = stored_gaussians(tmp_path / "a.h5", 2 * N, 1)
    with StoredWindows([events], N) as source:
        journal = scan(source, small_artifact(), tmp_path / "r.jsonl", spacing_s=600.0)
    lines = [group[0] for group in journal.windows]
    assert [line["spacing_s"] for line in lines] == [600.0, 600.0]
    assert [line["threshold_p"] for line in lines] == pytest.approx([0.01, 0.01])
    assert lines[1]["inverse_far_s"] == pytest.approx(600.0 / lines[1]["p_alarm"])


def alarming(folder: Path) -> EventRange:
    """Ten windows, of which the fourth and fifth are shifted."""
    embeddings = gaussians(10 * N + 3, np.random.default_rng(7))
    embeddings[3 * N : 5 * N] += 1.0
    return stored(folder / "events.h5", embeddings)


def test_alarms_are_kept_and_confirmed(tmp_path: Path) -> None:
    with StoredWindows([alarming(tmp_path)], N) as source:
        journal = scan(source, small_artifact(), tmp_path / "r.jsonl", alarms=tmp_path / "alarms")
    alarms = [group[0] for group in journal.windows if group[0]["alarm"]]
    assert [line["window"] for line in alarms] == [3, 4]
    assert [line["onset"] for line in alarms] == [True, False]
    assert [line["relabelling"] for line in alarms] == ["done", "same alarm"]
    kept = sorted(path.name for path in (tmp_path / "alarms").iterdir())
    assert kept == ["alarm-test-000003.h5", "alarm-test-000004.h5"]


@pytest.mark.parametrize("stop_after", [1, 4, 5, 6, 9, 10])
def test_going_on_gives_the_same_file(tmp_path: Path, stop_after: int) -> None:
    """Trials, an alarm that goes on, and longer scales under way are as if there was no end."""
    artifact = small_artifact(scales=(3, 4), n_pool=12_000)
    with StoredWindows([alarming(tmp_path)], N) as source:
        scan(source, artifact, tmp_path / "whole.jsonl")
        path = tmp_path / "parts.jsonl"
        assert len(scan(source, artifact, path, stop_after=stop_after).windows) == stop_after
        assert len(scan(source, artifact, path).windows) == 10
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [line["scale"] for line in lines] == [1, 1, 1, 3, 1, 4, 1, 1, 3, 1, 1, 4, 1, 3, 1]
    assert lines[-1]["trials"] == 10


def test_results_that_do_not_follow_from_their_t(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with StoredWindows([alarming(tmp_path)], N) as source:
        scan(source, small_artifact(), path, stop_after=4)
        path.write_text(path.read_text().replace('"alarm": true', '"alarm": false'))
        with pytest.raises(MismatchError, match="those of window 3 do not"):
            scan(source, small_artifact(), path)


def test_training_events_are_refused(tmp_path: Path) -> None:
    from engines.artifact import EngineFacts, SampleFacts
    from stream.scanning.source import refuse_calibration_events

    events = stored_gaussians(tmp_path / "a.h5", 3 * N, 1)
    facts = small_artifact().facts
    with StoredWindows([events], N) as source:
        trained = EngineFacts(trained_on=(SampleFacts.of(EventRange(events.path, 0, 50)),))
        with pytest.raises(MismatchError, match="trained on 50 of these events"):
            refuse_calibration_events(source.samples, LinearEngine(trained), facts)
