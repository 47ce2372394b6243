"""What a window is: a count of events, or a span of time with an expected rate."""

import math
import re
from dataclasses import dataclass
from typing import Literal, Self

from engines.errors import ParameterError

__all__ = ["WindowSpec", "parse_delay_s", "parse_duration_or_zero_s", "parse_duration_s"]

_MAX_EVENTS = 1e9
_LONGEST_DELAY_S = 1.0
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """Return the seconds of a duration such as 500ms, 60s, 5m, 1h or 1d.

    Raises:
        ParameterError: if it is not a positive number with a unit.

    >>> parse_duration_s("5m")
    300.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(us|ms|s|min|m|h|d)", text.strip())
    if match is None or float(match[1]) == 0:
        msg = f"a duration must be a number above zero and one of {list(_UNITS_S)}; got {text!r}"
        raise ParameterError(msg)
    return float(match[1]) * _UNITS_S[match[2]]


def parse_duration_or_zero_s(text: str) -> float:
    """Return the seconds of a duration that may also be 0.

    Raises:
        ParameterError: if it is neither 0 nor a positive number with a unit.

    >>> parse_duration_or_zero_s("0"), parse_duration_or_zero_s("10m")
    (0.0, 600.0)
    """
    return 0.0 if text.strip() == "0" else parse_duration_s(text)


def parse_delay_s(text: str) -> float:
    """Return the seconds of a short duration that may also be 0.

    Raises:
        ParameterError: if it is neither 0 nor a positive number with a unit, or above 1 s.

    >>> parse_delay_s("0"), parse_delay_s("2ms")
    (0.0, 0.002)
    """
    seconds = parse_duration_or_zero_s(text)
    if seconds > _LONGEST_DELAY_S:
        msg = f"a delay must be at most {_LONGEST_DELAY_S:g}s; got {text!r}"
        raise ParameterError(msg)
    return seconds


@dataclass(frozen=True)
class WindowSpec:
    """How the stream is cut into windows, and what the null expects in one.

    Attributes:
        mode: `count`: a fixed number of events; `time`: a span, in which N_D is Poisson.
        n_expected: events expected under the null, N(R).
        span_s: length in seconds of a time window, else 0.
    """

    mode: Literal["count", "time"]
    n_expected: float
    span_s: float = 0.0

    @classmethod
    def parse(cls, text: str, rate_hz: float | None = None) -> Self:
        """Read `10000` as a count, or `60s` as a time span with an expected rate.

        Args:
            text: what the user typed.
            rate_hz: expected events per second under the null; needed for a time span.

        Raises:
            ParameterError: if the text is neither, or a time span has no rate.

        >>> WindowSpec.parse("60s", rate_hz=100.0)
        WindowSpec(mode='time', n_expected=6000.0, span_s=60.0)
        """
        if text.strip().isdecimal():
            if not 1 <= float(text) <= _MAX_EVENTS:
                msg = f"a window must hold from 1 to {_MAX_EVENTS:g} events; got {text!r}"
                raise ParameterError(msg)
            return cls("count", float(text))
        span_s = parse_duration_s(text)
        if rate_hz is None:
            msg = f"a time window needs the expected rate; add --rate EVENTS_PER_SECOND to {text!r}"
            raise ParameterError(msg)
        if not 1 <= span_s * rate_hz <= _MAX_EVENTS:
            msg = (
                f"a window must expect from 1 to {_MAX_EVENTS:g} events; {text!r} at "
                f"{rate_hz:g} Hz expects {span_s * rate_hz:g}"
            )
            raise ParameterError(msg)
        return cls("time", span_s * rate_hz, span_s)

    def same_as(self, other: Self) -> bool:
        """Whether two specs mean the same window, but for rounding of the expected count."""
        return self.mode == other.mode and all(
            math.isclose(mine, others, rel_tol=1e-9)
            for mine, others in ((self.n_expected, other.n_expected), (self.span_s, other.span_s))
        )

    def __str__(self) -> str:
        """Return the window as a person would say it."""
        if self.mode == "count":
            return f"{self.n_expected:.0f} events"
        return f"{self.span_s:g} s with {self.n_expected:g} events expected"
