"""Messages that a restart takes up: what was accepted stays so, what cannot be read is missing."""

import math
from pathlib import Path
from typing import Any

import msgpack
import pytest

from engines.reference_file import ReferenceArtifact
from stream.delivery.plain import PlainAdmission
from stream.state.store import StateStore
from tests.support import small_artifact, window_spec
from tests.support_state import INPUTS, Kept, events, feed, keeping, lines, message

N_WINDOW = 200


@pytest.fixture(scope="module")
def counts() -> ReferenceArtifact:
    return small_artifact(n_toys=29)


@pytest.fixture(scope="module")
def times() -> ReferenceArtifact:
    """Windows of a second of 200 events."""
    return small_artifact(window_spec("time", N_WINDOW), n_toys=29)


def n_open(kept: Kept) -> int:
    return int(kept.metrics.n_open())


def with_more_keys(frames: list[bytes]) -> list[bytes]:
    """Return a message whose header is nearly as large as it may be, by numbers of 4 bytes."""
    fields: dict[str, Any] = msgpack.unpackb(frames[0])
    fields |= {key: [[0.1] * 16] * 15 for key in "abc"}
    header = msgpack.packb(fields, use_single_float=True)
    assert 3500 < len(header) <= 4096 < len(msgpack.packb(fields))
    return [header, frames[1]]


def test_large_header_of_a_clock_that_is_ahead_is_taken_up_after_a_kill(
    tmp_path: Path, counts: ReferenceArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlainAdmission, "lasts", True)
    monkeypatch.setattr(PlainAdmission, "max_age_s", math.inf)
    ahead = with_more_keys(message("a", 0, events(50, 0), passed_s=3600.0))
    with keeping(tmp_path, counts, clean=False) as kept:
        kept.consumer.take([ahead])
        assert kept.metrics.n_restamped == 1
    with keeping(tmp_path, counts) as kept:
        assert n_open(kept) == 50
        kept.consumer.take([message("a", seq, events(50, seq)) for seq in (1, 2, 3)])
    assert [(line["n_events"], line["n_missing"]) for line in lines(tmp_path)] == [(N_WINDOW, 0)]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_messages_missing_before_an_end_are_missing_to_the_open_window(
    tmp_path: Path, counts: ReferenceArtifact, clean: bool, together: bool
) -> None:
    """Source a ends after a gap; b goes on with the window, in this life or the next."""
    first = [message("a", 0, events(50, 0)), message("b", 0, events(50, 1))]
    last = [message("a", 3, events(0, 0)), message("b", 1, events(50, 2))]
    with keeping(tmp_path, counts, clean=clean) as kept:
        for one in [[*first, last[0]]] if together else [[frames] for frames in (*first, last[0])]:
            kept.consumer.take(one)
    with keeping(tmp_path, counts) as kept:
        kept.consumer.take([last[1], message("b", 2, events(50, 3))])
    (line,) = lines(tmp_path)
    assert (line["n_events"], line["n_missing"]) == (N_WINDOW, 2)


@pytest.mark.parametrize(
    ("n_panes", "number", "n_left"),
    [(1, 3, 120), (1, 4, 100), (1, 5, 100), (4, 3, 110), (4, 5, 0)],
)
def test_stored_message_that_cannot_be_read_is_missing_and_no_more(
    tmp_path: Path,
    counts: ReferenceArtifact,
    caplog: pytest.LogCaptureFixture,
    n_panes: int,
    number: int,
    n_left: int,
) -> None:
    """Of the window that is taken up, and after that."""
    with keeping(tmp_path, counts, n_panes=n_panes, clean=False) as kept:
        for seq in range(6):
            kept.consumer.take([message("a", seq, events(60, seq))])
    n_before = len(lines(tmp_path))
    store = StateStore(tmp_path / "state", INPUTS)
    (one,) = [one for one in store.messages() if one.number == number]
    store.write([one._replace(header=bytes(5000))])
    store.close()
    with keeping(tmp_path, counts, n_panes=n_panes) as kept:
        assert n_open(kept) == n_left
        kept.consumer.take([message("a", seq, events(60, seq)) for seq in range(6, 12)])
        assert kept.metrics.windows["failed"] == 0
    said = [text for text in caplog.messages if "cannot be read any more" in text]
    assert len(said) == 1
    assert "1 messages" in said[0]
    assert "4096 bytes" in said[0]
    after = lines(tmp_path)[n_before:]
    assert after[0]["n_missing"] >= 1
    assert all(line["n_events"] == N_WINDOW for line in after)


def test_windows_that_a_flood_fills_are_the_same_after_a_kill(
    tmp_path: Path, times: ReferenceArtifact
) -> None:
    flood = [("a", seq, message("a", seq, events(60, seq), 0.01 * seq)) for seq in range(60)]
    later = [("b", seq, message("b", seq, events(60, seq), 1.0 + 0.3 * seq)) for seq in range(9)]
    with keeping(tmp_path / "calm", times) as kept:
        feed(kept, flood)
        feed(kept, later)
    folder = tmp_path / "run"
    for n_fed in (20, 50):
        with keeping(folder, times, clean=False) as kept:
            feed(kept, flood[:n_fed])
    with keeping(folder, times, clean=False) as kept:
        feed(kept, flood)
        feed(kept, later)
    assert lines(folder) == lines(tmp_path / "calm")
    full, rest, *others = lines(folder)
    assert (full["n_events"], full["complete"], full["alarm"]) == (34 * 60, False, False)
    assert (rest["n_events"], rest["complete"], rest["alarm"]) == (26 * 60, False, False)
    assert all(line["complete"] for line in others)
