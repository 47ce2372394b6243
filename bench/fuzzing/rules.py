"""The rules of the wire once more, written without a look at the consumer: an oracle.

It reads headers with msgpack's other implementation, in Python, and numbers with struct.
"""

import contextlib
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from msgpack import fallback

__all__ = ["Rules", "Verdict"]

_LIMITS = {
    "max_str_len": 1024,
    "max_bin_len": 1024,
    "max_array_len": 16,
    "max_map_len": 32,
    "max_ext_len": 64,
}
#: Nested more deeply, a header may be refused or not: the two implementations differ.
_DEEP = 200
_DEEPEST = 20_000
_DAY_NS, _AHEAD_NS = 86_400 * 10**9, 5 * 10**9
_MAX_LEAP, _MAX_SOURCES = 1_000_000, 500


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    """Let Python go as deep as a header can be nested."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(_DEEPEST)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class Verdict:
    """What the rules say of a message.

    Attributes:
        must: rules that it breaks: refused for one of them, or accepted if there is none.
        may: further reasons for which it can be refused.
        header: what it says of itself, if that can be read.
        values: the payload's numbers, where the header is right.
    """

    def __init__(self) -> None:
        """Break no rule yet."""
        self.must: set[str] = set()
        self.may: set[str] = set()
        self.header: dict[Any, Any] = {}
        self.values: tuple[float, ...] = ()


class Rules:
    """Judges messages; knows which messages of each source were accepted.

    Args:
        row: shape of what a message holds of an event.
        engine: the fingerprint that it must name; None where it holds events.
    """

    def __init__(self, row: tuple[int, ...], engine: str | None = None) -> None:
        """Know no source."""
        self._row, self._engine = row, engine
        self._following: dict[str, int] = {}

    def judge(self, frames: Sequence[bytes], now_ns: int) -> Verdict:
        """Return what the rules say of a message."""
        verdict = Verdict()
        if len(frames) != 2:
            verdict.must.add("frames")
            return verdict
        self._read(frames[0], verdict)
        if verdict.must:
            return verdict
        self._judge_types(verdict)
        if not verdict.must:
            self._judge_values(verdict, frames[1], now_ns)
        if not verdict.must:
            self._judge_sequence(verdict)
        return verdict

    def accepted(self, header: dict[Any, Any]) -> None:
        """Learn that a message was accepted."""
        self._following[header["source"]] = header["seq"] + 1

    def _read(self, frame: bytes, verdict: Verdict) -> None:
        if len(frame) > 4096:
            verdict.must.add("header-size")
            return
        try:
            with _deep_recursion():
                header = fallback.unpackb(frame, **_LIMITS)
        except Exception:  # noqa: BLE001 - whatever it raises, the header cannot be read
            verdict.must.add("header-format")
            return
        if not isinstance(header, dict):
            verdict.must.add("header-format")
            return
        if len(frame) > _DEEP:
            verdict.may.add("header-format")
        verdict.header = header

    def _judge_types(self, verdict: Verdict) -> None:
        header, must = verdict.header, verdict.must
        kinds = {"v": int, "source": str, "seq": int, "n": int, "dtype": str, "shape": list}
        for key, kind in {**kinds, "t_ns": int}.items():
            if key not in header:
                must.add("missing-key")
            elif type(header[key]) is not kind:
                must.add("version" if key == "v" else "wrong-type")
        if "end" in header and header["end"] is not True and header["end"] is not False:
            must.add("wrong-type")
        if "engine" in header and type(header["engine"]) is not str:
            must.add("wrong-type")
        if type(header.get("v")) is int and header["v"] != 1:
            must.add("version")

    def _judge_values(self, verdict: Verdict, payload: bytes, now_ns: int) -> None:
        header, must = verdict.header, verdict.must
        source, n, dtype = header["source"], header["n"], header["dtype"]
        if not 1 <= len(source) <= 256 or any(not letter.isprintable() for letter in source):
            must.add("out-of-range")
        if not 0 <= header["seq"] <= 2**64 - 1 or not 0 <= header["t_ns"] <= 2**63 - 1:
            must.add("out-of-range")
        if dtype not in ("<f4", "<f2"):
            must.add("dtype")
        if n > 16_384:
            must.add("too-many-events")
        right = [
            type(size) is int and size == want
            for size, want in zip(header["shape"], (n, *self._row), strict=False)
        ]
        if n < 0 or len(header["shape"]) != 1 + len(self._row) or not all(right):
            must.add("shape")
        if n == 0 and header.get("end") is not True:
            must.add("empty")
        if self._engine is not None and header.get("engine", "") != self._engine:
            must.add("engine")
        if not must:
            self._judge_payload(verdict, payload)
        if not -_AHEAD_NS <= now_ns - header["t_ns"] <= _DAY_NS:
            must.add("clock")

    def _judge_payload(self, verdict: Verdict, payload: bytes) -> None:
        n_numbers = verdict.header["n"] * math.prod(self._row)
        letter, size = ("f", 4) if verdict.header["dtype"] == "<f4" else ("e", 2)
        if len(payload) != n_numbers * size:
            verdict.must.add("payload-size")
            return
        values = struct.unpack(f"<{n_numbers}{letter}", payload)
        if not all(map(math.isfinite, values)):
            verdict.must.add("non-finite")
        if self._engine is None and any(value < 0 for value in values[::3]):
            verdict.must.add("negative-pt")
        verdict.values = values

    def _judge_sequence(self, verdict: Verdict) -> None:
        source, seq = verdict.header["source"], verdict.header["seq"]
        following = self._following.get(source)
        if following is None:
            if len(self._following) >= _MAX_SOURCES:
                verdict.may.add("too-many-sources")
            return
        if seq < following:
            verdict.must.add("repeated")
        elif seq - following > _MAX_LEAP:
            verdict.may.add("leap")
        if len(self._following) >= _MAX_SOURCES:
            # It may have ended, and find no room any more.
            verdict.may.add("too-many-sources")
