"""How to train and where, and what is known after an epoch and at the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from engines.errors import ParameterError
from training.augment import parse_augmentations
from training.data import SAMPLINGS
from training.distributed import ALONE, Group
from training.objective import LossConfig, parse_objective
from training.schedule import Schedule
from training.views import Precision

__all__ = ["Epoch", "FitConfig", "FitResult", "Keeper", "Running"]


@dataclass(frozen=True)
class FitConfig:
    """How to train; nothing here depends on the machine.

    Attributes:
        loss: see `training.objective`.
        losses: constants of the losses.
        sampling: `balanced` or `cocktail`.
        augment: see `training.augment`; what a view of the self-supervised losses is.
        mirror: flip eta and phi at random.
        rotate: turn events so that their MET points to phi = 0.
        schedule: the learning rate, and how many epochs.
        batch_size: events of one step.
        optimiser: `adamw`, `adam` or `lars`.
        weight_decay: of the optimiser.
        seed: of batches and views.
    """

    loss: str = "supcon"
    losses: LossConfig = field(default_factory=LossConfig)
    sampling: str = "balanced"
    augment: str = "masking:0.5"
    mirror: bool = True
    rotate: bool = True
    schedule: Schedule = field(default_factory=Schedule)
    batch_size: int = 512
    optimiser: str = "adamw"
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot train.

        Raises:
            ParameterError: if a value is out of its range.
        """
        parse_objective(self.loss)
        parse_augmentations(self.augment)
        taus = (self.losses.temperature, self.losses.view_temperature)
        rules = {
            f"sampling must be one of {', '.join(SAMPLINGS)}; got {self.sampling!r}": (
                self.sampling in SAMPLINGS
            ),
            f"batch size must be at least 2; got {self.batch_size}": self.batch_size >= 2,
            f"temperature must be above zero; got {min(taus)}": all(0 < t < math.inf for t in taus),
            f"weight decay must be from 0 up; got {self.weight_decay}": (
                0 <= self.weight_decay < math.inf
            ),
            f"seed must be a whole number from 0 up; got {self.seed}": 0 <= self.seed < 2**63,
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)


@dataclass(frozen=True)
class Running:
    """Where a training computes.

    Attributes:
        group: the processes that share it.
        precision: of the network.
        compiled: let torch compile the network first.
    """

    group: Group = ALONE
    precision: Precision = field(default_factory=Precision)
    compiled: bool = False


@dataclass(frozen=True)
class Epoch:
    """One row of metrics.csv; `seconds` and `events_per_s` are of the training steps alone."""

    epoch: int
    step: int
    loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    events_per_s: float

    @classmethod
    def parse(cls, kept: Mapping[str, Any]) -> Self:
        """Return the epoch that `dataclasses.asdict` wrote.

        Raises:
            TypeError: if it has other names, or a value is no number.
        """
        epoch = cls(**kept)
        if not all(isinstance(value, int | float) for value in vars(epoch).values()):
            msg = f"an epoch must hold numbers; got {kept}"
            raise TypeError(msg)
        return epoch


@dataclass(frozen=True)
class FitResult:
    """How training ended: the losses of the epoch whose weights were kept, and all epochs."""

    loss: float
    validation_loss: float
    best_epoch: int
    history: tuple[Epoch, ...] = field(default=(), compare=False)


class Keeper(Protocol):
    """What keeps the state of a training between epochs."""

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last epoch, or None before the first."""

    def save(self, state: dict[str, Any], history: tuple[Epoch, ...]) -> None:
        """Keep the state after an epoch."""
