"""The toys done so far, on disk: a calibration that was killed continues from them.

A text file beside the reference. Its first line is a header with the key of the calibration; each
further line is one finished batch with a checksum, forced to the disk before the next is begun:

    {"nplm_stream_toys": 1, "key": "6f1c..."}
    {"first": 0, "t": [[101.2, 96.5], [88.0, 91.3]], "checksum": "9a0d..."}

JSON writes the shortest decimal that reads back as the same float, so no bit of t is lost.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from engines.errors import ArtifactError
from engines.types import AnyArray, Float64Array

__all__ = ["ToyJournal", "journal_key", "journal_path"]

_LOG = logging.getLogger(__name__)
_MARK = "nplm_stream_toys"
_FORMAT = 1


def journal_path(reference: Path) -> Path:
    """Return where the toys of a reference that is being made are kept.

    >>> journal_path(Path("runs/d4.ref")).as_posix()
    'runs/d4.ref.toys'
    """
    return reference.with_name(f"{reference.name}.toys")


def journal_key(settings: Mapping[str, Any], *arrays: AnyArray) -> str:
    """Return the SHA-256 of everything that a toy's t depends on.

    Args:
        settings: of the calibration, of kinds that JSON holds; the order does not matter.
        arrays: such as the embeddings, of any shape and number type.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ToyJournal:
    """Finished batches of toys; `open` makes one.

    Attributes:
        path: the file, or None where the batches are kept in memory only.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        """Hold no batch yet, and no file."""
        self.path = path
        self._key = key
        self._file: BinaryIO | None = None
        self._batches: dict[int, Float64Array] = {}

    @classmethod
    def open(cls, path: Path | None, key: str) -> Self:
        """Open the journal of the calibration `key`, with what it already holds.

        A line that was being written when its writer was killed is dropped. Batches of another
        calibration are dropped with a warning.

        Raises:
            ArtifactError: if the file cannot be written, is in use by another process, is damaged,
                or is no journal at all.
        """
        journal = cls(path, key)
        if path is not None:
            journal._file = _locked(path)
            try:
                journal._read(path, journal._file)
            except BaseException:
                journal.close()
                raise
        return journal

    @property
    def n_toys(self) -> int:
        """Toys held."""
        return sum(map(len, self._batches.values()))

    def get(self, first: int, n_toys: int) -> Float64Array | None:
        """Return t of the batch from toy `first` on, (n_toys, n_columns), if it is held."""
        t = self._batches.get(first)
        return t if t is not None and len(t) == n_toys else None

    def append(self, first: int, t: Float64Array) -> None:
        """Keep t of a batch, (n_toys, n_columns), finite; it is on the disk on return.

        Raises:
            ArtifactError: if the file cannot be written.
        """
        if self._file is not None and self.path is not None:
            record = {"first": first, "t": t.tolist()}
            line = {**record, "checksum": _checksum(self._key, record)}
            _write(self._file, self.path, line)
        self._batches[first] = t

    def discard(self) -> None:
        """Remove the file, once the reference that the toys were for is written."""
        if self.path is not None and self._file is not None:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Let go of the file, which stays."""
        self.close()

    def _read(self, path: Path, file: BinaryIO) -> None:
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        header = {_MARK: _FORMAT, "key": self._key}
        try:
            same = _same_header(lines, torn=data[whole:], header=header)
            if same:
                self._batches = dict(_parsed(self._key, line) for line in lines[1:])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            msg = f"{path} is damaged or is no journal of toys; remove it to run all toys again"
            raise ArtifactError(msg) from exc
        if lines and not same:
            _LOG.warning(
                "%s holds toys of other settings, events or versions; they are dropped and all "
                "toys run again",
                path,
            )
        file.truncate(whole if same else 0)
        if not same:
            _write(file, path, header)


def _same_header(lines: list[bytes], *, torn: bytes, header: dict[str, Any]) -> bool:
    """Return whether the file goes on with this calibration; raise if it is no journal."""
    if lines:
        found = json.loads(lines[0])
        if not {_MARK, "key"} <= found.keys():
            raise ValueError
        return bool(found == header)
    start = json.dumps(header).partition(":")[0].encode()
    if not (torn.startswith(start) or start.startswith(torn)):
        raise ValueError
    return False


def _parsed(key: str, line: bytes) -> tuple[int, Float64Array]:
    record = json.loads(line)
    if record.pop("checksum") != _checksum(key, record):
        raise ValueError
    return record["first"], np.array(record["t"], np.float64)


def _checksum(key: str, record: dict[str, Any]) -> str:
    text = f"{key}\n{json.dumps(record, sort_keys=True, allow_nan=False)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(file: BinaryIO, path: Path, line: dict[str, Any]) -> None:
    try:
        file.write(f"{json.dumps(line)}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    except OSError as exc:
        # What is left in the buffer would fail again on closing, and hide this error.
        with contextlib.suppress(OSError):
            file.close()
        msg = f"cannot write the journal of toys {path} ({exc.strerror}); make room and run again"
        raise ArtifactError(msg) from exc


def _locked(path: Path) -> BinaryIO:
    """Open the file for this process alone."""
    while True:
        try:
            file = path.open("a+b")
        except OSError as exc:
            msg = f"cannot write the journal of toys {path} ({exc.strerror}); choose another folder"
            raise ArtifactError(msg) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, the process that held it may have removed it.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BlockingIOError as exc:
            file.close()
            msg = f"another calibration is writing {path}; wait for it, or give another --output"
            raise ArtifactError(msg) from exc
        except OSError as exc:
            file.close()
            msg = f"cannot lock the journal of toys {path} ({exc.strerror}); use a local disk"
            raise ArtifactError(msg) from exc
        file.close()
