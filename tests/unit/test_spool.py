"""A producer's messages on its own disk."""

from pathlib import Path

import pytest

from engines.errors import ArtifactError
from stream.delivery.spool import FILE_NAME, Spool

FRAMES = [b"header", b"payload"]


def test_messages_are_kept_until_they_are_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "daq")
    spool.claim("daq")
    for seq in range(5):
        spool.add(seq, [b"header", bytes([seq])])
    spool.drop_below(3)
    spool.close()
    again = Spool(tmp_path)
    assert again.source == "daq"
    assert again.following == 5
    assert again.messages() == [(3, [b"header", b"\3"]), (4, [b"header", b"\4"])]
    again.drop_below(5)
    again.close()
    empty = Spool(tmp_path, "daq")
    assert empty.messages() == []
    assert empty.following == 5  # numbers are never used again
    empty.close()


def test_killed_producer_leaves_what_it_added(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "daq")
    spool.claim("daq")
    for seq in range(20):
        spool.add(seq, FRAMES)
        left = tmp_path / f"left{seq}"
        left.mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):  # what a kill would leave
            (left / name).write_bytes((tmp_path / "spool" / name).read_bytes())
        found = Spool(left)
        assert [number for number, _ in found.messages()] == list(range(seq + 1))
        assert found.following == seq + 1
        found.close()
    spool.close()


def test_spool_of_another_source_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "one")
    spool.claim("one")
    spool.close()
    with pytest.raises(ArtifactError, match="belongs to the source 'one'; it cannot serve 'two'"):
        Spool(tmp_path, "two")
    Spool(tmp_path, "one").close()


def test_second_producer_is_kept_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "daq")
    with pytest.raises(ArtifactError, match="another producer is using"):
        Spool(tmp_path, "daq")
    spool.close()


@pytest.mark.parametrize("content", [b"no database" * 1000, bytes(50_000)])
def test_damaged_spool_is_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot keep messages in") as refused:
        Spool(tmp_path, "daq")
    assert "\n" not in str(refused.value)


def read(folder: Path) -> tuple[int, list[tuple[int, list[bytes]]]] | None:
    """Return what is there; None if it is refused as it should be."""
    try:
        spool = Spool(folder, "daq")
        try:
            return spool.following, spool.messages()
        finally:
            spool.close()
    except ArtifactError as exc:
        return None if "cannot keep messages in" in str(exc) else (0, [])


@pytest.mark.parametrize("step", [1499, 32_771])
def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path, step: int) -> None:
    frames = [(seq, [b"header", bytes([seq]) * 3000]) for seq in range(20)]
    good = Spool(tmp_path / "good", "daq")
    good.claim("daq")
    for seq, both in frames:
        good.add(seq, both)
    good.close()
    content = (tmp_path / "good" / FILE_NAME).read_bytes()
    for number, place in enumerate(range(17, len(content), step)):
        folder = tmp_path / f"flipped{number}"
        folder.mkdir()
        flipped = bytes([*content[:place], content[place] ^ 0x11, *content[place + 1 :]])
        (folder / FILE_NAME).write_bytes(flipped)
        assert read(folder) in (None, (20, frames))


def test_number_that_is_there_already_changes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "daq")
    spool.add(0, FRAMES)
    with pytest.raises(ArtifactError, match="cannot keep messages in"):
        spool.add(0, [b"other", b"other"])
    assert spool.messages() == [(0, FRAMES)]
    spool.close()
