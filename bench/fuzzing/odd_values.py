"""Values that a header had better not hold, and msgpack that means harm."""

from typing import Any

import msgpack
import numpy as np

__all__ = ["ODD_SOURCES", "bomb", "odd_value"]

_LONGEST = 256
#: Names of sources: some break the rule, some stand at its edge.
ODD_SOURCES = (
    *("", " ", "a", "other", "\0", "\n", "line\nbreak", "tab\t", "\x1b[31mred", "\x7f", "\x9b"),
    *("\u202eright to left", "\u200b", "\ufeff", "\u2028", "\ud7ff", "\ue000", "\U0001f4a5"),
    *("e\u0301", "\u0645\u0635\u062f\u0631", "\xa0", 'quote"', "back\\slash", "{a=1}", "%s%n"),
    *("a" * (_LONGEST - 1), "a" * _LONGEST, "a" * (_LONGEST + 1), "\u00e9" * _LONGEST),
    *("\U0001f4a5" * 300, "x" * 1024, "x" * 1025, "../../etc/passwd", "<script>", "None"),
)
_FLAGS = (None, True, False)
_NUMBERS = (
    *(0, 1, -1, 2, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, 1.0, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324),
)


def odd_value(rng: np.random.Generator, depth: int = 2) -> Any:  # noqa: ANN401 - of any type
    """Return a value of any type that msgpack has, nested so deeply at most."""
    kind = int(rng.integers(8 if depth else 5))
    if kind < 4:
        plain = (_FLAGS, _NUMBERS, _NUMBERS, ODD_SOURCES)[kind]
        return plain[int(rng.integers(len(plain)))]
    if kind == 4:
        return rng.bytes(int(rng.integers(20)))
    if kind == 5:
        return [odd_value(rng, depth - 1) for _ in range(int(rng.integers(18)))]
    if kind == 6:
        return {str(k): odd_value(rng, depth - 1) for k in range(int(rng.integers(4)))}
    return msgpack.ExtType(int(rng.integers(128)), rng.bytes(int(rng.integers(70))))


def bomb(rng: np.random.Generator) -> bytes:
    """Return bytes that a careless decoder pays dearly for."""
    depth = int(10 ** rng.uniform(0, 3.5))
    length = int(rng.choice([0, 1, 17, 33, 2**16, 2**31, 2**32 - 1])).to_bytes(4, "big")
    # Arrays, maps, strings, bytes, extensions of declared length; a timestamp's number is ff.
    kinds = (
        b"\x91" * depth + b"\xc0",
        b"\x81\xa1a" * depth + b"\xc0",
        b"\x9f" * depth,
        b"\xdd" + length,
        b"\xdf" + length,
        b"\xdb" + length + b"x",
        b"\xc6" + length + b"x",
        b"\xc9" + length + b"\x05x",
        b"\xd6\xff" + rng.bytes(4),
        b"\xd7\xff" + rng.bytes(8),
        b"\xc7\x0c\xff" + rng.bytes(12),
        b"\xd4\xff\x00",
        b"\xc1",
        b"\xa4" + rng.bytes(4),
        b"\xa3\xed\xa0\x80",
        b"\xa2\xc0\x80",
        b"\x81\xca\x7f\xc0\x00\x00\x01",
        b"\x81\x91\x01\x01",
        b"\x81\xc0\xc0",
        b"\x82\xa1v\x01\xc4\x01v\x02",
    )
    return kinds[int(rng.integers(len(kinds)))]
