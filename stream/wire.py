"""What a message's payload holds: events, or embeddings that another consumer made of them."""

from collections.abc import Sequence
from typing import Protocol

import msgpack
import numpy as np

from engines.errors import MessageError
from engines.types import FloatArray
from stream.header import EVENT_ROW, WIRE_VERSION, Frame, Header, Reason, decode_header
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

    def header(self, frames: Sequence[Frame]) -> Header:
        """Return what the header says.

        Raises:
            MessageError: if it breaks a rule of the wire.
        """

    def read(self, payload: Frame, header: Header, rows: FloatArray) -> None:
        """Write a payload to rows, (n, *row) float32.

        Raises:
            MessageError: if a value breaks a rule of the wire.
        """


class EventWire:
    """Reads events, (19, 3) each."""

    row: tuple[int, ...] = EVENT_ROW

    def header(self, frames: Sequence[Frame]) -> Header:
        """Return what the header says.

        Raises:
            MessageError: if it breaks a rule of the wire.
        """
        return decode_header(frames)

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
    """

    def __init__(self, dim: int, fingerprint: str) -> None:
        """Read no other engine's."""
        self.row: tuple[int, ...] = (dim,)
        self._fingerprint = fingerprint

    def header(self, frames: Sequence[Frame]) -> Header:
        """Return what the header says.

        Raises:
            MessageError: if it breaks a rule of the wire, or the embeddings are another engine's.
        """
        return decode_header(frames, self.row, self._fingerprint)

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
    fields = {
        "v": WIRE_VERSION,
        "source": header.source,
        "seq": header.seq,
        "n": header.n,
        "dtype": "<f4",
        "shape": [header.n, *embeddings.shape[1:]],
        "t_ns": header.t_ns,
        "engine": fingerprint,
    }
    if header.end:
        fields["end"] = True
    payload = np.ascontiguousarray(embeddings, dtype="<f4").tobytes()
    return [msgpack.packb(fields), payload]
