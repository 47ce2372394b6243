"""Malformed control messages of the reliable exchange through their decoder."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from msgpack import fallback

from bench.fuzzing.damage import damage
from bench.fuzzing.intake_run import Findings
from bench.fuzzing.odd_values import ODD_SOURCES, bomb, odd_value
from engines.errors import MessageError
from stream.delivery.protocol import ack, decode_control, hello, refused, welcome, who
from stream.header import REASONS

__all__ = ["ControlRun"]

_KEYS = (
    "v",
    "op",
    "source",
    "first",
    "next",
    "expected",
    "credit",
    "seq",
    "reason",
    "text",
    "max_bytes",
)
_STEP = 1000
_NEEDED = {
    "hello": {"source", "first"},
    "welcome": {"source", "next", "expected", "credit"},
    "ack": {"source", "next", "credit"},
    "who": {"source"},
    "refused": {"reason", "text"},
}


class ControlRun:
    """The decoder, fed.

    Attributes:
        findings: what went wrong.
        refused: messages by reason.
        n_accepted: how many were right.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Pack a right message of each kind."""
        self.findings, self.refused, self.n_accepted = Findings(), Counter[str](), 0
        self._rng = rng
        self._right = [
            hello("daq", 7),
            welcome("daq", 3, 9, 10**6),
            ack("daq", 4, 10**6),
            who("daq"),
            refused("daq", 3, "shape", "'shape' must be [n, 19, 3]; got [1, 2]"),
        ]

    def feed(self, n: int, advance: Callable[[int], None]) -> None:
        """Feed n messages."""
        for first in range(0, n, _STEP):
            for _ in range(min(_STEP, n - first)):
                self._one(self._draw())
            advance(min(_STEP, n - first))

    def _draw(self) -> bytes:
        rng, right = self._rng, self._right[int(self._rng.integers(len(self._right)))]
        kind = int(rng.integers(6))
        if kind == 0:
            return damage(right, rng)[1]
        if kind == 1:
            return bomb(rng)
        if kind == 2:
            return rng.bytes(int(2 ** rng.uniform(0, 13)))
        fields: dict[str, Any] = msgpack.unpackb(right)
        key = _KEYS[int(rng.integers(len(_KEYS)))]
        if kind == 3:
            fields.pop(key, None)
        elif kind == 4:
            fields["source"] = ODD_SOURCES[int(rng.integers(len(ODD_SOURCES)))]
        else:
            fields[key] = odd_value(rng)
        packed: bytes = msgpack.packb(fields)
        return packed

    def _one(self, frame: bytes) -> None:
        try:
            control = decode_control(memoryview(frame))
        except MessageError as exc:
            self.refused[exc.reason] += 1
            if exc.reason not in REASONS or not str(exc).isprintable():
                self.findings.add("refused in an untidy way", [frame], repr(str(exc)))
            if frame in self._right:
                self.findings.add("right control message refused", [frame], str(exc))
            return
        except Exception as exc:  # noqa: BLE001 - what must not happen is what is looked for
            self.findings.add(f"{type(exc).__name__} escaped", [frame], str(exc)[:200])
            return
        self.n_accepted += 1
        if not _is_right(frame):
            self.findings.add("accepted against the rules", [frame], str(control))


def _is_right(frame: bytes) -> bool:
    """Return whether a control message keeps the rules, by msgpack's other implementation."""
    try:
        fields = fallback.unpackb(frame)
    except Exception:  # noqa: BLE001 - whatever it raises, it is no message
        return False
    if not isinstance(fields, dict) or type(fields.get("v")) is not int or fields["v"] != 1:
        return False
    op = fields.get("op")
    if type(op) is not str or not _NEEDED.get(op, {None}) <= fields.keys():
        return False
    numbers = [fields[key] for key in ("first", "next", "expected", "credit") if key in fields]
    texts = [fields[key] for key in ("source", "reason", "text") if key in fields]
    right = all(type(number) is int and 0 <= number < 2**64 for number in numbers)
    return right and all(type(text) is str and text.isprintable() for text in texts)
