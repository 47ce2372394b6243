"""Wire version 1: events as two ZeroMQ frames that any language can write in ten lines.

1. header, a msgpack map: `v` 1, `source` str, `seq` uint64 (per source, +1 per message), `n`
   events, `dtype` "<f4" or "<f2", `shape` [n, 19, 3], `t_ns` int (unix ns at production), optional
   `end` (true: the source is done; such a message may hold no events). Other keys are ignored.
2. payload: the raw little-endian C-order array, n * 19 * 3 * itemsize bytes.

A message that breaks a rule raises `MessageError`, whose `reason` is one of `REASONS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from engines.errors import MessageError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray
from stream.header import WIRE_VERSION, Frame, Header, Reason, check_header, decode_header

__all__ = ["Message", "decode_message", "encode_message", "too_large"]


@dataclass(frozen=True, eq=False)
class Message:
    """One decoded message.

    Attributes:
        header: what it says of itself.
        particles: (n, 19, 3) float32, pT in GeV.
    """

    header: Header
    particles: FloatArray

    def __len__(self) -> int:
        """Return the number of events."""
        return self.header.n


def encode_message(
    source: str,
    seq: int,
    t_ns: int,
    particles: AnyArray,
    *,
    dtype: str = "<f4",
    end: bool = False,
) -> list[bytes]:
    """Return the two frames of a message.

    Args:
        source: name of the producer, new for each run.
        seq: 0 for the first message of the source, then +1 each.
        t_ns: production time, unix nanoseconds.
        particles: (n, 19, 3), pT in GeV; n may be 0 if `end`.
        dtype: "<f4", or "<f2" for half the bytes at three digits.
        end: say that the source is done.

    Raises:
        MessageError: if the message would break a rule of the wire.

    >>> header, payload = encode_message("me", 0, 0, np.zeros((2, 19, 3), np.float32))
    >>> len(payload) == 2 * 19 * 3 * 4
    True
    """
    header: dict[str, Any] = {
        "v": WIRE_VERSION,
        "source": source,
        "seq": int(seq),
        "n": len(particles),
        "dtype": dtype,
        "shape": list(particles.shape),
        "t_ns": int(t_ns),
    }
    if end:
        header["end"] = True
    check_header(header)
    with np.errstate(over="ignore"):
        payload = np.ascontiguousarray(particles, dtype=dtype)
    _check_values(payload)
    return [msgpack.packb(header), payload.tobytes()]


def decode_message(frames: Sequence[Frame]) -> Message:
    """Return the message that two frames hold, with memory of its own.

    Raises:
        MessageError: if the frames break a rule of the wire; never anything else.

    >>> frames = encode_message("me", 7, 0, np.ones((2, 19, 3), np.float32))
    >>> message = decode_message(frames)
    >>> message.header.seq, message.particles.shape
    (7, (2, 19, 3))
    """
    from stream.payload import read_payload

    header = decode_header(frames)
    particles = np.empty((header.n, N_OBJECTS, N_FEATURES), dtype=np.float32)
    read_payload(frames[1], header.dtype, particles)
    return Message(header, particles)


def too_large(seq: int, frames: Sequence[Frame], max_bytes: int) -> str:
    """Return what to say of a message that its consumer would not take; empty if it would.

    Args:
        seq: its number.
        frames: header and payload.
        max_bytes: that its events may have as float32, also where they are float16; 0 for any.
    """
    if 2 * memoryview(frames[1]).nbytes <= max_bytes or not max_bytes:
        return ""
    n, most = decode_header(frames).n, max_bytes // (4 * N_OBJECTS * N_FEATURES)
    if n <= most:
        return ""
    return (
        f"message {seq} has {n} events; the consumer takes {most}; send smaller messages "
        "(stream-producer --batch), or start the consumer with a larger --max-message-events"
    )


def _check_values(particles: AnyArray) -> None:
    finite = np.isfinite(particles)
    if not finite.all():
        event = int(np.argmin(finite.all(axis=(1, 2))))
        msg = f"events must be finite as {particles.dtype}; event {event} of the message is not"
        raise MessageError(Reason.NON_FINITE, msg)
    pt = particles[:, :, 0]
    if len(pt) and pt.min() < 0:
        event = int(np.argmax((pt < 0).any(axis=1)))
        msg = f"pT must be non-negative; in event {event} of the message it is not"
        raise MessageError(Reason.NEGATIVE_PT, msg)
