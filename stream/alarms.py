"""When a window alarms.

The operator sets a false-alarm rate. A window alarms when p <= rate x window spacing, so that over
any time T the expected number of false alarms is rate x T, whatever the windows' lengths.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from engines.errors import ParameterError
from engines.nplm import z_score

__all__ = ["FalseAlarmRate", "Trials"]

_PERIODS_S = {
    "hour": 3600.0,
    "day": 86_400.0,
    "week": 7 * 86_400.0,
    "month": 30 * 86_400.0,
    "year": 365 * 86_400.0,
}
#: No window alarms above this p-value, however rarely windows close.
_LARGEST_P = 0.01


@dataclass(frozen=True)
class FalseAlarmRate:
    """A budget of false alarms per time; written `1/month`.

    Attributes:
        per_s: false alarms per second.
        text: what the operator typed.
        n_scales: how many time scales share them, equally.
    """

    per_s: float
    text: str
    n_scales: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read NUMBER/PERIOD, the period an hour, day, week, month (30 days) or year.

        Raises:
            ParameterError: if it is not of that form.

        >>> FalseAlarmRate.parse("1/day").per_s * 86400
        1.0
        """
        match = re.fullmatch(r"(\d+(?:\.\d*)?)/([a-z]+)", text.strip())
        if match is None or match[2] not in _PERIODS_S or float(match[1]) == 0:
            msg = f"a false-alarm rate must be NUMBER/{'|'.join(_PERIODS_S)}; got {text!r}"
            raise ParameterError(msg)
        return cls(float(match[1]) / _PERIODS_S[match[2]], text)

    def shared(self, n_scales: int) -> Self:
        """Return the rate as each of so many scales sees it."""
        return replace(self, n_scales=n_scales)

    def threshold_p(self, spacing_s: float) -> float:
        """Return the p-value at or below which a window of one scale alarms, capped at 0.01."""
        return min(self.per_s * spacing_s / self.n_scales, _LARGEST_P)

    def inverse_s(self, p_value: float, spacing_s: float) -> float:
        """Return how many seconds hold one false alarm, were this p-value the threshold.

        >>> FalseAlarmRate.parse("1/day").shared(2).inverse_s(0.001, 60.0)
        30000.0
        """
        return spacing_s / (p_value * self.n_scales)


@dataclass(frozen=True)
class Trials:
    """How many windows a run has tested, and the smallest p-value among them."""

    n: int = 0
    smallest_p: float = 1.0

    def add(self, p_value: float) -> "Trials":
        """Return the trials with one more window."""
        return Trials(self.n + 1, min(self.smallest_p, p_value))

    @property
    def global_p(self) -> float:
        """P-value of the smallest p among n (Sidak): 1 - (1 - p_min)^n.

        The windows share one reference, hence are not independent; this is an approximation.
        Before any window it is 1.
        """
        if self.n == 0:
            return 1.0
        return float(-np.expm1(self.n * np.log1p(-min(self.smallest_p, 1.0 - 1e-16))))

    @property
    def global_z(self) -> float:
        """Z of the run, corrected for its trials."""
        return z_score(self.global_p)
