"""Damage to bytes: what disks, transfers and people do to files."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

__all__ = ["DAMAGES", "Damage", "damage"]

Damage: TypeAlias = Callable[[bytearray, np.random.Generator], None]

#: Numbers that a size or an offset had better not be.
_EXTREMES = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**63 - 1, 2**64 - 1)


def damage(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return a kind of damage, and the content with it.

    >>> name, damaged = damage(bytes(100), np.random.default_rng(0))
    >>> name in DAMAGES
    True
    """
    name = str(rng.choice(list(DAMAGES)))
    damaged = bytearray(content)
    DAMAGES[name](damaged, rng)
    return name, bytes(damaged)


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Return a place, half of the time near the start or the end, where files keep their maps."""
    size = max(1, len(content))
    near = min(size, 4096)
    kind = rng.integers(4)
    if kind == 0:
        return int(rng.integers(near))
    if kind == 1:
        return int(size - 1 - rng.integers(near))
    return int(rng.integers(size))


def _span(content: bytearray, rng: np.random.Generator) -> slice:
    first = _place(content, rng)
    return slice(first, min(len(content), first + int(2 ** rng.uniform(0, 14))))


def _flip_bits(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(2 ** rng.uniform(0, 7))):
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))


def _random_bytes(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(2 ** rng.uniform(0, 5))):
        content[_place(content, rng)] = int(rng.integers(256))


def _extreme_numbers(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.choice([1, 2, 4, 8]))
        first = _place(content, rng) // size * size
        value = int(rng.choice(np.array(_EXTREMES, dtype=object))) % 256**size
        content[first : first + size] = value.to_bytes(size, "little")[: len(content) - first]


def _truncate(content: bytearray, rng: np.random.Generator) -> None:
    del content[_place(content, rng) :]


def _extend(content: bytearray, rng: np.random.Generator) -> None:
    content += rng.bytes(int(2 ** rng.uniform(0, 14)))


def _zero(content: bytearray, rng: np.random.Generator) -> None:
    span = _span(content, rng)
    content[span] = bytes(span.stop - span.start)


def _noise(content: bytearray, rng: np.random.Generator) -> None:
    span = _span(content, rng)
    content[span] = rng.bytes(span.stop - span.start)


def _swap(content: bytearray, rng: np.random.Generator) -> None:
    size = min(len(content) // 2, int(2 ** rng.uniform(0, 14)))
    a, b = (int(rng.integers(len(content) - size + 1)) for _ in range(2))
    one, other = bytes(content[a : a + size]), bytes(content[b : b + size])
    content[a : a + size], content[b : b + size] = other, one


def _cut_out(content: bytearray, rng: np.random.Generator) -> None:
    del content[_span(content, rng)]


def _repeat(content: bytearray, rng: np.random.Generator) -> None:
    span = _span(content, rng)
    content[span.start : span.start] = content[span]


DAMAGES: dict[str, Damage] = {
    "flipped bits": _flip_bits,
    "random bytes": _random_bytes,
    "extreme numbers": _extreme_numbers,
    "truncated": _truncate,
    "extended": _extend,
    "zeroed block": _zero,
    "block of noise": _noise,
    "swapped blocks": _swap,
    "block cut out": _cut_out,
    "block repeated": _repeat,
}
