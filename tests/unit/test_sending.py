"""Names of replays: a restart has the same one, other events another."""

import argparse
from pathlib import Path

from engines.events import EventRange
from stream.sending import _lasting_name


def name(file: Path, file_part: tuple[int, ...] = (), **changed: object) -> str:
    options = {
        "file": EventRange(file, *file_part), "inject": None, "source": "daq", "spool": None,
        "batch": 256, "dtype": "f4", "events": None, "fraction": None, "after": 0, "seed": 0,
        "loop": False,
    }  # fmt: skip
    return _lasting_name(argparse.Namespace(**(options | changed)))


def test_name_belongs_to_what_is_replayed(tmp_path: Path) -> None:
    """A file of the same name in another folder, or written anew in place, holds other events."""
    (tmp_path / "day2").mkdir()
    file, namesake = tmp_path / "run.h5", tmp_path / "day2" / "run.h5"
    file.write_bytes(bytes(5_000_000))
    namesake.write_bytes(bytes(4_999_999) + b"x")
    first = name(file)
    assert first == name(file)
    assert first.startswith("daq#")
    others = {
        name(namesake),
        name(file, batch=128),
        name(file, inject=EventRange(namesake)),
        name(file, file_part=(0, 10)),
    }
    file.write_bytes(bytes(5_000_001))
    others.add(name(file))
    assert len(others - {first}) == 5


def test_same_file_elsewhere_is_the_same_replay(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for folder in (tmp_path, tmp_path / "copy"):
        (folder / "run.h5").write_bytes(b"the same events")
    assert name(tmp_path / "run.h5") == name(tmp_path / "copy" / "run.h5")
