"""Wire version 1: events as two ZeroMQ frames that any language can write in ten lines.

1. header, a msgpack map: `v` 1, `source` str, `seq` uint64 (per source, +1 per message), `n`
   events, `dtype` "<f4" or "<f2", `shape` [n, 19, 3], `t_ns` int (unix ns at production), optional
   `end` (true: the source is done; such a message may hold no events). Other keys are ignored.
2. payload: the raw little-endian C-order array, n * 19 * 3 * itemsize bytes.

A message that breaks a rule raises `MessageError`, whose `reason` is one of `REASONS`.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any, NamedTuple, TypeAlias

import msgpack
import numpy as np

from engines.errors import MessageError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray

__all__ = [
    "DEFAULT_MAX_EVENTS",
    "DTYPES",
    "EVENT_ROW",
    "MAX_EVENTS_PER_MESSAGE",
    "REASONS",
    "WIRE_VERSION",
    "Frame",
    "Header",
    "Message",
    "Reason",
    "decode_header",
    "decode_message",
    "encode_message",
    "frame_limit",
]

WIRE_VERSION = 1
#: Shape of one event.
EVENT_ROW = (N_OBJECTS, N_FEATURES)
_ITEM_BYTES = {"<f4": 4, "<f2": 2}
DTYPES = tuple(_ITEM_BYTES)
MAX_EVENTS_PER_MESSAGE = 65_536
#: What a consumer takes unless told otherwise, 3.7 MB: what may queue is so many times the peers'.
DEFAULT_MAX_EVENTS = 16_384
_MAX_HEADER_BYTES = 4096
_MAX_SOURCE_LENGTH = 256
_HEADER_TYPES = {"source": str, "seq": int, "n": int, "dtype": str, "shape": list, "t_ns": int}
_UNPACK_LIMITS = {
    "max_str_len": 1024,
    "max_bin_len": 1024,
    "max_array_len": 16,
    "max_map_len": 32,
    "max_ext_len": 64,
}

Frame: TypeAlias = bytes | bytearray | memoryview


class Reason(StrEnum):
    """Why a message was refused; short, so that it can label a counter."""

    FRAMES = "frames"
    HEADER_SIZE = "header-size"
    HEADER_FORMAT = "header-format"
    VERSION = "version"
    MISSING_KEY = "missing-key"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    DTYPE = "dtype"
    SHAPE = "shape"
    TOO_MANY_EVENTS = "too-many-events"
    EMPTY = "empty"
    PAYLOAD_SIZE = "payload-size"
    NON_FINITE = "non-finite"
    NEGATIVE_PT = "negative-pt"
    ENGINE = "engine"
    REPEATED = "repeated"
    LEAP = "leap"
    TOO_MANY_SOURCES = "too-many-sources"
    CLOCK = "clock"
    EMBEDDING = "embedding"


#: Every reason there is, as plain strings.
REASONS: tuple[str, ...] = tuple(reason.value for reason in Reason)


class Header(NamedTuple):
    """What the first frame says.

    Attributes:
        source: who produced the message.
        seq: its number within the source.
        n: events in it.
        dtype: of the payload, one of `DTYPES`.
        t_ns: when it was produced, unix nanoseconds.
        end: whether the source is done.
        engine: fingerprint of what embedded the events; empty for events themselves.
    """

    source: str
    seq: int
    n: int
    dtype: str
    t_ns: int
    end: bool
    engine: str = ""


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
    _check_header(header)
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


def decode_header(frames: Sequence[Frame], row: tuple[int, ...] = EVENT_ROW) -> Header:
    """Return what the header says, once the payload is known to have the size that it promises.

    Args:
        frames: header and payload.
        row: shape of what the payload holds of each event.

    Raises:
        MessageError: if a rule of the wire is broken; the payload's values are not looked at.
    """
    if len(frames) != 2:
        msg = f"a message must have 2 frames, header and payload; got {len(frames)}"
        raise MessageError(Reason.FRAMES, msg)
    header = _unpack(frames[0])
    _check_header(header, row)
    n, dtype = header["n"], header["dtype"]
    wanted = n * prod(row) * _ITEM_BYTES[dtype]
    got = memoryview(frames[1]).nbytes
    if got != wanted:
        msg = f"the payload of {n} events as {dtype} must have {wanted} bytes; got {got}"
        raise MessageError(Reason.PAYLOAD_SIZE, msg)
    source, seq, t_ns = header["source"], header["seq"], header["t_ns"]
    return Header(source, seq, n, dtype, t_ns, header.get("end", False), header.get("engine", ""))


def frame_limit(n_events: int) -> int:
    """Return the bytes of the largest frame of a message of so many events."""
    return max(_MAX_HEADER_BYTES, n_events * N_OBJECTS * N_FEATURES * 4)


def _unpack(frame: Frame) -> dict[Any, Any]:
    size = memoryview(frame).nbytes
    if size > _MAX_HEADER_BYTES:
        msg = f"a header must have at most {_MAX_HEADER_BYTES} bytes; got {size}"
        raise MessageError(Reason.HEADER_SIZE, msg)
    try:
        header = msgpack.unpackb(frame, **_UNPACK_LIMITS)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        msg = f"a header must be one msgpack map; got bytes that are not ({reprlib.repr(str(exc))})"
        raise MessageError(Reason.HEADER_FORMAT, msg) from exc
    if not isinstance(header, dict):
        msg = f"a header must be a msgpack map; got {type(header).__name__}"
        raise MessageError(Reason.HEADER_FORMAT, msg)
    return header


def _check_header(header: Mapping[Any, Any], row: tuple[int, ...] = EVENT_ROW) -> None:
    if "v" not in header:
        msg = "a header must hold the key 'v'; it is missing"
        raise MessageError(Reason.MISSING_KEY, msg)
    if type(header["v"]) is not int or header["v"] != WIRE_VERSION:
        msg = f"the wire version must be {WIRE_VERSION}; got {reprlib.repr(header['v'])}"
        raise MessageError(Reason.VERSION, msg)
    for key, kind in _HEADER_TYPES.items():
        if key not in header:
            msg = f"a header must hold the key {key!r}; it is missing"
            raise MessageError(Reason.MISSING_KEY, msg)
        if type(header[key]) is not kind:
            msg = f"{key!r} must be of type {kind.__name__}; got {reprlib.repr(header[key])}"
            raise MessageError(Reason.WRONG_TYPE, msg)
    if type(header.get("end", False)) is not bool:
        msg = f"'end' must be true or false; got {reprlib.repr(header['end'])}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    if type(header.get("engine", "")) is not str:
        msg = f"'engine' must be a fingerprint; got {reprlib.repr(header['engine'])}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    _check_ranges(header)
    _check_size(header, row)


def _check_ranges(header: Mapping[str, Any]) -> None:
    source = header["source"]
    if not 0 < len(source) <= _MAX_SOURCE_LENGTH or not source.isprintable():
        rule = f"1 to {_MAX_SOURCE_LENGTH} printable characters"
        msg = f"'source' must be {rule}; got {reprlib.repr(source)}"
        raise MessageError(Reason.OUT_OF_RANGE, msg)
    for key, bits in (("seq", 64), ("t_ns", 63)):
        if not 0 <= header[key] < 2**bits:
            msg = f"{key!r} must be at least 0 and below 2^{bits}; got {header[key]}"
            raise MessageError(Reason.OUT_OF_RANGE, msg)


def _check_size(header: Mapping[str, Any], row: tuple[int, ...]) -> None:
    n, shape = header["n"], header["shape"]
    if header["dtype"] not in DTYPES:
        msg = f"'dtype' must be one of {', '.join(DTYPES)}; got {reprlib.repr(header['dtype'])}"
        raise MessageError(Reason.DTYPE, msg)
    if n > MAX_EVENTS_PER_MESSAGE:
        msg = f"a message must hold at most {MAX_EVENTS_PER_MESSAGE} events; got {n}; send several"
        raise MessageError(Reason.TOO_MANY_EVENTS, msg)
    whole = all(type(size) is int for size in shape)
    if n < 0 or not whole or shape != [n, *row]:
        wanted = f"[n, {', '.join(map(str, row))}]"
        msg = f"'shape' must be {wanted} with n of the header, {n}; got {reprlib.repr(shape)}"
        raise MessageError(Reason.SHAPE, msg)
    if n == 0 and not header.get("end", False):
        msg = "a message must hold at least one event unless 'end' is true; got none"
        raise MessageError(Reason.EMPTY, msg)


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
