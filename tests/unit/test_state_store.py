"""One file holds a run: locked, of these inputs alone, and never believed where it is damaged."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from engines.errors import ArtifactError, MismatchError, NplmStreamError
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import FILE_NAME, StateStore, StoredMessage
from tests.support_state import events, message

INPUTS = {"engine": "ab", "--far": "1/month", "--fdr": None}


def fill(folder: Path, n: int = 40) -> None:
    store = StateStore(folder, INPUTS)
    for seq in range(n):
        header, payload = message("a", seq, events(20, seq))
        store.write(
            [StoredMessage(seq, seq % 3, header, payload)],
            {"a": seq + 1},
            {"run": "r", "clean": True, "point": [seq, seq, 0, {"index": seq, "open": []}]},
        )
    store.close()


def begin(folder: Path) -> RunState:
    return RunState(folder, INPUTS, Metrics(), SparseLog(), name="new")


def check_sentence(exc: NplmStreamError) -> None:
    """Fail unless the error is one line that says what to do."""
    assert "\n" not in str(exc)
    assert "--state" in str(exc)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    fill(tmp_path)
    store = StateStore(tmp_path, INPUTS)
    assert store.read("run") == "r"
    assert store.read("nothing") is None
    assert store.sources() == {"a": 40}
    stored = list(store.messages())
    assert [one.number for one in stored] == list(range(40))
    assert [one.n_missing for one in stored] == [number % 3 for number in range(40)]
    assert [bytes(one.payload) for one in stored][7] == message("a", 7, events(20, 7))[1]
    store.write(first_needed=39)
    assert [one.number for one in store.messages()] == [39]
    store.close()


def test_write_that_fails_changes_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INPUTS)
    one = StoredMessage(0, 0, b"header", b"payload")
    broken = StoredMessage(1, 0, b"header", cast("bytes", object()))
    with pytest.raises(Exception, match=r"object|bytes|str"):
        store.write([one, broken], {"a": 2}, {"x": 1})
    assert list(store.messages()) == []
    assert store.sources() == {}
    for _ in range(2):  # a disk may have taken what it said that it had not
        store.write([one], {"a": 1})
    assert len(list(store.messages())) == 1
    store.close()


def test_second_consumer_is_kept_out(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INPUTS)
    with pytest.raises(ArtifactError, match=r"another consumer is using .* name another --state"):
        StateStore(tmp_path, INPUTS)
    store.write(about={"x": 1})
    store.close()
    StateStore(tmp_path, INPUTS).close()


def test_run_of_other_inputs_is_refused_by_name(tmp_path: Path) -> None:
    StateStore(tmp_path, INPUTS).close()
    other = {**INPUTS, "--far": "1/day", "--slide": 4}
    with pytest.raises(MismatchError, match=r"another --far, --slide .*1/month; now: 1/day"):
        StateStore(tmp_path, other)
    StateStore(tmp_path, INPUTS).close()


@pytest.mark.parametrize("content", [b"no database at all" * 200, b"{}", bytes(100_000)])
def test_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(NplmStreamError) as refused:
        begin(tmp_path)
    check_sentence(refused.value)
    assert "is damaged" in str(refused.value)
    assert (tmp_path / FILE_NAME).read_bytes() == content


@pytest.mark.parametrize("step", [4099, 65_537])
def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path, step: int) -> None:
    """Everything that is read is as it was written, or the whole is refused in one sentence."""
    fill(tmp_path / "good")
    content = (tmp_path / "good" / FILE_NAME).read_bytes()
    good = [(one.number, bytes(one.payload)) for one in _read(tmp_path / "good")]
    n_refused = 0
    for number, place in enumerate(range(17, len(content), step)):
        folder = tmp_path / f"flipped{number}"
        folder.mkdir()
        flipped = bytes([*content[:place], content[place] ^ 0x11, *content[place + 1 :]])
        (folder / FILE_NAME).write_bytes(flipped)
        try:
            state = begin(folder)
        except NplmStreamError as exc:
            check_sentence(exc)
            n_refused += 1
            continue
        before, after = state.take_stored()
        assert [(one.number, bytes(one.payload)) for one in before + after] == good
        state.close(clean=True)
    assert n_refused


def _read(folder: Path) -> list[StoredMessage]:
    store = StateStore(folder, INPUTS)
    found = list(store.messages())
    store.close()
    return found


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_truncated_file_is_refused_or_new(tmp_path: Path, share: float) -> None:
    fill(tmp_path)
    place = tmp_path / FILE_NAME
    os.truncate(place, int(share * place.stat().st_size))
    try:
        begin(tmp_path).close(clean=True)
    except NplmStreamError as exc:
        check_sentence(exc)
    else:
        assert share == 0.0  # an empty file is a run that begins


@pytest.mark.parametrize("name", ["point", "decided", "missing", "run", "clean"])
@pytest.mark.parametrize("value", ["[", "7", '"text"', '{"a": []}'])
def test_edited_values_are_refused(tmp_path: Path, name: str, value: str) -> None:
    fill(tmp_path)
    file = sqlite3.connect(tmp_path / FILE_NAME)
    file.execute("REPLACE INTO about VALUES (?, ?, 5)", (name, value))
    file.commit()
    file.close()
    with pytest.raises(ArtifactError, match="damaged"):
        begin(tmp_path)


def test_sources_come_in_the_order_of_their_last_message(tmp_path: Path) -> None:
    store = StateStore(tmp_path, INPUTS)
    store.write(sources={"z": 1, "b": 1, "a": 1})
    store.write(sources={"b": 2})
    store.close()
    store = StateStore(tmp_path, INPUTS)
    assert list(store.sources().items()) == [("z", 1), ("a", 1), ("b", 2)]
    store.close()


@pytest.mark.parametrize("version", [1, 99])
def test_other_version_is_refused(tmp_path: Path, version: int) -> None:
    store = StateStore(tmp_path, INPUTS)
    store.write(about={"format": version})
    store.close()
    with pytest.raises(MismatchError, match="another version; name another --state"):
        StateStore(tmp_path, INPUTS)


def test_place_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot keep the run's state in"):
        StateStore(tmp_path / "file", INPUTS)
    (tmp_path / "folder" / FILE_NAME).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="cannot keep the run's state in"):
        StateStore(tmp_path / "folder", INPUTS)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small disk in memory, where this process may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_read_only_disk_is_explained(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m") as disk:
        fill(disk / "state", 5)
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True)
        for folder in (disk / "state", disk / "new"):
            with pytest.raises(
                ArtifactError, match=r"cannot keep the run's state in .*[Rr]ead-only"
            ):
                StateStore(folder, INPUTS)


def test_full_disk_takes_all_or_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = StateStore(disk / "state", INPUTS)
        payload = os.urandom(50_000)

        def fill_up() -> int:
            for number in range(100):
                try:
                    store.write([StoredMessage(number, 0, b"h", payload)], {"a": number + 1})
                except sqlite3.Error:
                    return number
            return 100

        written = fill_up()
        assert 5 < written < 60
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        store.write([StoredMessage(written, 0, b"h", payload)], {"a": written + 1})
        store.close()
        store = StateStore(disk / "state", INPUTS)
        assert [one.number for one in store.messages()] == list(range(written + 1))
        assert store.sources() == {"a": written + 1}
        store.close()
