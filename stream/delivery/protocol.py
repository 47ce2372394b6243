"""Control messages of the reliable exchange; docs/delivery.md says how they are used.

Each is one ZeroMQ frame, a msgpack map with `v` 1 and `op`; event messages keep their two frames.

    hello    to the consumer    source, first: the lowest `seq` that the producer still holds
    welcome  to the producer    source, next, expected, credit, max_bytes
    ack      to the producer    source, next, credit
    who      to the producer    source: not known here, say hello
    refused  to the producer    source, or empty; seq, or -1; reason, text

All `seq` below `next` are on the consumer's disk, all below `expected` have arrived. `credit` is
how many bytes of payload may be on their way, not acknowledged; one message always may. No message
may have more than `max_bytes` of payload; 0 or none says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from engines.errors import MessageError
from stream.header import Frame, Reason
from stream.plain_text import plain_text

__all__ = ["END", "Control", "ack", "decode_control", "hello", "refused", "welcome", "who"]

#: Every `seq` of the exchange is below it.
END = 2**62
_VERSION = 1
_MAX_BYTES = 4096
_MAX_SOURCE_LENGTH = 256
_LIMITS = {
    "max_str_len": 1024,
    "max_bin_len": 0,
    "max_array_len": 0,
    "max_map_len": 16,
    "max_ext_len": 0,
}
_WANTED = {
    "hello": ("source", "first"),
    "welcome": ("source", "next", "expected", "credit"),
    "ack": ("source", "next", "credit"),
    "who": ("source",),
    "refused": ("reason", "text"),
}
_MAX_TEXT = 500


@dataclass(frozen=True)
class Control:
    """A decoded control message; fields that its `op` does not have are 0 or empty.

    Attributes:
        op: hello, welcome, ack, who or refused.
        source: whom it concerns; empty in a `refused` of a message that nobody can be named for.
        first, next, expected: as in the module's description.
        credit, max_bytes: bytes.
        seq: of a refused message, -1 if its header could not be read.
        reason, text: why it was refused.
    """

    op: str
    source: str = ""
    first: int = 0
    next: int = 0
    expected: int = 0
    credit: int = 0
    max_bytes: int = 0
    seq: int = -1
    reason: str = ""
    text: str = ""


def hello(source: str, first: int) -> bytes:
    """Return a producer's greeting.

    >>> control = decode_control(hello("daq", 7))
    >>> control.op, control.source, control.first
    ('hello', 'daq', 7)
    """
    return _pack("hello", source=source, first=first)


def welcome(source: str, following: int, expected: int, credit: int, max_bytes: int = 0) -> bytes:
    """Return the answer to a greeting: what is on the disk, what has arrived, what may come."""
    fields = {"next": following, "expected": expected, "credit": credit, "max_bytes": max_bytes}
    return _pack("welcome", source=source, **fields)


def ack(source: str, following: int, credit: int) -> bytes:
    """Return an acknowledgement of everything below `following`."""
    return _pack("ack", source=source, next=following, credit=credit)


def who(source: str) -> bytes:
    """Return the question of a consumer that does not know a source."""
    return _pack("who", source=source)


def refused(source: str, seq: int, reason: str, text: str) -> bytes:
    """Return why a message was refused for good; `seq` -1 if its header could not be read."""
    shown = plain_text(text, _MAX_TEXT)
    return _pack("refused", source=source, seq=seq, reason=reason, text=shown)


def decode_control(frame: Frame) -> Control:
    """Return a control message.

    Raises:
        MessageError: if it is none; never anything else.
    """
    fields = _unpack(frame)
    op = fields.get("op")
    if type(fields.get("v")) is not int or fields["v"] != _VERSION:
        msg = f"a control message must have 'v' {_VERSION}; got another"
        raise MessageError(Reason.VERSION, msg)
    if not isinstance(op, str) or op not in _WANTED:
        msg = f"'op' of a control message must be one of {', '.join(_WANTED)}; got another"
        raise MessageError(Reason.OUT_OF_RANGE, msg)
    for name in _WANTED[op]:
        if name not in fields:
            msg = f"a control message {op!r} must hold the key {name!r}; it is missing"
            raise MessageError(Reason.MISSING_KEY, msg)
    return Control(
        op,
        _text(fields, "source", may_be_empty=op == "refused"),
        first=_number(fields, "first"),
        next=_number(fields, "next"),
        expected=_number(fields, "expected"),
        credit=_number(fields, "credit"),
        max_bytes=_number(fields, "max_bytes"),
        seq=_number(fields, "seq", least=-1) if "seq" in fields else -1,
        reason=_text(fields, "reason", may_be_empty=True),
        text=_text(fields, "text", may_be_empty=True, longest=_MAX_TEXT),
    )


def _pack(op: str, **fields: object) -> bytes:
    packed: bytes = msgpack.packb({"v": _VERSION, "op": op, **fields})
    return packed


def _unpack(frame: Frame) -> Mapping[str, Any]:
    size = memoryview(frame).nbytes
    if size > _MAX_BYTES:
        msg = f"a control message must have at most {_MAX_BYTES} bytes; got {size}"
        raise MessageError(Reason.HEADER_SIZE, msg)
    try:
        fields = msgpack.unpackb(frame, **_LIMITS)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        msg = "a message of one frame must be a msgpack map; got bytes that are not"
        raise MessageError(Reason.HEADER_FORMAT, msg) from exc
    if not isinstance(fields, dict):
        msg = f"a message of one frame must be a msgpack map; got {type(fields).__name__}"
        raise MessageError(Reason.HEADER_FORMAT, msg)
    return fields


def _text(
    fields: Mapping[str, Any],
    name: str,
    *,
    may_be_empty: bool = False,
    longest: int = _MAX_SOURCE_LENGTH,
) -> str:
    value = fields.get(name, "")
    if type(value) is not str:
        msg = f"{name!r} of a control message must be a string; got {type(value).__name__}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    if len(value) > longest or not value.isprintable() or not (value or may_be_empty):
        msg = f"{name!r} of a control message must be 1 to {longest} printable characters"
        raise MessageError(Reason.OUT_OF_RANGE, msg)
    return value


def _number(fields: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = fields.get(name, 0)
    if type(value) is not int:
        msg = f"{name!r} of a control message must be a whole number; got {type(value).__name__}"
        raise MessageError(Reason.WRONG_TYPE, msg)
    if not least <= value < END:
        msg = f"{name!r} of a control message must be at least {least} and below 2^62"
        raise MessageError(Reason.OUT_OF_RANGE, msg)
    return value
