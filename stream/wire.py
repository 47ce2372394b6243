"""What a message's payload holds: events, or embeddings that another consumer made of them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engines.errors import MessageError
from engines.types import FloatArray
from stream.header import (
    DEFAULT_MAX_EVENTS,
    EVENT_ROW,
    MAX_EVENTS_PER_MESSAGE,
    Frame,
    Header,
    Reason,
    decode_header,
    pack_header,
)
from stream.payload import read_payload

__all__ = ["NO_KINEMATICS", "EmbeddingWire", "EventWire", "Wire", "encode_embeddings"]

#: The events of a block whose embeddings alone came.
NO_KINEMATICS: FloatArray = np.empty((0, *EVENT_ROW), dtype=np.float32)


class Wire(Protocol):
    """Reads messages of one kind.

    Attributes:
        row: shape of what a message holds of each event.
    """

    row: tuple[int, ...]

    def header(self, frames: Sequence[Frame], *, stored: bool = False) -> Header:
        """Return what the header says.

        Args:
            frames: header and payload.
            stored: whether it was accepted before, when more events may have been allowed.

        Raises:
            MessageError: if it breaks a rule of the wire.
        """

    def read(self, payload: Frame, header: Header, rows: FloatArray) -> None:
        """Write a payload to rows, (n, *row) float32.

        Raises:
            MessageError: if a value breaks a rule of the wire.
        """


class EventWire:
    """Reads events, (19, 3) each.

    Args:
        max_events: that a message may hold.
    """

    row: tuple[int, ...] = EVENT_ROW

    def __init__(self, max_events: int = DEFAULT_MAX_EVENTS) -> None:
        """Take no larger messages."""
        self._max_events = max_events

    def header(self, frames: Sequence[Frame], *, stored: bool = False) -> Header:
        """Return what the header says.

        Raises:
            MessageError: if it breaks a rule of the wire.
        """
        return decode_header(frames, max_events=_most(self._max_events, stored=stored))

    def read(self, payload: Frame, header: Header, rows: FloatArray) -> None:
        """Write a payload's events to rows.

        Raises:
            MessageError: if a number is not finite, or a pT is negative.
        """
        read_payload(payload, header.dtype, rows)


class EmbeddingWire:
    """Reads embeddings of one engine.

    Args:
        dim: numbers an event.
        fingerprint: of the engine.
        max_events: that a message may hold.
    """

    def __init__(self, dim: int, fingerprint: str, max_events: int = DEFAULT_MAX_EVENTS) -> None:
        """Read no other engine's."""
        self.row: tuple[int, ...] = (dim,)
        self._fingerprint, self._max_events = fingerprint, max_events

    def header(self, frames: Sequence[Frame], *, stored: bool = False) -> Header:
        """Return what the header says.

        Raises:
            MessageError: if it breaks a rule of the wire, or the embeddings are another engine's.
        """
        most = _most(self._max_events, stored=stored)
        return decode_header(frames, self.row, self._fingerprint, most)

    def read(self, payload: Frame, header: Header, rows: FloatArray) -> None:
        """Write a payload's embeddings to rows.

        Raises:
            MessageError: if a number is not finite.
        """
        rows[:] = np.frombuffer(payload, header.dtype).reshape(rows.shape)
        if not np.isfinite(rows).all():
            msg = f"embeddings must be finite; in message {header.seq} one is not"
            raise MessageError(Reason.NON_FINITE, msg)


def encode_embeddings(header: Header, embeddings: FloatArray, fingerprint: str) -> list[bytes]:
    """Return the message that carries a message's embeddings on: the same source, `seq` and time.

    Args:
        header: of the message that held the events.
        embeddings: (n, d) float32.
        fingerprint: of the engine.

    >>> header = Header("me", 3, 2, "<f2", 5, False)
    >>> frames = encode_embeddings(header, np.ones((2, 4), np.float32), "ab")
    >>> EmbeddingWire(4, "ab").header(frames)
    Header(source='me', seq=3, n=2, dtype='<f4', t_ns=5, end=False, engine='ab')
    """
    said = header._replace(dtype="<f4", engine=fingerprint)
    payload = np.ascontiguousarray(embeddings, dtype="<f4").tobytes()
    return [pack_header(said, embeddings.shape[1:]), payload]


def _most(max_events: int, *, stored: bool) -> int:
    return MAX_EVENTS_PER_MESSAGE if stored else max_events
