"""The first frame of a message: what it says, and the rules that it must keep."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import prod
from typing import Any, NamedTuple, TypeAlias

import msgpack

from engines.errors import MessageError
from engines.events import N_FEATURES, N_OBJECTS
from stream.plain_text import plain_text

__all__ = [
    "DEFAULT_MAX_EVENTS",
    "DTYPES",
    "EVENT_ROW",
    "MAX_EVENTS_PER_MESSAGE",
    "REASONS",
    "WIRE_VERSION",
    "Frame",
    "Header",
    "Reason",
    "check_header",
    "decode_header",
    "frame_limit",
    "pack_header",
    "read_place",
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
_BITS = {"seq": 64, "t_ns": 63}
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


def decode_header(
    frames: Sequence[Frame],
    row: tuple[int, ...] = EVENT_ROW,
    engine: str | None = None,
    max_events: int = MAX_EVENTS_PER_MESSAGE,
) -> Header:
    """Return what the header says, once the payload is known to have the size that it promises.

    Args:
        frames: header and payload.
        row: shape of what the payload holds of each event.
        engine: fingerprint that the header must name; None for any, or none.
        max_events: that a message may hold.

    Raises:
        MessageError: if a rule of the wire is broken; the payload's values are not looked at.
    """
    if len(frames) != 2:
        msg = f"a message must have 2 frames, header and payload; got {len(frames)}"
        raise MessageError(Reason.FRAMES, msg)
    header = _unpack(frames[0])
    check_header(header, row, engine, max_events)
    n, dtype = header["n"], header["dtype"]
    wanted = n * prod(row) * _ITEM_BYTES[dtype]
    got = memoryview(frames[1]).nbytes
    if got != wanted:
        msg = f"the payload of {n} events as {dtype} must have {wanted} bytes; got {got}"
        raise MessageError(Reason.PAYLOAD_SIZE, msg)
    source, seq, t_ns = header["source"], header["seq"], header["t_ns"]
    return Header(source, seq, n, dtype, t_ns, header.get("end", False), header.get("engine", ""))


def pack_header(header: Header, row: tuple[int, ...]) -> bytes:
    """Return the frame that says what a header says, and nothing else."""
    fields = {
        "v": WIRE_VERSION,
        "source": header.source,
        "seq": header.seq,
        "n": header.n,
        "dtype": header.dtype,
        "shape": [header.n, *row],
        "t_ns": header.t_ns,
    }
    if header.engine:
        fields["engine"] = header.engine
    if header.end:
        fields["end"] = True
    frame: bytes = msgpack.packb(fields)
    return frame


def read_place(frame: Frame) -> tuple[str, int] | None:
    """Return `source` and `seq` of a header that breaks other rules; None if it breaks theirs."""
    try:
        header = _unpack(frame)
        _check_types(header, ("source", "seq"))
        _check_ranges(header, ("seq",))
    except MessageError:
        return None
    return header["source"], header["seq"]


def check_header(
    header: Mapping[Any, Any],
    row: tuple[int, ...] = EVENT_ROW,
    engine: str | None = None,
    max_events: int = MAX_EVENTS_PER_MESSAGE,
) -> None:
    """Check a header's map.

    Args:
        header: its keys and values.
        row: shape of what the payload holds of each event.
        engine: fingerprint that the header must name; None for any, or none.
        max_events: that a message may hold.

    Raises:
        MessageError: if a rule of the wire is broken.
    """
    if "v" not in header:
        msg = "a header must hold the key 'v'; it is missing"
        raise MessageError(Reason.MISSING_KEY, msg)
    if type(header["v"]) is not int or header["v"] != WIRE_VERSION:
        msg = f"the wire version must be {WIRE_VERSION}; got {reprlib.repr(header['v'])}"
        raise MessageError(Reason.VERSION, msg)
    _check_types(header, _HEADER_TYPES)
    if type(header.get("end", False)) is not bool:
        msg = f"'end' must be true or false; got {reprlib.repr(header['end'])}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    if type(header.get("engine", "")) is not str:
        msg = f"'engine' must be a fingerprint; got {reprlib.repr(header['engine'])}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    _check_ranges(header, _BITS)
    # Before the shape, which tells of another engine without naming it.
    if engine is not None and header.get("engine", "") != engine:
        msg = (
            f"embeddings must be of the engine {engine[:16]}...; source {header['source']!r} sends "
            f"those of {plain_text(header.get('engine', ''), 16) or 'none'}"
        )
        raise MessageError(Reason.ENGINE, msg)
    _check_size(header, row, max_events)


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


def _check_types(header: Mapping[Any, Any], keys: Iterable[str]) -> None:
    for key in keys:
        kind = _HEADER_TYPES[key]
        if key not in header:
            msg = f"a header must hold the key {key!r}; it is missing"
            raise MessageError(Reason.MISSING_KEY, msg)
        if type(header[key]) is not kind:
            msg = f"{key!r} must be of type {kind.__name__}; got {reprlib.repr(header[key])}"
            raise MessageError(Reason.WRONG_TYPE, msg)


def _check_ranges(header: Mapping[str, Any], keys: Iterable[str]) -> None:
    source = header["source"]
    if not 0 < len(source) <= _MAX_SOURCE_LENGTH or not source.isprintable():
        rule = f"1 to {_MAX_SOURCE_LENGTH} printable characters"
        msg = f"'source' must be {rule}; got {reprlib.repr(source)}"
        raise MessageError(Reason.OUT_OF_RANGE, msg)
    for key in keys:
        if not 0 <= header[key] < 2 ** _BITS[key]:
            msg = f"{key!r} must be at least 0 and below 2^{_BITS[key]}; got {header[key]}"
            raise MessageError(Reason.OUT_OF_RANGE, msg)


def _check_size(header: Mapping[str, Any], row: tuple[int, ...], max_events: int) -> None:
    n, shape = header["n"], header["shape"]
    if header["dtype"] not in DTYPES:
        msg = f"'dtype' must be one of {', '.join(DTYPES)}; got {reprlib.repr(header['dtype'])}"
        raise MessageError(Reason.DTYPE, msg)
    if n > max_events:
        msg = f"a message must hold at most {max_events} events; got {n}; send several"
        raise MessageError(Reason.TOO_MANY_EVENTS, msg)
    whole = all(type(size) is int for size in shape)
    if n < 0 or not whole or shape != [n, *row]:
        wanted = f"[n, {', '.join(map(str, row))}]"
        msg = f"'shape' must be {wanted} with n of the header, {n}; got {reprlib.repr(shape)}"
        raise MessageError(Reason.SHAPE, msg)
    if n == 0 and not header.get("end", False):
        msg = "a message must hold at least one event unless 'end' is true; got none"
        raise MessageError(Reason.EMPTY, msg)
