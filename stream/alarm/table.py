"""Alarms for people and for programs: which windows belong together, and a line for each alarm."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.event_quantities import QUANTITIES
from engines.types import FloatArray
from stream.alarm.contents import AlarmContents
from stream.alarm.strength import Strength, strength
from stream.plain_text import plain_text
from stream.results import duration

__all__ = ["Alarm", "KeptWindow", "alarm_table", "group_windows", "utc"]

#: 1990: no experiment that sends its events here took data before.
_EARLIEST_NS = 631_152_000 * 10**9

_N_TYPICAL = 20
_HEADS = (
    *("", "run", "windows", "when (UTC)", "Z", "t", "p", "1/FAR", "relabelled p", "events"),
    *("lead pT", "MET", "e", "mu", "jets", "sources"),
)
_LEFT = ("run", "windows", "when (UTC)", "sources")


@dataclass(frozen=True)
class KeptWindow:
    """A window that alarmed, without its events.

    Attributes:
        path: its record.
        result: its line of the results.
        sources: events by source.
        typical: (5,) median `QUANTITIES` of its 20 most anomalous events; None where only
            embeddings came.
    """

    path: Path
    result: dict[str, Any]
    sources: dict[str, int]
    typical: FloatArray | None

    @classmethod
    def of(cls, path: Path, alarm: AlarmContents) -> Self:
        """Return a record without its events."""
        typical = None
        if alarm.has_kinematics:
            typical = np.median(alarm.quantities[alarm.rows[:_N_TYPICAL]], axis=0)
        return cls(path, alarm.result, alarm.sources, typical)

    @property
    def strength(self) -> Strength:
        """What the strongest has most of."""
        result = self.result
        return strength(below_null=result["below_null"], z=result["z_alarm"], t=result["t"])

    def record(self) -> dict[str, object]:
        """Return it as what JSON can hold."""
        names = [quantity.name for quantity in QUANTITIES]
        typical = [None] * len(names) if self.typical is None else self.typical.tolist()
        return {
            "file": str(self.path),
            "result": self.result,
            "sources": self.sources,
            "median_of_most_anomalous": dict(zip(names, typical, strict=True)),
        }


@dataclass(frozen=True)
class Alarm:
    """A window that opened an alarm and those that were merged into it, by index."""

    windows: tuple[KeptWindow, ...]

    @property
    def strongest(self) -> KeptWindow:
        """The most extreme window."""
        return max(self.windows, key=lambda window: window.strength)

    @property
    def strength(self) -> Strength:
        """That of its strongest window."""
        return self.strongest.strength

    @property
    def name(self) -> str:
        """Its windows, in words."""
        first, last = (self.windows[place].result["window"] for place in (0, -1))
        return f"{first}" if first == last else f"{first}-{last}"

    def record(self) -> dict[str, object]:
        """Return it as what JSON can hold."""
        return {
            "run": self.strongest.result["run"],
            "strongest": str(self.strongest.path),
            "windows": [window.record() for window in self.windows],
        }


def group_windows(windows: Iterable[KeptWindow]) -> list[Alarm]:
    """Return the alarms that windows belong to, in the order in which they were opened."""
    groups: dict[tuple[str, int], list[KeptWindow]] = {}
    for window in sorted(windows, key=lambda kept: int(kept.result["window"])):
        opened_by = window.result.get("alarm_window")
        number = window.result["window"] if opened_by is None else opened_by
        groups.setdefault((window.result["run"], number), []).append(window)
    alarms = [Alarm(tuple(group)) for group in groups.values()]
    return sorted(alarms, key=lambda alarm: int(alarm.windows[0].result["t_start_ns"]))


def alarm_table(alarms: Sequence[Alarm]) -> str:
    """Return one line an alarm, with what its strongest window showed, under a head."""
    cells = [_HEADS, *(_cells(number, alarm) for number, alarm in enumerate(alarms, 1))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if head in _LEFT else cell.rjust(width)
            for head, cell, width in zip(_HEADS, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
    note = (
        "Z, t and p are of an alarm's strongest window; lead pT and MET [GeV] and multiplicities "
        f"are\nmedians of its {_N_TYPICAL} most anomalous events."
    )
    return "\n".join([*lines, note]) + "\n"


def _cells(number: int, alarm: Alarm) -> tuple[str, ...]:
    strongest, result = alarm.strongest, alarm.strongest.result
    relabelled, below = result.get("p_relabelled"), result.get("below_null")
    sources = ", ".join(plain_text(name, 24) for name in list(strongest.sources)[:3])
    more = len(strongest.sources) - 3
    typical = strongest.typical
    return (
        str(number),
        plain_text(result["run"], 24),
        alarm.name,
        utc(alarm.windows[0].result["t_start_ns"]),
        "below null" if below else f"{result['z_alarm']:.2f}",
        f"{result['t']:.1f}",
        f"{result['p_alarm']:.2g}",
        duration(result["inverse_far_s"]),
        plain_text(result["relabelling"], 12) if relabelled is None else f"{relabelled:.2g}",
        str(result["n_events"]),
        *("-" for _ in QUANTITIES if typical is None),
        *(f"{value:.0f}" for value in (() if typical is None else typical)),
        sources + (f" and {more} more" if more > 0 else ""),
    )


def utc(t_ns: int) -> str:
    """Return a production time to the second; what no calendar holds, in nanoseconds.

    Windows of stored events (`stream-scan`) have no time of production: theirs is counted from 0.

    >>> utc(1_000_000_000_000_000_000)
    '2001-09-09 01:46:40'
    """
    if 0 <= t_ns < _EARLIEST_NS:
        return "stored events"
    try:
        time = datetime.datetime.fromtimestamp(t_ns / 1e9, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{t_ns} ns"
    return f"{time:%Y-%m-%d %H:%M:%S}"
