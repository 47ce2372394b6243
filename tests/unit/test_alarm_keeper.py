"""Which windows of an alarm are kept: few, whatever the alarm does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream.account import Rules
from stream.alarm.keeper import AlarmFolder, AlarmKeeper
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.sparse_log import SparseLog
from stream.window import ClosedWindow
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window

ARTIFACT = small_artifact(n_toys=9)
NULL = NullUsed.of(ARTIFACT, Path("d4.ref"))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def alarming(index: int, opened_by: int, z: float) -> tuple[ClosedWindow, WindowResult]:
    events = gaussians(50, np.random.default_rng(index))
    window = closed_window(events, ARTIFACT.reference, index=index)
    result = Monitor(ARTIFACT, Rules(FalseAlarmRate.parse("1/day")), run="r").examine(window)[0]
    onset = index == opened_by
    return window, replace(result, alarm=True, onset=onset, alarm_window=opened_by, z_alarm=z)


def follow(keeper: AlarmKeeper, *alarms: tuple[int, int, float]) -> None:
    for alarm in alarms:
        window, result = alarming(*alarm)
        keeper.follow(window, np.linspace(0, 1, len(window)), result)


def test_first_and_each_more_extreme_window_is_kept(tmp_path: Path, metrics: Metrics) -> None:
    keeper = AlarmKeeper(AlarmFolder(tmp_path, NULL), metrics, SparseLog())
    follow(keeper, (3, 3, 5.0), (4, 3, 4.0), (5, 3, 7.0), (6, 3, 6.5), (9, 9, 4.5))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"alarm-r-{index:06d}.h5" for index in (3, 5, 9)]
    assert metrics.records == {"kept": 3, "failed": 0}
    assert keeper.shown is not None
    assert (keeper.shown["window"], keeper.shown["z"]) == (9, 4.5)


def test_quiet_windows_are_not_kept(tmp_path: Path, metrics: Metrics) -> None:
    keeper = AlarmKeeper(AlarmFolder(tmp_path, NULL), metrics, SparseLog())
    window, result = alarming(0, 0, 9.0)
    keeper.follow(window, np.zeros(50), replace(result, alarm=False, onset=False))
    assert list(tmp_path.iterdir()) == []
    assert keeper.shown is None


def test_alarm_is_shown_without_a_folder(metrics: Metrics) -> None:
    keeper = AlarmKeeper(None, metrics, SparseLog())
    follow(keeper, (3, 3, 5.0))
    assert keeper.shown is not None
    assert metrics.records == {"kept": 0, "failed": 0}


def test_folder_that_takes_nothing_is_counted_and_logged_once(
    tmp_path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    keeper = AlarmKeeper(AlarmFolder(tmp_path / "file", NULL), metrics, SparseLog())
    follow(keeper, (3, 3, 5.0), (7, 7, 5.0), (11, 11, 5.0))
    assert metrics.records == {"kept": 0, "failed": 3}
    assert len([r for r in caplog.records if "alarm not kept" in r.message]) == 1


def test_below_the_null_the_lowest_t_is_the_most_extreme(tmp_path: Path, metrics: Metrics) -> None:
    keeper = AlarmKeeper(AlarmFolder(tmp_path, NULL), metrics, SparseLog())
    for index, t in enumerate((-80.0, -200.0, -90.0)):
        window, result = alarming(index, 0, -9.0)
        result = replace(result, below_null=True, t=t)
        keeper.follow(window, np.linspace(0, 1, len(window)), result)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alarm-r-000000.h5", "alarm-r-000001.h5"
    ]  # fmt: skip


def test_window_that_could_not_be_kept_keeps_no_other_out(tmp_path: Path, metrics: Metrics) -> None:
    folder = tmp_path / "alarms"
    folder.write_text("in the way")
    keeper = AlarmKeeper(AlarmFolder(folder, NULL), metrics, SparseLog())
    follow(keeper, (3, 3, 9.0))
    folder.unlink()
    follow(keeper, (4, 3, 5.0))
    assert [path.name for path in folder.iterdir()] == ["alarm-r-000004.h5"]
