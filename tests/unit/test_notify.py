"""Alarms told to a webhook: what arrives, what is tried again, what never blocks."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import urllib3

from engines.errors import ParameterError
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.monitor import Monitor
from stream.notify import Webhook
from stream.sparse_log import SparseLog
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact
from tests.support_stream import closed_window
from tests.support_webhook import Receiver, receiving

QUICK = urllib3.Retry(
    total=3, backoff_factor=0.01, status_forcelist=(500, 503), allowed_methods=None
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def alarm() -> WindowResult:
    artifact = small_artifact(n_toys=9)
    monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")), run="r1")
    events = gaussians(200, np.random.default_rng(1))
    result = monitor.examine(closed_window(events, artifact.reference, index=7))[0]
    return replace(result, alarm=True, onset=True, alarm_window=7, z_alarm=6.25, t=123.4)


def outcomes_of(url: str, *results: WindowResult) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    webhook = Webhook(url, outcomes, SparseLog(), QUICK)
    for result in results:
        webhook.write(result)
    webhook.close()
    return outcomes


def test_each_alarm_is_posted_once(receiver: Receiver, alarm: WindowResult) -> None:
    quiet = replace(alarm, alarm=False, onset=False, alarm_window=None)
    merged = replace(alarm, onset=False, window=8)
    assert outcomes_of(receiver.url, quiet, alarm, merged) == {"delivered": 1}
    (body,) = receiver.bodies
    assert body["id"] == "r1/1/7"
    assert str(body["text"]).startswith("ALARM in window 7 of run r1: Z 6.2, t 123.4, expected")
    assert body["result"] == json.loads(json.dumps(alarm.record()))


def test_an_answer_of_500_is_tried_again(receiver: Receiver, alarm: WindowResult) -> None:
    receiver.answers = [500, 503]
    assert outcomes_of(receiver.url, alarm) == {"delivered": 1}
    assert [body["id"] for body in receiver.bodies] == ["r1/1/7"] * 3


@pytest.mark.parametrize("answers", [[500] * 9, [404]])
def test_what_is_refused_is_counted_and_logged_without_the_secret(
    receiver: Receiver,
    alarm: WindowResult,
    answers: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.answers = answers
    assert outcomes_of(receiver.url, alarm) == {"failed": 1}
    lines = [record.message for record in caplog.records if "notification failed" in record.message]
    assert len(lines) == 1
    assert "abc" not in lines[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_alarm_goes_to_no_other_place(
    receiver: Receiver, alarm: WindowResult, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving() as other:
        receiver.answers, receiver.location = [status], other.url
        assert outcomes_of(receiver.url, alarm) == {"failed": 1}
        assert len(receiver.bodies) == 1
        assert other.bodies == []
    assert f"it answered {status}" in caplog.text


@pytest.mark.parametrize("answers", [[], [500, 503]])
def test_an_answer_without_end_is_not_read(
    receiver: Receiver, alarm: WindowResult, answers: list[int]
) -> None:
    n_attempts = len(answers) + 1
    receiver.answers, receiver.endless = answers, True
    started = time.monotonic()
    assert outcomes_of(receiver.url, alarm) == {"delivered": 1}
    assert time.monotonic() - started < 4
    assert len(receiver.bodies) == n_attempts


def test_nobody_there_is_counted(alarm: WindowResult) -> None:
    assert outcomes_of("http://127.0.0.1:9/", alarm) == {"failed": 1}


def test_connections_that_break_leave_no_secret_in_the_log(
    alarm: WindowResult, caplog: pytest.LogCaptureFixture
) -> None:
    assert outcomes_of("http://127.0.0.1:9/services/T0KEN", alarm) == {"failed": 1}
    assert len(caplog.records) == 1
    assert "T0KEN" not in caplog.text


def test_a_webhook_that_hangs_blocks_nothing(
    receiver: Receiver, alarm: WindowResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.notify._LAST_WAIT_S", 0.2)
    receiver.may_answer.clear()
    outcomes: Counter[str] = Counter()
    webhook = Webhook(receiver.url, outcomes, SparseLog(), QUICK)
    started = time.monotonic()
    for window in range(100):
        webhook.write(replace(alarm, window=window))
    assert webhook.n_waiting == webhook.capacity == 64
    assert outcomes["dropped"] >= 35
    assert not webhook.is_done
    webhook.close()
    assert not webhook.is_done
    assert time.monotonic() - started < 5
    assert sum(outcomes.values()) >= 99


@pytest.mark.parametrize("url", ["", "host/path", "ftp://host/", "http://", "file:///etc/passwd"])
def test_what_is_no_webhook(url: str) -> None:
    with pytest.raises(ParameterError, match="must be a URL such as https://host/path"):
        Webhook(url, Counter(), SparseLog())
