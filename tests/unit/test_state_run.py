"""A run that is kept goes on after a kill at any instant as if nothing had happened."""

import shutil
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import numpy as np
import pytest

from engines.reference_file import ReferenceArtifact
from engines.types import AnyArray, FloatArray
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.metrics import Metrics
from stream.state.begin import begin_state
from stream.state.run import RunState
from stream.state.store import StateStore
from tests.support import small_artifact, window_spec
from tests.support_state import INPUTS, Camera, Kept, events, feed, keeping, lines, message, never


class Options(TypedDict):
    n_panes: int
    refuse: Callable[[FloatArray], AnyArray]


Messages: TypeAlias = list[tuple[str, int, list[bytes]]]
N_WINDOW = 200
CURSED_GEV = 666.0


@pytest.fixture(scope="module")
def counts() -> ReferenceArtifact:
    return small_artifact(n_toys=29, scales=(2,))


@pytest.fixture(scope="module")
def times() -> ReferenceArtifact:
    """Windows of a second of 200 events."""
    return small_artifact(window_spec("time", N_WINDOW), n_toys=29, scales=(2,))


def cursed(particles: FloatArray) -> FloatArray:
    return np.asarray(particles[:, 0, 0] == CURSED_GEV, dtype=np.float32)


def stream(n_messages: int = 32, per_message: int = 50) -> Messages:
    """Two sources, of which one loses messages, and one that the encoder refuses now and then."""
    made: Messages = []
    seqs = {"a": 0, "b": 0}
    for number in range(n_messages):
        source = "ab"[number % 3 == 0]
        seqs[source] += 1 + (number % 11 == 5)
        particles = events(per_message, number)
        if number % 13 == 7:
            particles[3, 0, 0] = CURSED_GEV
        if number % 9 == 4:
            particles[:20, 1:5, 1] += 4.0
        frames = message(source, seqs[source], particles, -20.0 + 0.2 * number)
        made.append((source, seqs[source], frames))
    made.append(("a", seqs["a"] + 1, message("a", seqs["a"] + 1, events(0, 0))))
    return made


def decided(folder: Path) -> dict[str, Any]:
    """Return the accounts of a run that nobody is at."""
    store = StateStore(folder / "state", INPUTS)
    try:
        _, accounts, *_ = store.read("decided")
        return dict(accounts["decided"])
    finally:
        store.close()


def ones(folder: Path) -> list[dict[str, Any]]:
    """Return the results of single windows."""
    return [line for line in lines(folder) if line["scale"] == 1]


def n_open(kept: Kept) -> int:
    return int(kept.metrics.n_open())


@pytest.mark.parametrize(
    ("kind", "n_panes"), [("counts", 1), ("counts", 4), ("times", 1), ("times", 2)]
)
def test_kill_at_any_write_changes_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, n_panes: int
) -> None:
    artifact = request.getfixturevalue(kind)
    folder, options = tmp_path / "run", Options(n_panes=n_panes, refuse=cursed)
    camera = Camera(folder, tmp_path / "pictures")
    messages = stream()
    with pytest.MonkeyPatch.context() as patch:
        camera.watch(patch)
        with keeping(folder, artifact, **options) as kept:
            feed(kept, messages)
            left = n_open(kept)
    calm = lines(folder)
    assert len(calm) >= 5
    assert any(line["n_missing"] for line in calm)
    picked = np.linspace(0, camera.n - 1, 12).astype(int)
    for number in picked:
        camera.bring_back(number)
        with keeping(folder, artifact, **options) as kept:
            feed(kept, messages)
            assert n_open(kept) == left
        assert lines(folder) == calm, f"killed at write {number} of {camera.n}"


def test_kill_upon_kill_changes_nothing(tmp_path: Path, counts: ReferenceArtifact) -> None:
    messages = stream(60)
    with keeping(tmp_path / "calm", counts, refuse=cursed) as kept:
        feed(kept, messages)
    folder, n_lives = tmp_path / "run", 0
    rng = np.random.default_rng(3)
    while True:
        camera = Camera(folder, tmp_path / f"pictures{n_lives}")
        with pytest.MonkeyPatch.context() as patch:
            camera.watch(patch)
            with keeping(folder, counts, refuse=cursed, clean=False) as kept:
                known = kept.state.sources
                rest = [one for one in messages if one[1] >= known.get(one[0], 0)]
                feed(kept, rest[:12])
        n_lives += 1
        if not rest:
            break
        camera.bring_back(int(rng.integers(camera.n // 2, camera.n)))
        shutil.rmtree(camera.pictures)
    assert n_lives > 4
    assert lines(folder) == lines(tmp_path / "calm")


def test_clean_end_is_noted_and_a_kill_too(tmp_path: Path, counts: ReferenceArtifact) -> None:
    with keeping(tmp_path, counts) as kept:
        assert kept.state.clean is None
        assert kept.state.is_new
    with keeping(tmp_path, counts, clean=False) as kept:
        assert kept.state.clean is True
    with keeping(tmp_path, counts) as kept:
        assert kept.state.clean is False
        assert not kept.state.is_new
        assert kept.state.name == "r"


def test_open_window_is_taken_up(tmp_path: Path, counts: ReferenceArtifact) -> None:
    messages = stream(n_messages=7)[:-1]  # 350 events
    with keeping(tmp_path, counts) as kept:
        feed(kept, messages)
    with keeping(tmp_path, counts) as kept:
        assert n_open(kept) == 150
        assert kept.metrics.n_recovered == 150
        kept.consumer.take([message("c", 0, events(50, 99))])
    assert [line["window"] for line in ones(tmp_path)] == [0, 1]
    assert [line["trials"] for line in ones(tmp_path)] == [1, 2]


def test_messages_that_no_window_needs_are_forgotten(
    tmp_path: Path, counts: ReferenceArtifact
) -> None:
    with keeping(tmp_path, counts) as kept:
        for seq in range(200):
            kept.consumer.take([message("a", seq, events(50, seq))])
    store = StateStore(tmp_path / "state", INPUTS)
    assert list(store.messages()) == []
    store.close()
    assert (tmp_path / "state" / "run.sqlite").stat().st_size < 4 << 20


def test_accounts_hold_every_window(tmp_path: Path, counts: ReferenceArtifact) -> None:
    """With one that may wait, most are skipped: tested, skipped and open events are all."""
    for life in range(3):
        with keeping(tmp_path, counts, max_waiting=1) as kept:
            particles = events(50, life)
            frames = [message("a", 100 * life + seq, particles) for seq in range(100)]
            kept.consumer.take(frames)
            n_left = n_open(kept)
    accounts = decided(tmp_path)
    total = sum(accounts.get(f"events {what}", 0) for what in ("tested", "skipped", "failed"))
    assert total + n_left == 3 * 100 * 50
    windows = sum(accounts.get(f"windows {what}", 0) for what in ("tested", "skipped", "failed"))
    assert windows * N_WINDOW == total
    assert accounts["windows tested"] == len(ones(tmp_path))


def test_failed_windows_are_in_the_account(
    tmp_path: Path, counts: ReferenceArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(tmp_path, counts) as kept:
        monitor = kept.consumer.tester._monitor
        original = monitor.examine

        def examine(window: Any, *, confirm: bool = True) -> Any:  # noqa: ANN401
            if window.index in (1, 2):
                msg = "t must be finite"
                raise FloatingPointError(msg)
            return original(window, confirm=confirm)

        monkeypatch.setattr(monitor, "examine", examine)
        kept.consumer.take([message("a", seq, events(50, seq)) for seq in range(20)])
    assert decided(tmp_path) == {
        "windows tested": 3,
        "events tested": 600,
        "windows failed": 2,
        "events failed": 400,
        "windows skipped": 0,
        "events skipped": 0,
    }
    assert [line["window"] for line in ones(tmp_path)] == [0, 3, 4]


def test_what_was_missing_before_a_kill_is_missing_after(
    tmp_path: Path, counts: ReferenceArtifact
) -> None:
    """Of a refused message whose successor comes only after the restart."""
    particles = events(50, 0)
    particles[0, 0, 0] = CURSED_GEV
    with keeping(tmp_path, counts, refuse=cursed, clean=False) as kept:
        kept.consumer.take([message("a", 0, events(50, 1))])
        kept.consumer.take([message("a", 1, particles)])
    with keeping(tmp_path, counts, refuse=cursed) as kept:
        kept.consumer.take([message("a", seq, events(50, seq)) for seq in (2, 3, 4)])
    assert [line["n_missing"] for line in ones(tmp_path)] == [1]


def test_huge_leap_does_not_stop_the_writer(tmp_path: Path, counts: ReferenceArtifact) -> None:
    with keeping(tmp_path, counts) as kept:
        kept.consumer.take([message("a", 0, events(50, 0))])
        for seq in (2**64 - 3, 2**64 - 2, 2**64 - 1):  # believed at the second
            kept.consumer.take([message("a", seq, events(50, 1))])
        kept.consumer.take([message("b", seq, events(50, seq)) for seq in range(9)])
    assert sum(line["n_events"] for line in ones(tmp_path)) == 600
    with keeping(tmp_path, counts) as kept:
        assert kept.state.sources["a"] == 2**64


@pytest.mark.parametrize("n_messages", [4, 8])
@pytest.mark.parametrize("clean", [True, False])
def test_results_moved_away_between_two_lives_are_not_told_again(
    tmp_path: Path, counts: ReferenceArtifact, n_messages: int, *, clean: bool
) -> None:
    """Of a file that holds but one window too, and whatever lies in its place by then."""
    folder = tmp_path / "run"
    camera = Camera(folder, tmp_path / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        camera.watch(patch)
        with keeping(folder, counts, clean=clean) as kept:
            kept.consumer.take([message("a", seq, events(50, seq)) for seq in range(n_messages)])
    if not clean:  # killed a moment after the last window was told
        camera.bring_back(camera.n - 1)
    results = folder / "r.jsonl"
    told = results.read_text()
    results.rename(folder / "r.jsonl.1")
    for _ in range(2):
        with keeping(folder, counts):
            pass
        assert results.read_text() == ""
    results.write_text(told[: len(told) // 2].rpartition("\n")[0])
    with keeping(folder, counts) as kept:
        kept.consumer.take([message("a", seq, events(50, seq)) for seq in range(100, 104)])
    assert [line["window"] for line in ones(folder)][-1] == n_messages // 4
    assert len(set(results.read_text().splitlines())) == len(results.read_text().splitlines())


@pytest.mark.parametrize("n_panes", [1, 2])
def test_time_windows_of_a_clock_that_was_ahead_end_and_charge_their_own_span(
    tmp_path: Path, times: ReferenceArtifact, caplog: pytest.LogCaptureFixture, n_panes: int
) -> None:
    ahead_s, per_s = 36_000.0, 5
    with keeping(tmp_path, times, n_panes=n_panes) as kept:
        kept.consumer.take([message("a", seq, events(50, seq), seq / per_s) for seq in range(22)])
    n_before = len(ones(tmp_path))
    with keeping(tmp_path, times, n_panes=n_panes) as kept:
        for seq in range(22, 52):
            passed_s = seq / per_s - ahead_s
            kept.consumer.take([message("a", seq, events(50, seq), passed_s)])
        assert n_open(kept) <= 300
    assert kept.metrics.n_clock_jumps == 1
    assert "set back" in caplog.text
    caplog.clear()
    with keeping(tmp_path, times, n_panes=n_panes) as kept:
        for seq in range(52, 62):
            passed_s = seq / per_s - ahead_s
            kept.consumer.take([message("a", seq, events(50, seq), passed_s)])
    assert kept.metrics.n_clock_jumps == 1  # no news
    assert "set back" not in caplog.text
    after = ones(tmp_path)[n_before:]
    assert len(after) >= 4 * n_panes
    assert all(0.0 < line["spacing_s"] <= 1.0 for line in after)
    assert [line["complete"] for line in after][: n_panes + 1] == [False] * n_panes + [True]
    assert all(line["t_end_ns"] - line["t_start_ns"] == 10**9 for line in after)


@pytest.mark.parametrize(("ahead_s", "told"), [(7200.0, "2.0h ahead"), (1.0, ""), (-7200.0, "")])
def test_state_of_a_clock_that_was_ahead_is_said_once(
    tmp_path: Path,
    counts: ReferenceArtifact,
    caplog: pytest.LogCaptureFixture,
    ahead_s: float,
    told: str,
) -> None:
    options = Namespace(role="all", state=tmp_path, reliable=False)
    rules = Rules(FalseAlarmRate.parse("1/hour"))

    def begin() -> None:
        state = begin_state(options, counts, rules, 1, Metrics(), never)
        assert state is not None
        state.settle(1, {}, None)
        state.close(clean=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState.__init__, "__kwdefaults__", at(ahead_s))
        begin()
    assert not caplog.messages
    begin()
    assert sum("ahead of this machine's clock" in text for text in caplog.messages) == bool(told)
    assert told in caplog.text


def at(ahead_s: float) -> dict[str, Callable[[], object]]:
    """Return what a state is opened with on a machine whose clock is ahead."""
    return {"stopped": never, "now_s": lambda: time.time() + ahead_s}


def test_clock_set_back_between_lives_charges_nothing_for_it(
    tmp_path: Path, counts: ReferenceArtifact
) -> None:
    with keeping(tmp_path, counts) as kept:
        feed(kept, stream(8))
    store = StateStore(tmp_path / "state", INPUTS)
    n_windows, accounts, results, saved_s = store.read("decided")
    future = [n_windows, accounts, results, saved_s + 1e7]
    store.write(about={"decided": future})
    store.close()
    with keeping(tmp_path, counts) as kept:
        kept.consumer.take([message("c", seq, events(50, seq)) for seq in range(8)])
    one = ones(tmp_path)
    assert [line["trials"] for line in one] == list(range(1, len(one) + 1))
    assert all(0 <= line["spacing_s"] < 100 for line in one)


def test_silence_of_an_earlier_life_is_told_once(tmp_path: Path, times: ReferenceArtifact) -> None:
    with keeping(tmp_path, times) as kept:
        kept.consumer.take([message("a", 0, events(50, 0), passed_s=-60.0)])
        kept.consumer.take([message("a", 1, events(50, 1), passed_s=-54.5)])
        n_empty = kept.metrics.windows["empty"]
    assert n_empty == 4
    with keeping(tmp_path, times) as kept:
        kept.consumer.take([message("a", 2, events(50, 2), passed_s=-54.4)])
        assert kept.metrics.windows["empty"] == 0


def test_sources_that_are_remembered_no_more_leave_the_disk(
    tmp_path: Path, counts: ReferenceArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names cost nothing: a producer that invents them must not fill it."""
    monkeypatch.setattr("stream.sequence._MAX_REMEMBERED", 5)
    with keeping(tmp_path, counts) as kept:
        kept.consumer.take([message(f"s{number}", 0, events(0, 0)) for number in range(50)])
    store = StateStore(tmp_path / "state", INPUTS)
    assert list(store.sources()) == [f"s{number}" for number in range(45, 50)]
    store.close()
