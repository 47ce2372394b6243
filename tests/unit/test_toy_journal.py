"""The journal of toys: nothing finished is lost, nothing doubtful is believed."""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ArtifactError
from engines.toy_journal import ToyJournal, journal_key

BATCHES = {
    0: np.array([[0.1, 1 / 3], [5e-324, -0.0]]),
    2: np.array([[1.7976931348623157e308, 98.3], [np.pi * 1e-9, 2.0**53 + 2]]),
    4: np.array([[12.5, 80.0]]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "d4.ref.toys"
    with ToyJournal.open(place, "key") as journal:
        for first, t in BATCHES.items():
            journal.append(first, t)
    return place


def held(journal: ToyJournal) -> list[int]:
    firsts = [first for first, t in BATCHES.items() if journal.get(first, len(t)) is not None]
    for first in firsts:
        t = journal.get(first, len(BATCHES[first]))
        assert t is not None
        assert t.tobytes() == BATCHES[first].tobytes()
    return firsts


def test_every_bit_comes_back(path: Path) -> None:
    with ToyJournal.open(path, "key") as journal:
        assert held(journal) == [0, 2, 4]
        assert journal.n_toys == 5


def test_batch_of_another_length_is_not_taken(path: Path) -> None:
    with ToyJournal.open(path, "key") as journal:
        assert journal.get(4, 2) is None
        journal.append(4, np.ones((2, 2)))
    with ToyJournal.open(path, "key") as journal:
        assert journal.get(4, 1) is None
        np.testing.assert_array_equal(journal.get(4, 2), np.ones((2, 2)))


def test_a_file_cut_anywhere_keeps_its_whole_lines(path: Path) -> None:
    whole = path.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in sorted({*range(0, len(whole), 9), *ends, *(end + 1 for end in ends)}):
        path.write_bytes(whole[:length])
        with ToyJournal.open(path, "key") as journal:
            n_batches = max(0, whole[:length].count(b"\n") - 1)
            assert held(journal) == [0, 2, 4][:n_batches]
            journal.append(4, BATCHES[4])
        with ToyJournal.open(path, "key") as journal:
            assert held(journal) == sorted({*[0, 2, 4][:n_batches], 4})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"98.3", b"98.4"),
        (b'"first": 2', b'"first": 6'),
        (b'"checksum"', b'"check"'),
        (b'{"first": 2', b'["first", 2'),
        (b'"nplm_stream_toys": 1, ', b""),
        (b'{"nplm_stream_toys": 1, "key": "key"}\n', b"\n"),
        (b'{"nplm_stream_toys": 1, "key": "key"}\n', b"[1]\n"),
    ],
)
def test_altered_file_is_refused_and_left_alone(path: Path, old: bytes, new: bytes) -> None:
    altered = path.read_bytes().replace(old, new, 1)
    path.write_bytes(altered)
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"d4\.ref\.toys is damaged or is no journal"):
            ToyJournal.open(path, "key")
    assert path.read_bytes() == altered


@pytest.mark.parametrize("content", [b"x", b'{"a": 1}', b"pt,eta\n1,2\n", b"\0" * 40])
def test_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is no journal of toys"):
        ToyJournal.open(path, "key")
    assert path.read_bytes() == content


def test_toys_of_other_settings_are_dropped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ToyJournal.open(path, "other") as journal:
        assert journal.n_toys == 0
        journal.append(2, BATCHES[2])
    assert "toys of other settings, events or versions" in caplog.text
    with ToyJournal.open(path, "other") as journal:
        assert held(journal) == [2]


def test_second_writer_is_refused(path: Path) -> None:
    with ToyJournal.open(path, "key") as journal:
        with pytest.raises(ArtifactError, match="another calibration is writing"):
            ToyJournal.open(path, "other")
        assert journal.n_toys == 5
    with ToyJournal.open(path, "key") as journal:
        assert held(journal) == [0, 2, 4]


def test_discarded_file_is_gone(path: Path) -> None:
    ToyJournal.open(path, "key").discard()
    assert list(path.parent.iterdir()) == []
    with ToyJournal.open(path, "key") as journal:
        assert journal.n_toys == 0


def test_journal_without_a_file_holds_the_batches() -> None:
    journal = ToyJournal.open(None, "key")
    for first, t in BATCHES.items():
        journal.append(first, t)
    assert held(journal) == [0, 2, 4]
    journal.discard()


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write .* \(No such file or directory\)"):
        ToyJournal.open(tmp_path / "absent" / "d4.ref.toys", "key")


def test_full_disk_is_one_sentence_and_loses_nothing(path: Path) -> None:
    journal = ToyJournal.open(path, "key")
    with full_disk(path.stat().st_size + 10), pytest.raises(ArtifactError, match="make room"):
        journal.append(6, np.ones((1, 2)))
    journal.close()
    with ToyJournal.open(path, "key") as journal:
        assert held(journal) == [0, 2, 4]
        assert journal.get(6, 1) is None


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_key_covers_settings_and_arrays() -> None:
    settings = {"seed": 0, "sigma": None, "window": "count"}
    embeddings = np.arange(6.0).reshape(3, 2)
    key = journal_key(settings, embeddings)
    assert key == journal_key(dict(reversed(settings.items())), embeddings.copy())
    assert key == journal_key(settings, np.asfortranarray(embeddings))
    changed = [
        journal_key({**settings, "seed": 1}, embeddings),
        journal_key(settings, embeddings + 1e-16 * np.eye(3, 2)),
        journal_key(settings, embeddings.reshape(2, 3)),
        journal_key(settings, embeddings.view(np.int64)),
        journal_key(settings),
    ]
    assert len({key, *changed}) == 6
