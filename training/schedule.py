"""The learning rate of every step."""

import math
from dataclasses import dataclass

from engines.errors import ParameterError

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = ("cosine", "plateau", "constant")
#: Of a plateau: share of the epochs at the peak, share after which a cosine ends it, and the
#: factor of each epoch between them.
_FLAT, _DECAYED, _FACTOR = 1 / 6, 2 / 3, 0.95


@dataclass(frozen=True)
class Schedule:
    """A line up to the peak, then a way down.

    Attributes:
        name: `cosine`, half a cosine from the peak to the end; `plateau`, the peak for a sixth of
            the epochs, 0.95 times less each epoch up to two thirds, then half a cosine; `constant`.
        peak: the largest rate.
        end: the last rate, as a share of the peak.
        warm_up: epochs spent going up.
        epochs: of the whole training.

    Raises:
        ParameterError: if a value is out of its range.
    """

    name: str = "cosine"
    peak: float = 1e-2
    end: float = 0.0
    warm_up: float = 2.0
    epochs: int = 20

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        rules = {
            f"schedule must be one of {', '.join(SCHEDULES)}; got {self.name!r}": (
                self.name in SCHEDULES
            ),
            f"lr must be above zero; got {self.peak}": 0 < self.peak < math.inf,
            f"lr end must be a share of the peak, from 0 to 1; got {self.end}": 0 <= self.end <= 1,
            f"warm-up must be from 0 to the {self.epochs} epochs; got {self.warm_up}": (
                0 <= self.warm_up <= self.epochs
            ),
            f"epochs must be at least 1; got {self.epochs}": self.epochs >= 1,
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, 0 to epochs x steps_per_epoch - 1.

        >>> cosine = Schedule("cosine", peak=1.0, warm_up=2, epochs=10)
        >>> [round(cosine.rate(step, 1), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.038]
        """
        n_steps = self.epochs * steps_per_epoch
        n_warm = round(self.warm_up * steps_per_epoch)
        if step < n_warm:
            return self.peak * (step + 1) / n_warm
        if self.name == "constant":
            return self.peak
        if self.name == "plateau":
            return self._plateau(step, steps_per_epoch)
        return self.peak * self._cosine((step - n_warm) / max(1, n_steps - n_warm), 1.0)

    def _plateau(self, step: int, steps_per_epoch: int) -> float:
        """As the authors' transformers: 5 epochs flat, 15 of decay, 10 of cosine in 30."""
        flat, decayed = round(_FLAT * self.epochs), round(_DECAYED * self.epochs)
        epoch = step // steps_per_epoch
        if epoch < flat:
            return self.peak
        lowest = _FACTOR ** (decayed - flat)
        if epoch < decayed:
            return self.peak * _FACTOR ** (epoch - flat + 1)
        first = decayed * steps_per_epoch
        done = (step - first) / max(1, self.epochs * steps_per_epoch - first)
        return self.peak * self._cosine(done, lowest)

    def _cosine(self, done: float, start: float) -> float:
        end = min(self.end, start)
        return end + 0.5 * (start - end) * (1 + math.cos(math.pi * done))
