"""Checksums of rows in a file: SQLite's pages have none, and a bad disk must not be believed."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["opened", "sealed"]


def sealed(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row with the checksum of its values, bytes or what has a text, at the end.

    >>> sealed(("name", 7))
    ('name', 7, 2206387401)
    """
    crc = 0
    for value in row:
        is_bytes = isinstance(value, bytes | bytearray | memoryview)
        crc = zlib.crc32(value if is_bytes else str(value).encode(), crc)
    return *row, crc


def opened(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield sealed rows without their checksum.

    Raises:
        ValueError: if one is not as it was written.
    """
    for row in rows:
        if row != sealed(row[:-1]):
            msg = "what is written there is damaged"
            raise ValueError(msg)
        yield row[:-1]
