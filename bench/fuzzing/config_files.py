"""Damaged and devious files for `--config`."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.fuzzing.damage import damage
from engines.command import CommandParser, count, positive_float, positive_int
from engines.events import EventRange
from engines.windows import parse_duration_s

__all__ = ["ConfigFiles"]

_TRICKS_SHARE = 0.5
_WHOLE = """\
# one option of each kind
engine = "d4.onnx"
endpoint = "tcp://127.0.0.1:5555"
device = "cpu"
window = "60s"
rate = 2.5e4
max-batch = 2048
threads = 0
dtype = ["<f4", "<f2"]
pair = [1, 2]
log-json = true
fallback = false
events = "sm_cocktail.h5@10:20"
"""


class ConfigFiles:
    """Options of every kind that the commands have, damaged or odd."""

    def prepare(self, folder: Path) -> None:
        """Parse a whole file."""
        self._path, self._whole = folder / "options.toml", _WHOLE.encode()
        self._path.write_bytes(self._whole)
        self.open(self._path)
        self._names = [line.partition(" =")[0] for line in _WHOLE.splitlines()[1:]]

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged file or an odd one."""
        if rng.random() < _TRICKS_SHARE:
            name = str(rng.choice(list(_TRICKS)))
            content = _TRICKS[name](self._names, rng)
        else:
            name, content = damage(self._whole, rng)
        self._path.write_bytes(content)
        return name, self._path

    def open(self, path: Path) -> None:
        """Parse as the command does."""
        _parser().parse_or_raise(["--config", str(path)])


def _parser() -> CommandParser:
    made = CommandParser("fuzzed", "Does nothing.", "fuzzed --engine d4.onnx")
    add = made.add_argument
    add("events", type=EventRange.parse)
    add("--engine", type=Path, required=True)
    add("--endpoint")
    add("--device", choices=("cpu", "cuda"))
    add("--window", type=parse_duration_s)
    add("--rate", type=positive_float)
    add("--max-batch", type=positive_int)
    add("--threads", type=count)
    add("--dtype", nargs="+", choices=("<f4", "<f2"))
    add("--pair", nargs=2, type=int)
    add("--fallback", action=argparse.BooleanOptionalAction)
    return made


Trick = Callable[[list[str], np.random.Generator], bytes]


def _value(rng: np.random.Generator) -> str:
    values = [
        *(
            "true",
            "1",
            "-1",
            "0",
            "1e400",
            "nan",
            "-inf",
            "9" * 3000,
            "0x" + "f" * 5000,
            "[]",
            "{}",
        ),
        *(
            '""',
            '"\\u0000"',
            '"\\u001b[2J"',
            '"a\\nb"',
            '"\\u202e"',
            "1979-05-27T07:32:00Z",
            "07:32:00",
        ),
        *("[1, 2]", '["a", 1]', "{a = 1}", "[[[[]]]]", '"' + "a" * 100_000 + '"', '"%s %(x)d"'),
        *(json.dumps(rng.bytes(20).decode("latin-1")), "1_000", "0b1", "3.5"),
    ]
    return values[int(rng.integers(len(values)))]


def _odd_values(names: list[str], rng: np.random.Generator) -> bytes:
    keys = rng.choice(names, size=int(rng.integers(1, 5)), replace=False)
    return "".join(f"{key} = {_value(rng)}\n" for key in keys).encode()


def _unknown_key(_: list[str], rng: np.random.Generator) -> bytes:
    key = json.dumps(rng.bytes(int(rng.integers(1, 40))).decode("latin-1"))
    return f"{key} = {_value(rng)}\n".encode()


def _deep(_: list[str], rng: np.random.Generator) -> bytes:
    depth = int(10 ** rng.uniform(1, 5))
    opened = str(rng.choice(["[", "{a=", "[{b="]))
    return f"engine = {opened * depth}".encode()


def _deep_key(_: list[str], rng: np.random.Generator) -> bytes:
    return (".".join("a" * int(10 ** rng.uniform(1, 4))) + " = 1\n").encode()


def _tables(names: list[str], rng: np.random.Generator) -> bytes:
    return f"[{rng.choice(names)}]\nx = 1\n[[y]]\n".encode()


def _twice(names: list[str], rng: np.random.Generator) -> bytes:
    name = rng.choice(names)
    return f"{name} = 1\n{name} = 2\n".encode()


_TRICKS: dict[str, Trick] = {
    "odd values": _odd_values,
    "unknown key": _unknown_key,
    "deep value": _deep,
    "deep key": _deep_key,
    "tables": _tables,
    "key twice": _twice,
}
