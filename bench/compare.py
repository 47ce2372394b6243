"""Command: figures of two saved measurements side by side, if they can be compared."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.command import CommandParser, run_command
from engines.errors import ArtifactError, MismatchError

__all__ = ["Figure", "check_comparable", "figures", "load_record", "main"]

_PROG = "bench-compare"
_TEXT = """\
Prints every figure that two files saved by the same benchmark share, and the ratio B/A. A star
marks figures whose 68 % bands, where both have one, do not overlap."""
#: Of a machine's stamp, what may differ: two versions of the code are what is compared.
_MAY_DIFFER = ("python", "versions", "when")
_RECORD = ("benchmark", "machine", "settings")
#: More numbers in a row are a curve.
_LONGEST = 16
_BAND = frozenset(("median", "low", "high"))
#: They name an element of a list; the others are known by their place.
_LABELS = ("engine", "name", "title", "mode", "signal", "fraction", "batch", "load", "testing")


@dataclass(frozen=True)
class Figure:
    """A number of a record.

    Attributes:
        value: it, or its median.
        low, high: its 68 % band; equal where there is none.
    """

    value: float
    low: float
    high: float

    @property
    def has_band(self) -> bool:
        """Whether it was measured more than once."""
        return self.low < self.high

    def differs(self, other: "Figure") -> bool:
        """Return whether both have a band and the bands do not overlap."""
        apart = self.high < other.low or other.high < self.low
        return self.has_band and other.has_band and apart


def load_record(path: Path) -> dict[str, Any]:
    """Return a saved measurement.

    Raises:
        ArtifactError: if the file is missing, damaged, or holds something else.
    """
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        msg = f"{path} must be a saved measurement; it cannot be read ({exc}); measure again"
        raise ArtifactError(msg) from exc
    right = isinstance(record, dict) and isinstance(record.get("benchmark"), str)
    if not right or not all(isinstance(record.get(key), dict) for key in _RECORD[1:]):
        msg = f"{path} must hold {', '.join(_RECORD)}; it does not; save one with --json"
        raise ArtifactError(msg)
    return dict(record)


def check_comparable(
    a: Mapping[str, Any], b: Mapping[str, Any], *, other_machines: bool = False
) -> None:
    """Refuse measurements of different things, or on different machines.

    Raises:
        MismatchError: if benchmark, settings or, unless allowed, machine differ.
    """
    if a["benchmark"] != b["benchmark"]:
        msg = f"the benchmark must be the same; got {a['benchmark']} and {b['benchmark']}"
        raise MismatchError(msg)
    if found := _difference(a["settings"], b["settings"]):
        msg = f"the settings must be the same; got {found}; measure again with the same"
        raise MismatchError(msg)
    machines = [
        {key: value for key, value in record["machine"].items() if key not in _MAY_DIFFER}
        for record in (a, b)
    ]
    if not other_machines and (found := _difference(*machines)):
        msg = f"the machine must be the same; got {found}; allow it with --other-machines"
        raise MismatchError(msg)


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Return the first key with different values, in words, or nothing.

    >>> _difference({"cores": 2}, {"cores": 64})
    'cores 2 and 64'
    """
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return f"{keys[0]} {a.get(keys[0])!r} and {b.get(keys[0])!r}" if keys else ""


def figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """Return every figure of a record by its path; long lists of plain numbers are left out."""
    parts = {key: value for key, value in record.items() if key not in _RECORD}
    return dict(_walk(parts.pop("results", {}), "")) | dict(_walk(parts, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Figure]]:  # noqa: ANN401
    if _is_number(value):
        yield path, Figure(value, value, value)
    elif isinstance(value, dict):
        if value.keys() == _BAND and all(map(_is_number, value.values())):
            yield path, Figure(value["median"], value["low"], value["high"])
            return
        for key, part in value.items():
            yield from _banded(value, key, part, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        is_curve = len(value) > _LONGEST and all(map(_is_number, value))
        for label, part in zip(_labels(value), [] if is_curve else value, strict=not is_curve):
            yield from _walk(part, f"{path}[{label}]")


def _banded(
    siblings: Mapping[str, Any],
    key: str,
    part: Any,  # noqa: ANN401
    path: str,
) -> Iterator[tuple[str, Figure]]:
    """Walk a part; a number `x` beside a pair `x_68` has that band."""
    band = siblings.get(f"{key}_68", [])
    is_pair = isinstance(band, list) and len(band) == 2 and all(map(_is_number, band))
    if is_pair and _is_number(part):
        yield path, Figure(part, low=band[0], high=band[1])
    elif not key.endswith("_68"):
        yield from _walk(part, path)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - JSON holds any type
    return isinstance(value, int | float) and not isinstance(value, bool)


def _labels(parts: Sequence[Any]) -> list[str]:
    """Return what tells the elements of a list from each other, if only their place.

    >>> _labels([{"load": 0.5, "p": 1}, {"load": 0.8, "p": 1}]), _labels([{"p": 1}, {"p": 1}])
    (['load 0.5', 'load 0.8'], ['0', '1'])
    """
    labels = [
        ", ".join(f"{key} {part[key]}" for key in _LABELS if isinstance(part, dict) and key in part)
        for part in parts
    ]
    distinct = all(labels) and len(set(labels)) == len(labels)
    return labels if distinct else [str(index) for index in range(len(parts))]


def _text(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    ours, theirs = figures(a), figures(b)
    both = [name for name in ours if name in theirs]
    width = max(map(len, both), default=0)
    lines = [f"{a['benchmark']}: A of {a['machine'].get('when')}, B of {b['machine'].get('when')}"]
    versions = [record["machine"].get("versions", {}) for record in (a, b)]
    if found := _difference(*versions):
        lines.append(f"versions differ: {found}")
    lines.append(f"{'':<{width}} {'A':>11} {'B':>11} {'B/A':>8}")
    for name in both:
        one, other = ours[name], theirs[name]
        ratio = f"{other.value / one.value:8.3f}" if one.value else f"{'-':>8}"
        star = " *" if one.differs(other) else ""
        lines.append(f"{name:<{width}} {one.value:>11.5g} {other.value:>11.5g} {ratio}{star}")
    if n_single := len(ours) + len(theirs) - 2 * len(both):
        lines.append(f"{n_single} figures stand in one file only")
    return "".join(f"{line}\n" for line in lines)


def _run(options: argparse.Namespace) -> None:
    a, b = load_record(options.a), load_record(options.b)
    check_comparable(a, b, other_machines=options.other_machines)
    sys.stdout.write(_text(a, b))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} before.json after.json")
    parser.add_argument("a", type=Path, metavar="A.json", help="a measurement saved with --json")
    parser.add_argument("b", type=Path, metavar="B.json", help="another")
    parser.add_argument(
        "--other-machines", action="store_true", help="compare them though the machines differ"
    )
    return run_command(parser, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
