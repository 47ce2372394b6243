"""What a window is, as typed and as compared."""

import math

import pytest

from engines.errors import ParameterError
from engines.windows import WindowSpec, parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("1d", 86400),
     (" 2 s ", 2), ("1.s", 1)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "60", "0s", "0.0h", "-1s", "1e3s", "1w", "1 month", "x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ParameterError, match="number above zero and one of"):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["1", "10000", " 500 "])
def test_count(text: str) -> None:
    assert WindowSpec.parse(text) == WindowSpec("count", float(text))
    assert WindowSpec.parse(text, rate_hz=5.0) == WindowSpec("count", float(text))


def test_time_span() -> None:
    assert WindowSpec.parse("2m", 10.0) == WindowSpec("time", 1200.0, 120.0)


@pytest.mark.parametrize("text", ["0", "00", "9" * 12, "9" * 400])
def test_count_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="must hold from 1 to 1e\\+09 events"):
        WindowSpec.parse(text)


@pytest.mark.parametrize("text", ["", "-5", "1e4", "1.5", "many", "\u00b2", "10 000"])
def test_what_is_neither_count_nor_span_is_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        WindowSpec.parse(text, 10.0)


def test_span_needs_a_rate() -> None:
    with pytest.raises(ParameterError, match="--rate EVENTS_PER_SECOND"):
        WindowSpec.parse("60s")


@pytest.mark.parametrize("rate_hz", [1e-3, 1e300])
def test_span_that_expects_no_event_or_too_many_is_refused(rate_hz: float) -> None:
    with pytest.raises(ParameterError, match="must expect from 1 to"):
        WindowSpec.parse("60s", rate_hz)


def test_same_window_but_for_rounding() -> None:
    spec = WindowSpec("time", 6000.0, 60.0)
    assert spec.same_as(WindowSpec("time", math.nextafter(6000.0, 7000.0), 60.0))
    assert not spec.same_as(WindowSpec("time", 6001.0, 60.0))
    assert not spec.same_as(WindowSpec("time", 6000.0, 61.0))
    assert not spec.same_as(WindowSpec("count", 6000.0))


def test_window_in_words() -> None:
    assert str(WindowSpec("count", 10_000.0)) == "10000 events"
    assert str(WindowSpec("time", 6000.0, 60.0)) == "60 s with 6000 events expected"
