"""What the live page is told: each window once, an alarm once, everything after a restart."""

import json
from typing import Any

import numpy as np
import pytest

from engines.nplm import z_score
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.monitor import Monitor
from stream.page_data import unseen, window_view
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window

_WINDOWS = [{"run": "a", "window": index, "t": 1.0} for index in range(5)]
_ALARM = {"run": "a", "window": 3, "plane": {"x": [0.0]}, "top": []}


def data() -> dict[str, Any]:
    return {"events": 7, "windows": list(_WINDOWS), "last_alarm": dict(_ALARM)}


@pytest.mark.parametrize(
    "query",
    ["", "after=", "after=b:4", "after=a:9", "after=a", "after=a:x&alarm=:", "&&=;%00", "alarm=a:4",
     "after[]=a:4", "after=a:-1"],
)  # fmt: skip
def test_whoever_knows_nothing_of_this_run_gets_everything(query: str) -> None:
    assert unseen(data(), query) == data()


@pytest.mark.parametrize(("after", "first"), [(0, 1), (3, 4), (4, 5)])
def test_windows_after_the_last_one_seen(after: int, first: int) -> None:
    told = unseen(data(), f"after=a:{after}")
    assert told["continues"]
    assert told["windows"] == _WINDOWS[first:]
    assert told["events"] == 7


def test_alarm_that_is_known_is_only_named() -> None:
    given = data()
    assert unseen(given, "alarm=a:3")["last_alarm"] == {"run": "a", "window": 3}
    assert given == data()


@pytest.mark.parametrize("snapshot", [{}, {"windows": []}, {"last_alarm": None, "windows": [{}]}])
def test_snapshot_without_them(snapshot: dict[str, Any]) -> None:
    assert unseen(snapshot, "after=a:0&alarm=a:0") == snapshot


def test_second_that_brought_nothing_costs_little() -> None:
    windows = [{**window, "window": index} for index in range(500) for window in _WINDOWS[:1]]
    told = unseen({**data(), "windows": windows}, "after=a:499&alarm=a:3")
    assert len(json.dumps(told)) < 200


def test_view_is_a_small_part_of_the_result() -> None:
    artifact = small_artifact(n_toys=9)
    monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")), run="r")
    events = gaussians(200, np.random.default_rng(1))
    result = monitor.examine(closed_window(events, artifact.reference))[0]
    shown = window_view(result)
    assert shown.pop("threshold_z") == z_score(result.threshold_p)
    assert shown.items() <= result.record().items()
    assert len(json.dumps(shown)) < 600
