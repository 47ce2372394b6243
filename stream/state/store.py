"""One SQLite file that holds a run; what is written together is there together, or not at all.

SQLite's write-ahead log does what is easily got wrong by hand: order, a torn end after a kill or a
power cut. Every transaction is forced to the disk (`synchronous=FULL`). Each row has a checksum of
its own, as SQLite's pages have none: a run must not go on from what a bad disk made of it.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engines.errors import ArtifactError, MismatchError
from stream.header import Frame
from stream.sealed import opened, sealed

__all__ = ["FILE_NAME", "FORGET", "StateStore", "StoredMessage"]

FILE_NAME = "run.sqlite"
#: In place of a source's next `seq`: it is known no more.
FORGET = -1
_FORMAT = 2
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER) WITHOUT ROWID;
CREATE TABLE sources (source TEXT PRIMARY KEY, next TEXT NOT NULL, crc INTEGER);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, n_missing INTEGER NOT NULL, header BLOB NOT NULL,
    payload BLOB NOT NULL, crc INTEGER
);
"""
_SETTINGS = (
    # Messages are tens of kilobytes; larger pages mean fewer of them.
    "page_size = 32768",
    # Held for as long as the consumer lives: two consumers must not share a state.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 67108864",
)


class StoredMessage(NamedTuple):
    """An accepted message as it came.

    Attributes:
        number: its place among all that the run accepted.
        n_missing: messages of its source that went missing just before it.
        header, payload: its two frames.
    """

    number: int
    n_missing: int
    header: Frame
    payload: Frame


class StateStore:
    """The file of one run.

    Args:
        folder: where it lies; made if missing.
        inputs: what the run's decisions depend on, of kinds that JSON holds, by name.

    Raises:
        ArtifactError: if it cannot be read or written, is damaged, or another consumer holds it.
        MismatchError: if it holds a run of other inputs; names those that differ.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Open the file, or begin it."""
        self.path = folder / FILE_NAME
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            # Opened here, used by the writer's thread alone.
            self._file = sqlite3.connect(
                self.path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                for setting in _SETTINGS:
                    self._file.execute(f"PRAGMA {setting}")
                self._begin(json.loads(json.dumps(dict(inputs))))
        except BaseException:
            self._file.close()
            raise

    def read(self, name: str) -> Any:  # noqa: ANN401 - JSON holds any type
        """Return what was last written under a name; None if nothing was.

        Raises:
            ArtifactError: if it is damaged.
        """
        for row in self._rows("SELECT name, value, crc FROM about WHERE name = ?", name):
            return json.loads(row[1])
        return None

    def sources(self) -> dict[str, int]:
        """Return, for every source, the `seq` that is to come next; the last written come last.

        Raises:
            ArtifactError: if it is damaged.
        """
        # What is replaced becomes the last row.
        rows = self._rows("SELECT source, next, crc FROM sources ORDER BY rowid")
        return {source: int(following) for source, following in rows}

    def messages(self) -> Iterator[StoredMessage]:
        """Yield the messages that are kept, in order.

        Raises:
            ArtifactError: if one is damaged.
        """
        rows = "SELECT number, n_missing, header, payload, crc FROM messages ORDER BY number"
        for row in self._rows(rows):
            yield StoredMessage(*row)

    def write(
        self,
        messages: Sequence[StoredMessage] = (),
        sources: Mapping[str, int] | None = None,
        about: Mapping[str, Any] | None = None,
        first_needed: int = 0,
    ) -> None:
        """Write everything given, or nothing; it is on the disk on return.

        Args:
            messages: accepted since the last time.
            sources: the `seq` to come next, of those that have moved on, or `FORGET`.
            about: values by name, which JSON can hold.
            first_needed: messages of lower numbers are forgotten.

        Raises:
            sqlite3.Error: if the disk is full, gone or read-only; nothing was written then.
        """
        known = sources or {}
        numbers = ((name, str(following)) for name, following in known.items())
        gone = [(name,) for name, following in known.items() if following == FORGET]
        values = ((name, json.dumps(value)) for name, value in (about or {}).items())
        with self._transaction() as run:
            # Replaced where a write that was said to fail had come through.
            run.executemany("REPLACE INTO messages VALUES (?, ?, ?, ?, ?)", map(sealed, messages))
            run.executemany("REPLACE INTO sources VALUES (?, ?, ?)", map(sealed, numbers))
            run.executemany("DELETE FROM sources WHERE source = ?", gone)
            run.executemany("REPLACE INTO about VALUES (?, ?, ?)", map(sealed, values))
            run.execute("DELETE FROM messages WHERE number < ?", (first_needed,))

    def reason(self, exc: Exception) -> str:
        """Return why the disk failed; SQLite calls one that became read-only an I/O error."""
        for place in (self.path, self.path.parent):
            if os.access(place, os.F_OK) and not os.access(place, os.W_OK):
                disk = os.statvfs(place).f_flag & os.ST_RDONLY
                return f"{'the disk' if disk else place} is read-only"
        return str(exc)

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield self._file
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def _begin(self, inputs: dict[str, Any]) -> None:
        with self._transaction() as run:
            if run.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    run.execute(statement)
                values = (("format", json.dumps(_FORMAT)), ("inputs", json.dumps(inputs)))
                run.executemany("INSERT INTO about VALUES (?, ?, ?)", map(sealed, values))
        found = self.read("inputs")
        if self.read("format") != _FORMAT or not isinstance(found, dict):
            msg = f"{self.path} is of another version; name another --state"
            raise MismatchError(msg)
        different = sorted(key for key in {**found, **inputs} if found.get(key) != inputs.get(key))
        if different:
            name = different[0]
            msg = (
                f"{self.path} holds a run with another {', '.join(different)} (its {name}: "
                f"{found.get(name)}; now: {inputs.get(name)}); go on with those, or name another "
                "--state to begin a run of its own"
            )
            raise MismatchError(msg)

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield rows without their last column, their checksum."""
        with self._explained():
            yield from opened(self._file.execute(query, values))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except MismatchError:
            raise
        except (sqlite3.Error, OSError, ValueError) as exc:
            if "locked" in str(exc):
                msg = f"another consumer is using {self.path}; stop it, or name another --state"
            elif "malformed" in str(exc) or "not a database" in str(exc):
                msg = (
                    f"the run's state in {self.path} is damaged ({self.reason(exc)}); put a copy "
                    "of it back, or begin a new run with another --state"
                )
            else:
                msg = (
                    f"cannot keep the run's state in {self.path} ({self.reason(exc)}); check the "
                    "folder and its free space, or name another --state"
                )
            raise ArtifactError(msg) from exc
