"""The finished chunks of a simulation, in a folder beside its output.

A chunk is written under another name and then renamed, so that a file there is whole. A simulation
that was stopped continues from them; the folder is removed once the output is written.
"""

import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from engines.errors import ArtifactError, MismatchError
from engines.types import AnyArray

__all__ = ["ChunkStore", "read_chunk", "write_chunk"]

_SETTINGS = "settings.json"
_LOCK = "lock"


class ChunkStore:
    """The folder of finished chunks, held by one process.

    Args:
        output: the file that the chunks are for.
        settings: of the simulation, JSON-able.
        fresh: drop what is there.

    Raises:
        MismatchError: if the folder holds chunks of other settings.
        ArtifactError: if the folder cannot be written, or another simulation uses it.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Make the folder, or take it over with what it holds."""
        self.folder = output.with_name(f"{output.name}.parts")
        self._output = output
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = (self.folder / _LOCK).open("wb")
        except OSError as exc:
            msg = f"cannot write {self.folder} ({exc.strerror}); choose a folder that is writable"
            raise ArtifactError(msg) from exc
        try:
            _hold(self._lock, self.folder)
            if fresh:
                self._empty()
            self._compare(json.loads(json.dumps(settings)))
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Let go of the folder, which stays."""
        self._lock.close()

    def path(self, name: str) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"{name}.npz"

    def has(self, name: str) -> bool:
        """Whether a chunk is finished."""
        return self.path(name).exists()

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix in (".npz", ".part", ".json"):
                path.unlink()

    def _compare(self, settings: dict[str, Any]) -> None:
        path = self.folder / _SETTINGS
        if not path.exists():
            _write_atomically(path, json.dumps(settings).encode())
            return
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            msg = f"{path} is damaged; give --fresh to simulate everything again"
            raise ArtifactError(msg) from exc
        other = [key for key in settings if found.get(key) != settings[key]]
        if other:
            key = other[0]
            msg = (
                f"{self.folder} holds chunks of a simulation with other {', '.join(other)} "
                f"({_short(found.get(key))}, now {_short(settings[key])}); repeat its options to "
                "continue it, or give --fresh to drop it"
            )
            raise MismatchError(msg)


def write_chunk(path: Path, arrays: Mapping[str, AnyArray]) -> None:
    """Write a chunk; it is on the disk, whole, on return.

    Raises:
        ArtifactError: if it cannot be written; no part of it stays.
    """
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as exc:
        _remove(part)
        raise ArtifactError(_cannot_write(path, exc)) from exc


def read_chunk(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of a chunk by name.

    Raises:
        ArtifactError: if the file is damaged.
    """
    try:
        # Opened here, since NumPy leaves a file open that is no archive.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        msg = f"{path} is damaged; remove it and run the same command again"
        raise ArtifactError(msg) from exc


def _hold(lock: BinaryIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        msg = f"another simulation is writing {folder}; wait for it, or give another --output"
        raise ArtifactError(msg) from exc


def _write_atomically(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as exc:
        _remove(part)
        raise ArtifactError(_cannot_write(path, exc)) from exc


def _cannot_write(path: Path, exc: OSError) -> str:
    return f"cannot write {path} ({exc.strerror}); make room"


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
