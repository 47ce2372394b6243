"""A producer's messages on its own disk until they are acknowledged: it may be killed too."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engines.errors import ArtifactError
from stream.sealed import opened, sealed

__all__ = ["FILE_NAME", "Spool"]

FILE_NAME = "spool.sqlite"
_SETTINGS = (
    "page_size = 32768",
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 67108864",
)
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT, crc INTEGER) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS messages (seq INTEGER PRIMARY KEY, header BLOB, "
    "payload BLOB, crc INTEGER)",
)


class Spool:
    """The messages that a source has sent and no consumer has acknowledged.

    Used by several threads, one at a time: the caller holds a lock.

    Args:
        folder: where; made if missing. It belongs to one source.
        source: the source's name; empty takes the name that the folder belongs to.

    Raises:
        ArtifactError: if it cannot be used, belongs to another source, or another process is at it.

    Attributes:
        source: whose it is; empty if it is new and none was given.
        following: the `seq` of the next new message.
    """

    def __init__(self, folder: Path, source: str = "") -> None:
        """Open it, or begin it."""
        self.path = folder / FILE_NAME
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                self.path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                for statement in (*(f"PRAGMA {setting}" for setting in _SETTINGS), *_SCHEMA):
                    self._file.execute(statement)
                self.source = self._read("source") or source
                self.following = int(self._read("following") or 0)
        except BaseException:
            self._file.close()
            raise
        if source and self.source != source:
            self._file.close()
            msg = (
                f"{self.path} belongs to the source {self.source!r}; it cannot serve {source!r}; "
                "name another --spool, or go on with its source"
            )
            raise ArtifactError(msg)

    def claim(self, source: str) -> None:
        """Give the spool to a source.

        Raises:
            ArtifactError: if it cannot be written.
        """
        self.source = source
        with self._explained():
            self._write("source", source)

    def messages(self) -> list[tuple[int, list[bytes]]]:
        """Return `seq` and frames of what is kept, in order.

        Raises:
            ArtifactError: if it is damaged.
        """
        query = "SELECT seq, header, payload, crc FROM messages ORDER BY seq"
        with self._explained():
            rows = opened(self._file.execute(query))
            return [(seq, [header, payload]) for seq, header, payload in rows]

    def add(self, seq: int, frames: Sequence[bytes]) -> None:
        """Keep a message; it is on the disk on return.

        Raises:
            ArtifactError: if it cannot be written.
        """
        with self._explained(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            row = sealed((seq, *frames))
            self._file.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", row)
            self._write("following", str(seq + 1))
        self.following = seq + 1

    def drop_below(self, seq: int) -> None:
        """Forget messages; one that is there again after a crash is acknowledged again.

        Raises:
            ArtifactError: if it cannot be written.
        """
        with self._explained():
            self._file.execute("DELETE FROM messages WHERE seq < ?", (seq,))

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def _read(self, name: str) -> str:
        query = "SELECT name, value, crc FROM about WHERE name = ?"
        for _, value in opened(self._file.execute(query, (name,))):
            return str(value)
        return ""

    def _write(self, name: str, value: str) -> None:
        self._file.execute("REPLACE INTO about VALUES (?, ?, ?)", sealed((name, value)))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as exc:
            if "locked" in str(exc):
                msg = f"another producer is using {self.path}; stop it, or name another --spool"
            else:
                msg = (
                    f"cannot keep messages in {self.path} ({exc}); check the folder and its free "
                    "space, or name another --spool"
                )
            raise ArtifactError(msg) from exc
