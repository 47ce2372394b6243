"""Where results go."""

import io
import json
import math
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ArtifactError
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.endpoints import Context, Socket, bound_endpoint, open_publisher, open_receiver
from stream.monitor import Monitor
from stream.results import JsonLines, Publisher, Table, duration, json_line
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window


@pytest.fixture(scope="module")
def result() -> WindowResult:
    artifact = small_artifact(n_toys=9)
    monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")), run="r")
    events = gaussians(200, np.random.default_rng(1))
    return monitor.examine(closed_window(events, artifact.reference))[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.0123, "0.012s"), (1.0, "1.0s"), (59.0, "59.0s"), (90.0, "1.5m"),
     (7200.0, "2.0h"), (86_400.0, "1.0d"), (365 * 86_400.0, "1.0y"), (200 * 365 * 86_400.0, "200y"),
     (1e15, ">1My")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_table_marks_limits_and_alarms(result: WindowResult) -> None:
    stream = io.StringIO()
    table = Table(stream)
    table.write(replace(result, alarm=False, z=1.234))
    at_limit = replace(result, p=result.p_resolution, z=2.345)
    table.write(replace(at_limit, alarm=True, inverse_far_s=7200.0))
    table.close()
    head, plain, alarm = stream.getvalue().splitlines()
    assert head.split()[:3] == ["window", "events", "t"]
    assert "ALARM" not in plain
    assert " 1.23 " in plain
    assert ">=2.35" in alarm or ">=2.34" in alarm
    assert " 2.0h " in alarm
    assert alarm.endswith("ALARM")


def test_table_says_how_relabelling_confirmed_an_alarm(result: WindowResult) -> None:
    stream = io.StringIO()
    table = Table(stream)
    confirmed = replace(result, alarm=True, p_relabelled=0.01, n_relabellings=99)
    table.write(confirmed)
    table.write(replace(confirmed, below_null=True))
    _, above, below = stream.getvalue().splitlines()
    assert above.endswith("  ALARM (relabelled p 0.01)")
    assert below.endswith("  ALARM: t below null (relabelled p 0.01)")


def test_table_names_longer_scales(result: WindowResult) -> None:
    stream = io.StringIO()
    table = Table(stream)
    table.write(result)
    table.write(replace(result, window=3, scale=10, converged=None))
    _, one, ten = stream.getvalue().splitlines()
    assert (one.split()[0], ten.split()[0]) == ("0", "3x10")
    assert "not converged" not in ten


def test_table_says_what_is_wrong_with_a_window(result: WindowResult) -> None:
    stream = io.StringIO()
    table = Table(stream)
    table.write(replace(result, n_missing=3, converged=False))
    table.write(replace(result, below_null=True, alarm=True))
    table.write(replace(result, complete=False))
    _, wanting, below, cut = stream.getvalue().splitlines()
    assert wanting.endswith("  3 messages missing, not converged")
    assert below.endswith("  ALARM: t below null")
    assert cut.endswith("  cut by a clock set back or far too many events, does not count")


def test_table_keeps_its_columns(result: WindowResult) -> None:
    stream = io.StringIO()
    table = Table(stream)
    table.write(result)
    table.write(replace(result, window=1234, scale=10, t=-12345.6, p=1e-300, inverse_far_s=1e300))
    lines = stream.getvalue().splitlines()
    assert len({len(line) for line in lines}) == 1


def test_line_is_on_disk_at_once_and_appended_later(tmp_path: Path, result: WindowResult) -> None:
    path = tmp_path / "r.jsonl"
    first = JsonLines(path)
    first.write(result)
    assert len(path.read_text().splitlines()) == 1
    first.close()
    second = JsonLines(path)
    second.write(replace(result, window=1))
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["window"] for line in lines] == [0, 1]
    assert lines[0] == json.loads(json.dumps(result.record()))


def test_file_of_another_consumer_is_refused(tmp_path: Path, result: WindowResult) -> None:
    path = tmp_path / "r.jsonl"
    first = JsonLines(path)
    with pytest.raises(ArtifactError, match="another consumer is writing results to"):
        JsonLines(path)
    first.write(result)
    first.close()
    JsonLines(path).close()


def test_line_never_holds_nan(tmp_path: Path, result: WindowResult) -> None:
    sink = JsonLines(tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        sink.write(replace(result, t=math.nan))
    sink.close()
    assert (tmp_path / "r.jsonl").read_text() == ""


def test_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write results to"):
        JsonLines(tmp_path / "absent" / "r.jsonl")
    with pytest.raises(ArtifactError, match="cannot write results to"):
        JsonLines(tmp_path)


def test_published_result_is_the_line(
    context: Context, tmp_path: Path, result: WindowResult
) -> None:
    pub: Socket = open_publisher(context, f"ipc://{tmp_path}/results.sock")
    sink = Publisher(pub)
    with open_receiver(context, bound_endpoint(pub), "sub") as sub:
        while not sub.poll(10):  # until the subscription has arrived
            sink.write(result)
        assert json.loads(sub.recv()) == json.loads(json.dumps(result.record()))
    sink.close()


def numbered(result: WindowResult, n: int) -> list[WindowResult]:
    return [replace(result, window=number) for number in range(n)]


def windows(path: Path) -> list[int]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["window"] for line in text.splitlines()]


def test_line_that_a_kill_tore_is_cut_off(tmp_path: Path, result: WindowResult) -> None:
    path, line = tmp_path / "r.jsonl", json_line(result)
    for place in range(0, len(line), 37):
        path.write_text(line + line[:place])
        sink = JsonLines(path)
        sink.write(replace(result, window=1))
        sink.close()
        assert windows(path) == [0, 1]


def test_other_text_at_the_end_is_kept(tmp_path: Path, result: WindowResult) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("# notes of the shift")
    sink = JsonLines(path)
    sink.write(result)
    sink.close()
    notes, line = path.read_text().splitlines()
    assert notes == "# notes of the shift"
    assert json.loads(line)["window"] == 0


def test_planned_lines_stand_there_once_wherever_a_kill_cut(
    tmp_path: Path, result: WindowResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them take their time
    path, (old, *new) = tmp_path / "r.jsonl", numbered(result, 3)
    sink = JsonLines(path)
    sink.write(old)
    plan = json.loads(json.dumps(sink.plan(new)))
    sink.close()
    start, planned = path.read_text(), "".join(map(json_line, new))
    for place in range(len(planned) + 1):
        path.write_text(start + planned[:place])
        for _ in range(2):  # a second kill before anything else
            again = JsonLines(path)
            again.complete(plan)
            again.close()
        assert path.read_text() == start + planned, place


def test_plan_holds_what_a_full_disk_refused(
    tmp_path: Path, result: WindowResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (first, second, third) = tmp_path / "r.jsonl", numbered(result, 3)
    sink = JsonLines(path)
    sink.write(first)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing)
        with pytest.raises(OSError, match="no space"):
            sink.write(second)
    assert windows(path) == [0]
    plan = json.loads(json.dumps(sink.plan([third])))
    sink._file.close()
    again = JsonLines(path)  # as after a kill
    again.complete(plan)
    again.close()
    assert windows(path) == [0, 1, 2]


def refusing(_file: int) -> None:
    msg = "no space left on device"
    raise OSError(msg)


def test_full_disk_gets_its_lines_later(
    tmp_path: Path, result: WindowResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    sink = JsonLines(path)
    first, *others = numbered(result, 5)
    sink.write(first)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing)
        for one in others[:3]:
            with pytest.raises(OSError, match="no space"):
                sink.write(one)
            assert windows(path) == [0]
    sink.write(others[3])
    sink.close()
    assert windows(path) == [0, 1, 2, 3, 4]


def test_plan_of_another_file_is_left_alone(tmp_path: Path, result: WindowResult) -> None:
    sink = JsonLines(tmp_path / "one.jsonl")
    plan = sink.plan([result])
    sink.close()
    other = JsonLines(tmp_path / "two.jsonl")
    other.complete(plan)
    other.close()
    assert windows(tmp_path / "two.jsonl") == []


def test_pipe_gets_each_line_once(tmp_path: Path, result: WindowResult) -> None:
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    sink = JsonLines(path)
    for one in numbered(result, 3):
        plan = sink.plan([one])
        sink.write(one)
    sink.complete(plan)
    sink.close()
    reader.join()
    assert [json.loads(line)["window"] for line in got[0].splitlines()] == [0, 1, 2]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_device_that_is_full_does_not_end_the_run(result: WindowResult) -> None:
    sink = JsonLines(Path("/dev/full"))
    for one in numbered(result, 3):
        with pytest.raises(OSError, match="No space left"):
            sink.write(one)
    sink.complete(sink.plan([result]))
    sink.close()


def test_file_that_is_moved_away_keeps_whole_lines(tmp_path: Path, result: WindowResult) -> None:
    path, moved = tmp_path / "r.jsonl", tmp_path / "r.jsonl.1"
    sink = JsonLines(path)
    first, second = numbered(result, 2)
    sink.write(first)
    path.rename(moved)
    sink.write(second)
    sink.close()
    assert windows(moved) == [0, 1]
    again = JsonLines(path)
    again.write(replace(result, window=2))
    again.close()
    assert windows(path) == [2]
