"""When a window alarms."""

import numpy as np
import pytest

from engines.errors import ParameterError
from stream.alarms import FalseAlarmRate, Trials

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("text", "per_s"),
    [("1/hour", 1 / 3600), ("2/day", 2 / DAY_S), ("1/week", 1 / (7 * DAY_S)),
     ("0.5/month", 0.5 / (30 * DAY_S)), (" 1./year ", 1 / (365 * DAY_S))],
)  # fmt: skip
def test_rate_is_read(text: str, per_s: float) -> None:
    rate = FalseAlarmRate.parse(text)
    assert rate.per_s == pytest.approx(per_s)
    assert rate.text == text


@pytest.mark.parametrize(
    "text", ["", "1", "month", "/month", "1/", "0/day", "0.0/day", "-1/day", "1/minute", "1/Month",
             "one/day", "1e3/day", "1/day/2"]
)  # fmt: skip
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ParameterError, match=r"NUMBER/hour\|day\|week\|month\|year; got"):
        FalseAlarmRate.parse(text)


def test_threshold_is_rate_times_spacing() -> None:
    rate = FalseAlarmRate.parse("1/month")
    assert rate.threshold_p(60.0) == pytest.approx(60.0 / (30 * DAY_S))
    assert rate.threshold_p(0.0) == 0.0
    assert rate.threshold_p(1e9) == 0.01


def test_scales_share_the_rate_equally() -> None:
    rate = FalseAlarmRate.parse("1/day")
    shared = rate.shared(3)
    assert shared.threshold_p(600.0) == pytest.approx(rate.threshold_p(600.0) / 3)
    p = shared.threshold_p(600.0)
    assert shared.inverse_s(p, 600.0) == pytest.approx(DAY_S)
    assert shared.text == "1/day"


def test_trials_keep_the_smallest_p() -> None:
    trials = Trials().add(0.3).add(0.01).add(0.5)
    assert (trials.n, trials.smallest_p) == (3, 0.01)
    assert trials.global_p == pytest.approx(1 - 0.99**3)


def test_global_p_of_one_window_is_its_own() -> None:
    assert Trials().add(0.2).global_p == pytest.approx(0.2)
    assert Trials().add(1e-200).global_p == pytest.approx(1e-200)


@pytest.mark.parametrize("p", [1e-300, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 1000, 10**7])
def test_global_p_is_a_probability_and_no_smaller_than_p(p: float, n: int) -> None:
    trials = Trials(n, p)
    assert p * (1 - 1e-9) <= trials.global_p <= 1.0
    assert np.isfinite(trials.global_z)
