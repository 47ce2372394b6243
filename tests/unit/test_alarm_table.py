"""Which windows make one alarm, and how alarms are told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.alarm.table import Alarm, KeptWindow, alarm_table, group_windows, utc

BASE: dict[str, Any] = {
    "run": "r1", "window": 0, "alarm_window": None, "t_start_ns": 0, "t_end_ns": 10**9, "t": 80.0,
    "z_alarm": 5.0, "p_alarm": 3e-7, "inverse_far_s": 7200.0, "n_events": 500,
    "p_relabelled": None, "relabelling": "off", "below_null": False,
}  # fmt: skip


def kept(window: int, opened_by: int | None, *, z: float = 5.0, run: str = "r1") -> KeptWindow:
    changes = {"run": run, "window": window, "alarm_window": opened_by, "z_alarm": z}
    result = {**BASE, **changes, "t_start_ns": window * 10**9}
    path = Path(f"alarm-{run}-{window:06d}.h5")
    return KeptWindow(path, result, {"det0": 500}, np.array([40, 30, 1, 0, 2], np.float32))


def windows(alarm: Alarm) -> list[int]:
    return [window.result["window"] for window in alarm.windows]


def test_windows_merge_by_the_one_that_opened_their_alarm() -> None:
    alarms = group_windows(
        [kept(9, 9), kept(4, 3, z=7.0), kept(3, 3), kept(5, 3), kept(3, 3, run="r2")]
    )
    assert [windows(alarm) for alarm in alarms] == [[3, 4, 5], [3], [9]]
    assert [alarm.name for alarm in alarms] == ["3-5", "3", "9"]
    assert alarms[0].strongest.result["window"] == 4
    assert alarms[0].strength == (False, 7.0, 80.0)


def test_windows_of_runs_that_did_not_merge_stand_alone() -> None:
    older = kept(4, None)
    del older.result["alarm_window"]
    assert [windows(alarm) for alarm in group_windows([kept(3, None), older])] == [[3], [4]]


def test_alarm_whose_opening_window_is_gone_stays_one() -> None:
    assert [windows(alarm) for alarm in group_windows([kept(5, 3), kept(4, 3)])] == [[4, 5]]


def test_table_has_one_aligned_line_an_alarm() -> None:
    confirmed = kept(7, 7)
    confirmed.result["p_relabelled"] = 0.01
    text = alarm_table(group_windows([kept(3, 3), kept(4, 3, z=6.5), confirmed]))
    head, first, second, *_ = text.splitlines()
    assert first.split()[:6] == ["1", "r1", "3-4", "stored", "events", "6.50"]
    assert " 2.0h " in first
    assert " off " in first
    assert " 0.01 " in second
    assert first.index("det0") == second.index("det0") == head.index("sources")
    assert first.split()[-6:] == ["40", "30", "1", "0", "2", "det0"]


def test_names_from_the_wire_are_escaped_and_many_are_counted() -> None:
    sources = {"a\x1b[2J\n\u202eb": 1, **{f"det{k}": 1 for k in range(9)}}
    text = alarm_table(group_windows([replace(kept(0, 0, run="r\n\x07"), sources=sources)]))
    assert r"a\x1b[2J\n\u202eb, det0, det1 and 7 more" in text
    assert r"r\n\x07" in text
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize(
    ("t_ns", "text"),
    [(0, "stored events"), (2**63, "2262-04-11 23:47:16"), (10**30, f"{10**30} ns"),
     (-(10**30), f"-{10**30} ns")],
)  # fmt: skip
def test_time_of_any_size_is_said(t_ns: int, text: str) -> None:
    assert utc(t_ns) == text
