"""The training loop: epochs of steps, a checkpoint after each, the best weights kept."""

import copy
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from engines.errors import ArtifactError, TrainingError
from engines.progress import Progress
from training.augment import parse_augmentations
from training.data import EventSet
from training.encoders import Model
from training.fit_config import Epoch, FitConfig, FitResult, Keeper, Running
from training.objective import check_labels, parse_objective
from training.optimisers import make_optimiser
from training.splits import Split
from training.views import BatchLoss, Part

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fit"]

#: Steps between two looks at the loss on a GPU, which has to stop for each.
_LOOK_EVERY = 50


class _State:
    """Everything that changes while training, and how it is kept."""

    def __init__(self, model: Model, config: FitConfig, running: Running) -> None:
        self.model: Any = running.group.prepare(copy.deepcopy(model))
        schedule = config.schedule
        self.optimiser = make_optimiser(
            config.optimiser, self.model, schedule.peak, config.weight_decay
        )
        self.generator = torch.Generator(running.group.device).manual_seed(config.seed)
        self.history: tuple[Epoch, ...] = ()
        self.best: Epoch | None = None
        self.best_model = _copied(self.model)

    def add(self, epoch: Epoch) -> None:
        self.history += (epoch,)
        best = math.inf if self.best is None else self.best.validation_loss
        if epoch.validation_loss < best:
            self.best, self.best_model = epoch, _copied(self.model)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": None if self.best is None else asdict(self.best),
            "best_model": self.best_model,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what was kept.

        Raises:
            ArtifactError: if it is of another network, or of no training at all.
        """
        try:
            self.model.load_state_dict(state["best_model"])  # checks them; replaced at once
            self.best_model = _copied(self.model)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            self.history = tuple(map(Epoch.parse, state["history"]))
            self.best = None if state["best"] is None else Epoch.parse(state["best"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as exc:
            msg = (
                "the checkpoint must hold this training; its parts do not fit "
                f"({type(exc).__name__}); train anew with --fresh"
            )
            raise ArtifactError(msg) from exc


def _copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def fit(
    model: Model,
    events: EventSet,
    split: Split,
    config: FitConfig,
    running: Running | None = None,
    keeper: Keeper | None = None,
) -> FitResult:
    """Train the model in place, ending with the weights of the best validation loss.

    Args:
        model: on the CPU, where it stays.
        events: all events.
        split: which of them to learn from.
        config: how to train.
        running: where to compute.
        keeper: keeps the state of every epoch; a training that it holds is continued, and gives
            the weights that it would have given undisturbed.

    Raises:
        ParameterError: if the loss needs labels and there are none.
        SampleSizeError: if a supervised loss has fewer than two classes, or events are too few.
        TrainingError: if the loss stops being finite.
    """
    running = running or Running()
    train, validation = _parts(events, split, config, running)
    state = _State(model, config, running)
    kept = keeper.load() if keeper is not None else None
    if kept is not None:
        state.load(kept)
    _run_epochs(state, train, validation, config, running, keeper)
    if state.best is None:
        msg = "the validation loss must be finite; it never was; lower --lr"
        raise TrainingError(msg)
    model.load_state_dict(state.best_model)
    best = state.best
    return FitResult(best.loss, best.validation_loss, best.epoch, state.history)


def _parts(
    events: EventSet, split: Split, config: FitConfig, running: Running
) -> tuple[Part, Part]:
    """Return the events to learn from and those held out, on the device."""
    group, objective = running.group, parse_objective(config.loss)
    check_labels(events, objective, config.sampling)
    group.check_batch(config.batch_size)
    augment = parse_augmentations(config.augment)
    how = BatchLoss(
        objective, config.losses, augment, config.sampling, config.mirror, config.rotate,
        running.precision,
    )  # fmt: skip
    train = Part(events, split.train, how, config.batch_size, group)
    held_out = min(config.batch_size, len(split.validation)) // group.size * group.size
    return train, Part(events, split.validation, how, held_out, group)


def _run_epochs(
    state: _State,
    train: Part,
    validation: Part,
    config: FitConfig,
    running: Running,
    keeper: Keeper | None,
) -> None:
    done = len(state.history)
    steps = _Steps(state, train, config, running, done)
    try:
        for number in range(done + 1, config.schedule.epochs + 1):
            state.model.train()
            loss, seconds = steps.take_epoch()
            state.model.eval()
            held_out = running.group.share(validation.mean_loss(state.model, config.seed))
            rate = state.optimiser.param_groups[0]["lr"]
            n_events = len(train.sampler) * config.batch_size
            state.add(Epoch(number, steps.done, loss, held_out, rate, seconds, n_events / seconds))
            steps.note = f"loss {loss:.3f}, validation {held_out:.3f}"
            if keeper is not None:
                keeper.save(state.state(), state.history)
    finally:
        steps.close()


class _Steps:
    """Takes optimiser steps at the scheduled rate, and shows how far training is."""

    def __init__(
        self, state: _State, train: Part, config: FitConfig, running: Running, epochs_done: int
    ) -> None:
        self._state, self._train, self._schedule = state, train, config.schedule
        self._group, self._per_epoch = running.group, len(train.sampler)
        self.done = epochs_done * self._per_epoch
        self._n_steps = config.schedule.epochs * self._per_epoch
        self._forward: Callable[..., Any] = state.model
        if running.compiled:
            self._forward = torch.compile(state.model)
        self._look_every = 1 if self._group.device.type == "cpu" else _LOOK_EVERY
        shown = self._group.leads and self.done < self._n_steps
        self._shown = Progress(self._n_steps - self.done, "train") if shown else None
        self.note = ""

    def take_epoch(self) -> tuple[float, float]:
        """Return the mean loss of one pass, and the seconds it took."""
        started = time.perf_counter()
        waiting: list[torch.Tensor] = []
        values: list[float] = []
        for batch in self._train.sampler.batches(self._state.generator):
            waiting.append(self._take(batch))
            if len(waiting) == self._look_every:
                values += self._look(waiting)
        values += self._look(waiting)
        return math.fsum(values) / len(values), time.perf_counter() - started

    def _take(self, batch: torch.Tensor) -> torch.Tensor:
        optimiser = self._state.optimiser
        for group in optimiser.param_groups:
            group["lr"] = self._schedule.rate(self.done, self._per_epoch)
        loss = self._train.loss(self._forward, batch, self._state.generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._group.add_gradients(self._state.model)
        optimiser.step()
        self.done += 1
        return loss.detach()

    def _look(self, waiting: list[torch.Tensor]) -> list[float]:
        """Return the losses of the last steps, if they are numbers."""
        if not waiting:
            return []
        values: list[float] = torch.stack(waiting).tolist()
        waiting.clear()
        first = self.done - len(values) + 1
        for step, value in enumerate(values, start=first):
            if not math.isfinite(value):
                msg = (
                    f"the loss must stay finite; got {value} at step {step} of {self._n_steps}; "
                    "lower --lr or raise --temperature"
                )
                raise TrainingError(msg)
        if self._shown is not None:
            self._shown.advance(len(values), self.note or f"loss {values[-1]:.3f}")
        return values

    def close(self) -> None:
        if self._shown is not None:
            self._shown.close()
