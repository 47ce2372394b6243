"""The training loop: contrastive loss, warm-up then cosine learning rate, best state kept."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from engines.errors import ParameterError, SampleSizeError, TrainingError
from engines.progress import Progress
from engines.types import IntArray
from training.augment import mask_objects, mirror_events, rotate_to_met
from training.data import BatchSampler, EventSet, Split
from training.encoders import Encoder, ProjectionHead
from training.losses import LOSSES, nt_xent_loss, supcon_loss

__all__ = ["FitConfig", "FitResult", "check_labels", "fit", "learning_rate"]

_WEIGHT_DECAY = 1e-2
_WARM_UP = 0.1


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Attributes:
        loss: `supcon` or `simclr`.
        sampling: `balanced` or `cocktail`.
        epochs: passes over the training events.
        batch_size: events of one step.
        lr: learning rate at its peak.
        temperature: tau of the loss.
        mask_probability: chance of an object to be masked in each view of `simclr`.
        seed: of weights, batches and masks.
    """

    loss: str = "supcon"
    sampling: str = "balanced"
    epochs: int = 20
    batch_size: int = 512
    lr: float = 1e-2
    temperature: float = 0.1
    mask_probability: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot train.

        Raises:
            ParameterError: if a value is out of its range.
        """
        rules = {
            f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}": self.loss in LOSSES,
            f"epochs must be at least 1; got {self.epochs}": self.epochs >= 1,
            f"batch size must be at least 2; got {self.batch_size}": self.batch_size >= 2,
            f"lr must be above zero; got {self.lr}": 0 < self.lr < math.inf,
            f"temperature must be above zero; got {self.temperature}": (
                0 < self.temperature < math.inf
            ),
            f"mask probability must be from 0 to below 1; got {self.mask_probability}": (
                0 <= self.mask_probability < 1
            ),
            f"seed must be a whole number from 0 up; got {self.seed}": 0 <= self.seed < 2**63,
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)


@dataclass(frozen=True)
class FitResult:
    """How training ended: the losses, and the epoch whose weights were kept."""

    loss: float
    validation_loss: float
    best_epoch: int


_UNTRAINED = FitResult(math.inf, math.inf, 0)


def learning_rate(step: int, n_steps: int, peak: float, warm_up: float = _WARM_UP) -> float:
    """Return the learning rate of a step: a line up to the peak, then half a cosine to zero.

    Args:
        step: 0 to n_steps - 1.
        n_steps: steps of the whole training.
        peak: the largest rate.
        warm_up: fraction of the steps spent going up.

    >>> [round(learning_rate(step, 10, 1.0, 0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    n_warm = max(1, round(warm_up * n_steps))
    if step < n_warm:
        return peak * (step + 1) / n_warm
    done = (step - n_warm) / max(1, n_steps - n_warm)
    return 0.5 * peak * (1 + math.cos(math.pi * done))


class _Part:
    """One side of the split as tensors: draws batches and computes their loss."""

    def __init__(
        self, events: EventSet, indices: IntArray, config: FitConfig, batch_size: int
    ) -> None:
        self._config = config
        self._particles = rotate_to_met(torch.from_numpy(events.particles[indices]))
        self._targets = None
        if events.targets is not None:
            self._targets = torch.from_numpy(events.targets[indices])
        self.sampler = BatchSampler(config.sampling, batch_size, self._targets, len(indices))

    def loss(
        self, model: nn.Module, batch: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        config = self._config
        particles = mirror_events(self._particles[batch], generator)
        if config.loss == "supcon" and self._targets is not None:
            return supcon_loss(model(particles), self._targets[batch], config.temperature)
        views = (mask_objects(particles, config.mask_probability, generator) for _ in range(2))
        first, second = model(torch.cat(tuple(views))).chunk(2)
        return nt_xent_loss(first, second, config.temperature)

    @torch.no_grad()
    def mean_loss(self, model: nn.Module) -> float:
        """Return the loss over one pass, with the same batches and masks at every call."""
        generator = torch.Generator().manual_seed(self._config.seed)
        losses = [self.loss(model, b, generator) for b in self.sampler.batches(generator)]
        return float(torch.stack(losses).mean())


def fit(
    encoder: Encoder, head: ProjectionHead, events: EventSet, split: Split, config: FitConfig
) -> FitResult:
    """Train encoder and head in place, ending with the weights of the best validation loss.

    Raises:
        ParameterError: if the loss needs labels and there are none.
        SampleSizeError: if a supervised loss has fewer than two classes, or events are too few.
        TrainingError: if the loss stops being finite.
    """
    check_labels(events, config)
    train = _Part(events, split.train, config, config.batch_size)
    held_out_size = min(config.batch_size, len(split.validation))
    validation = _Part(events, split.validation, config, held_out_size)
    model = nn.Sequential(encoder, head)
    optimiser = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=_WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(config.seed)
    steps = _Steps(config, len(train.sampler))
    best, best_state = _UNTRAINED, copy.deepcopy(model.state_dict())
    try:
        for epoch in range(1, config.epochs + 1):
            model.train()
            for batch in train.sampler.batches(generator):
                steps.take(optimiser, train.loss(model, batch, generator))
            model.eval()
            result = FitResult(steps.epoch_loss(), validation.mean_loss(model), epoch)
            steps.note = f"loss {result.loss:.3f}, validation {result.validation_loss:.3f}"
            if result.validation_loss < best.validation_loss:
                best, best_state = result, copy.deepcopy(model.state_dict())
    finally:
        steps.close()
    if best is _UNTRAINED:
        msg = "the validation loss must be finite; it never was; lower --lr"
        raise TrainingError(msg)
    model.load_state_dict(best_state)
    return best


class _Steps:
    """Takes optimiser steps at the scheduled rate, and shows how far training is."""

    def __init__(self, config: FitConfig, per_epoch: int) -> None:
        self._peak, self._n_steps, self._done = config.lr, config.epochs * per_epoch, 0
        self._losses: list[float] = []
        self._shown = Progress(self._n_steps, "train")
        self.note = ""

    def take(self, optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            msg = (
                f"the loss must stay finite; got {value} at step {self._done + 1} of "
                f"{self._n_steps}; lower --lr or raise --temperature"
            )
            raise TrainingError(msg)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(self._done, self._n_steps, self._peak)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        self._done += 1
        self._losses.append(value)
        self._shown.advance(1, self.note or f"loss {value:.3f}")

    def epoch_loss(self) -> float:
        mean = math.fsum(self._losses) / len(self._losses)
        self._losses.clear()
        return mean

    def close(self) -> None:
        self._shown.close()


def check_labels(events: EventSet, config: FitConfig) -> None:
    """Refuse a loss or a sampling that needs labels which are not there.

    Raises:
        ParameterError: if a file has no labels.
        SampleSizeError: if there is only one class.
    """
    if events.unlabelled is not None and config.loss == "supcon":
        msg = (
            f"--loss supcon must have a label for every event; {events.unlabelled} has no "
            "'process' or 'background_ID'; use --loss simclr, which needs none"
        )
        raise ParameterError(msg)
    if events.unlabelled is not None and config.sampling == "balanced":
        msg = (
            f"--sampling balanced must have a label for every event; {events.unlabelled} has none; "
            "use --sampling cocktail"
        )
        raise ParameterError(msg)
    if config.loss == "supcon" and len(events.classes) < 2:
        msg = (
            f"--loss supcon must have two classes or more; got only class {events.classes[0]}; "
            "add events of another, or use --loss simclr"
        )
        raise SampleSizeError(msg)
