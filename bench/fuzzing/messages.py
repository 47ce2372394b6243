"""Malformed messages: right ones with one thing changed, bombs, and noise."""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack
import numpy as np

from bench.fuzzing.damage import damage
from bench.fuzzing.odd_values import ODD_SOURCES, bomb, odd_value

__all__ = ["KINDS", "MessageFuzzer"]

Frames: TypeAlias = list[bytes]
_KEYS = ("v", "source", "seq", "n", "dtype", "shape", "t_ns", "end", "engine")
#: Messages of sources whose sequence is followed; those of "leaper" are out of all order.
_N_SOURCES = 20
_NEW_SOURCE_SHARE = 0.002
_PAYLOADS = 64


class MessageFuzzer:
    """Draws messages.

    Args:
        rng: of everything that is drawn.
        row: shape of what a message holds of an event.
        now_ns: the consumer's clock.
        fields: more keys of every right header.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        row: tuple[int, ...],
        now_ns: int,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Make payloads, of which all others are changed ones."""
        self.rng, self.now_ns = rng, now_ns
        self._row, self._fields, self._n_names = row, fields or {}, 0
        self._following: dict[str, int] = {}
        self._payloads = [self._values(str(dtype)) for dtype in ("<f4", "<f2") * (_PAYLOADS // 2)]
        self._kinds = list(KINDS)

    def draw(self) -> tuple[str, Frames]:
        """Return a kind of malformation, and a message with it."""
        kind = self._kinds[int(self.rng.integers(len(self._kinds)))]
        return kind, KINDS[kind](self)

    def right(self, source: str | None = None, /, **changed: object) -> Frames:
        """Return a message that breaks no rule, but for what is changed in its header."""
        header, payload = self.parts(source)
        return [self.pack({**header, **changed}), payload]

    def pack(self, header: dict[str, Any]) -> bytes:
        """Return a header as it is sent."""
        packed: bytes = msgpack.packb(header)
        return packed

    def parts(self, source: str | None = None) -> tuple[dict[str, Any], bytes]:
        """Return the header, not packed yet, and the payload of a message that breaks no rule."""
        source = source or self._source()
        dtype, n, payload = self._payloads[int(self.rng.integers(len(self._payloads)))]
        seq = self._following.get(source, 0)
        self._following[source] = seq + 1
        header = {"v": 1, "source": source, "seq": seq, "n": n, "dtype": dtype}
        shape = [n, *self._row]
        return {**header, "shape": shape, "t_ns": self.now_ns, **self._fields}, payload

    def leaper(self) -> str:
        """Return a source whose sequence may be spoilt."""
        return f"leaper-{self.rng.integers(_N_SOURCES)}"

    def went_on(self, header: dict[str, Any]) -> None:
        """Let a source go on after a `seq` that was chosen."""
        self._following[header["source"]] = header["seq"] + 1

    def _source(self) -> str:
        if self.rng.random() < _NEW_SOURCE_SHARE:
            self._n_names += 1
            return f"passing-{self._n_names}"
        return f"hostile-{self.rng.integers(_N_SOURCES)}"

    def _values(self, dtype: str) -> tuple[str, int, bytes]:
        n = int(self.rng.integers(1, 5))
        values = self.rng.exponential(30.0, (n, *self._row))
        values[self.rng.random(values.shape) < 0.3] = 0.0
        return dtype, n, values.astype(dtype).tobytes()


def _damaged_header(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.right()
    return [damage(header, fuzzer.rng)[1], payload]


def _damaged_payload(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.right()
    return [header, damage(payload, fuzzer.rng)[1]]


def _other_size(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.right()
    change = int(fuzzer.rng.integers(-8, 9))
    return [header, payload[:change] if change < 0 else payload + bytes(change)]


def _frame_count(fuzzer: MessageFuzzer) -> Frames:
    frames = fuzzer.right()
    return [frames[k % 2] for k in range(int(fuzzer.rng.integers(51)))]


def _odd_value(fuzzer: MessageFuzzer) -> Frames:
    key = _KEYS[int(fuzzer.rng.integers(len(_KEYS)))]
    source = fuzzer.leaper() if key == "seq" else None
    return fuzzer.right(source, **{key: odd_value(fuzzer.rng)})


def _missing_key(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.parts()
    header.pop(list(header)[int(fuzzer.rng.integers(len(header)))])
    return [msgpack.packb(header), payload]


def _key_twice(fuzzer: MessageFuzzer) -> Frames:
    key = _KEYS[int(fuzzer.rng.integers(len(_KEYS)))]
    header, payload = fuzzer.parts(fuzzer.leaper() if key == "seq" else None)
    packed = bytearray(msgpack.packb(header))
    packed[0] += 1
    return [bytes(packed) + msgpack.packb(key) + msgpack.packb(odd_value(fuzzer.rng)), payload]


def _bomb(fuzzer: MessageFuzzer) -> Frames:
    return [bomb(fuzzer.rng), fuzzer.parts()[1]]


def _bomb_inside(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.parts()
    packed = bytearray(msgpack.packb(header))
    packed[0] += 1
    return [bytes(packed) + msgpack.packb("more") + bomb(fuzzer.rng), payload]


def _long_header(fuzzer: MessageFuzzer) -> Frames:
    size = int(fuzzer.rng.integers(1, 1300))
    fields = {f"pad{k}": "x" * size for k in range(int(fuzzer.rng.integers(1, 5)))}
    return fuzzer.right(**fields)


def _odd_source(fuzzer: MessageFuzzer) -> Frames:
    source = ODD_SOURCES[int(fuzzer.rng.integers(len(ODD_SOURCES)))]
    return fuzzer.right(source)


def _sequence(fuzzer: MessageFuzzer) -> Frames:
    """Repeat, leave a gap, leap, go on after a leap; at times to the end of all numbers."""
    rng = fuzzer.rng
    header, payload = fuzzer.parts(fuzzer.leaper())
    steps = (-1000, -2, -1, 0, 0, 0, 1, 5, 1000)
    step = steps[int(rng.integers(len(steps)))]
    if rng.random() < 0.03:
        step = int(rng.choice([999_999, 1_000_000, 1_000_001, 2**40]))
    header["seq"] = max(0, header["seq"] + step)
    fuzzer.went_on(header)
    if rng.random() < 0.0002:
        header["seq"] = int(rng.choice(np.array([2**63, 2**64 - 1], np.uint64)))
    return [fuzzer.pack(header), payload]


def _size(fuzzer: MessageFuzzer) -> Frames:
    """Numbers of events, shapes and types that do not fit each other."""
    rng, header = fuzzer.rng, fuzzer.parts()[0]
    sizes = (0, 1, 2, 3, 19, 57, -1, 65_536, 65_537, 2**31, 2**63 - 1, 2**64 - 1)
    n = sizes[int(rng.integers(len(sizes)))]
    shape = [sizes[int(rng.integers(len(sizes)))] for _ in range(int(rng.integers(5)))]
    changed: list[dict[str, Any]] = [
        {"n": n},
        {"shape": shape},
        {"n": n, "shape": [n, *header["shape"][1:]]},
        {"dtype": str(rng.choice(["<f8", ">f4", "f4", "<i4", "O", "|V4", "", "<f4\0"]))},
        {"dtype": "<f2" if header["dtype"] == "<f4" else "<f4"},
        {"shape": [float(size) for size in header["shape"]]},
        {"shape": [True, *header["shape"][1:]], "n": 1},
    ]
    return fuzzer.right(**changed[int(rng.integers(len(changed)))])


def _value(fuzzer: MessageFuzzer) -> Frames:
    """Numbers that are none, or negative, or hardly any."""
    header, payload = fuzzer.parts()
    values = np.frombuffer(payload, header["dtype"]).copy()
    odd = (np.nan, np.inf, -np.inf, -1.0, -0.0, 5e-324, 6e-8, 1e-40, 65504.0, 3e38, -6e-8, 1e5)
    with np.errstate(over="ignore", under="ignore"):
        where = fuzzer.rng.integers(len(values), size=int(fuzzer.rng.integers(1, 4)))
        values[where] = fuzzer.rng.choice(np.array(odd), size=len(where))
    return [msgpack.packb(header), values.tobytes()]


def _random_payload(fuzzer: MessageFuzzer) -> Frames:
    header, payload = fuzzer.right()
    return [header, fuzzer.rng.bytes(len(payload))]


def _empty(fuzzer: MessageFuzzer) -> Frames:
    """No events, with and without an end, with and without a payload."""
    rng = fuzzer.rng
    header, payload = fuzzer.parts("ender" if rng.random() < 0.5 else None)
    header |= {"n": 0, "shape": [0, *header["shape"][1:]]}
    if rng.random() < 0.7:
        header["end"] = bool(rng.random() < 0.7)
    return [msgpack.packb(header), b"" if rng.random() < 0.7 else payload]


def _clock(fuzzer: MessageFuzzer) -> Frames:
    rng, day = fuzzer.rng, 86_400 * 10**9
    near = [5 * 10**9, -day, 0]
    offset = near[int(rng.integers(3))] + int(rng.integers(-2, 3)) * int(rng.choice([1, 10**9]))
    far = [0, 1, 2**63 - 1, 2**63, -1, 2**64 - 1]
    t_ns = fuzzer.now_ns + offset if rng.random() < 0.7 else far[int(rng.integers(len(far)))]
    return fuzzer.right(t_ns=t_ns)


def _swapped(fuzzer: MessageFuzzer) -> Frames:
    return fuzzer.right()[::-1]


def _noise(fuzzer: MessageFuzzer) -> Frames:
    count = int(fuzzer.rng.integers(4))
    return [fuzzer.rng.bytes(int(2 ** fuzzer.rng.uniform(0, 13))) for _ in range(count)]


def _unchanged(fuzzer: MessageFuzzer) -> Frames:
    return fuzzer.right()


KINDS: dict[str, Callable[[MessageFuzzer], Frames]] = {
    "damaged header": _damaged_header,
    "damaged payload": _damaged_payload,
    "payload of another size": _other_size,
    "number of frames": _frame_count,
    "odd value of a key": _odd_value,
    "missing key": _missing_key,
    "key twice": _key_twice,
    "msgpack bomb": _bomb,
    "msgpack bomb inside": _bomb_inside,
    "long header": _long_header,
    "odd source": _odd_source,
    "sequence": _sequence,
    "sizes that do not fit": _size,
    "odd numbers": _value,
    "payload of noise": _random_payload,
    "no events": _empty,
    "clock": _clock,
    "frames swapped": _swapped,
    "noise": _noise,
    "unchanged": _unchanged,
}
