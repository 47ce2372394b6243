"""What the consumer says at its start of the law that its alarms rest on."""

import argparse
from dataclasses import replace

import numpy as np
import pytest

from engines.nplm import WidthNulls
from engines.types import Float64Array
from stream.alarms import FalseAlarmRate
from stream.console import announce
from tests.support import LinearEngine, small_artifact

MONTHLY = FalseAlarmRate.parse("1/month")
RNG = np.random.default_rng(0)


def say(t: Float64Array, alarm_on: str) -> None:
    artifact = replace(small_artifact(), nulls={1: WidthNulls(t[:, None])})
    options = argparse.Namespace(
        engine="d4.onnx",
        slide=None,
        alarm_on=alarm_on,
        fdr=0.0,
        endpoint="tcp://*",
        pattern="pull",
        reliable=False,
        http="",
    )
    announce(options, LinearEngine(), artifact, MONTHLY)


def test_precision_that_is_not_the_references_is_told(caplog: pytest.LogCaptureFixture) -> None:
    engine = LinearEngine()
    engine.precision = "bf16"
    options = argparse.Namespace(
        engine="d4.plan",
        slide=None,
        alarm_on="toys",
        fdr=0.0,
        endpoint="tcp://*",
        pattern="pull",
        reliable=False,
        http="",
    )
    announce(options, engine, small_artifact(), MONTHLY)
    assert "embedded in fp32, this engine computes in bf16" in caplog.text


@pytest.mark.parametrize(
    ("t", "wanted"),
    [
        (RNG.gamma(5.0, 8.0, 2000), "not to be trusted; --alarm-on gamma is safer"),
        (np.concatenate([RNG.normal(20, 1, 500), RNG.normal(60, 1, 500)]), "--alarm-on toys is"),
    ],
)
def test_toys_that_follow_another_law_are_told(
    t: Float64Array, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    say(t, "chi2")
    assert wanted in caplog.text


def test_toys_that_follow_the_law_need_no_warning(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    say(RNG.chisquare(40.0, 2000), "chi2")
    assert caplog.text == ""
    said = capsys.readouterr().out
    assert "alarms      at 1/month, on the chi2 p-value" in said
    assert "99 toys of 200 events from a pool of 4000 background events" in said


def test_toys_alone_say_how_rarely_they_can_alarm(caplog: pytest.LogCaptureFixture) -> None:
    say(RNG.chisquare(40.0, 99), "toys")
    assert "99 toys give a window no p below about 0.01, so at 1/month only windows" in caplog.text
