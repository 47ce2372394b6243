"""One side of a split on the device: draws batches, makes views of them, computes their loss."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from engines.errors import ParameterError
from engines.types import IntArray
from training.augment import Augmentations, mirror_events, rotate_to_met
from training.data import BatchSampler, EventSet
from training.distributed import Group
from training.encoders import Model, Outputs
from training.networks.vae import VAE_LATENT
from training.objective import LossConfig, Objective, Views

__all__ = ["PRECISIONS", "BatchLoss", "Part", "Precision", "choose_precision"]

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Precision:
    """In which numbers the network computes; losses are in float32 always."""

    name: str = "fp32"

    @contextlib.contextmanager
    def context(self, device: torch.device) -> Iterator[None]:
        """Compute what is inside in this precision."""
        if self.name == "fp32":
            yield
        else:
            with torch.autocast(device.type, torch.bfloat16):
                yield


def choose_precision(name: str, device: torch.device, *, attends: bool) -> Precision:
    """Return the precision to train in.

    `auto` takes bf16 for transformers on a GPU that has it. An MLP of this size is bound by its
    many small kernels, which a smaller number does not speed up.

    Raises:
        ParameterError: on an unknown name.
    """
    if name not in PRECISIONS:
        msg = f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}"
        raise ParameterError(msg)
    if name == "auto":
        helps = attends and device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Precision("bf16" if helps else "fp32")
    return Precision(name)


@dataclass(frozen=True)
class BatchLoss:
    """How a batch becomes a loss.

    Attributes:
        objective: which losses.
        losses: their constants.
        augment: makes a view of events.
        sampling: `balanced` or `cocktail`.
        mirror: flip eta and phi at random, a symmetry of the collisions.
        rotate: turn events so that their MET points to phi = 0 before views are made.
        precision: of the network.
    """

    objective: Objective
    losses: LossConfig
    augment: Augmentations
    sampling: str
    mirror: bool
    rotate: bool
    precision: Precision


class Part:
    """Events of one side of the split.

    Args:
        events: all events.
        indices: those of this side.
        how: a batch to a loss.
        batch_size: events of a batch, over all processes.
        group: the processes that share it.
    """

    def __init__(
        self, events: EventSet, indices: IntArray, how: BatchLoss, batch_size: int, group: Group
    ) -> None:
        """Put the events on the device, once."""
        self._how, self._group = how, group
        realisations = [events.particles[indices][:, None]]
        if events.realisations is not None and how.augment.resimulates:
            realisations.append(events.realisations[indices])
        stored = torch.from_numpy(np.concatenate(realisations, axis=1)).to(group.device)
        if how.rotate:
            stored = rotate_to_met(stored.flatten(0, 1)).view_as(stored)
        self._stored = stored  # (n, 1 + K, 19, 3)
        self._targets = None
        if events.targets is not None:
            self._targets = torch.from_numpy(events.targets[indices]).to(group.device)
        self.sampler = BatchSampler(how.sampling, batch_size, self._targets, len(indices))

    def loss(
        self, model: Callable[..., Any], batch: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of the events at `batch`, (n,), computed by all processes together."""
        how = self._how
        views = self._views(batch, generator)
        parts = torch.cat([self._group.part(view) for view in views])
        noise = self._noise(len(batch), len(views), generator)
        with how.precision.context(parts.device):
            outputs = cast("Outputs", model(parts, noise))
        found = iter(self._split(outputs, len(views)))
        clean = next(found) if how.objective.needs_clean else None
        first, second = next(found, None), next(found, None)
        targets = None if self._targets is None else self._targets[batch]
        return how.objective.value(Views(clean, first, second, targets), how.losses)

    def _views(self, batch: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """Return the events, if a term wants them, and two views of them, if one wants those."""
        how, stored = self._how, self._stored[batch]
        if how.mirror:
            stored = mirror_events(stored.flatten(1, 2), generator).view_as(stored)
        views = [stored[:, 0]] if how.objective.needs_clean else []
        if how.objective.needs_views:
            first, second = _pair(stored, generator)
            views += [how.augment(first, generator), how.augment(second, generator)]
        return views

    def _noise(
        self, n_events: int, n_views: int, generator: torch.Generator
    ) -> torch.Tensor | None:
        """Return this process's part of the noise that a VAE samples with, else None.

        It is drawn for the whole batch, so that several processes draw what one alone would.
        """
        if not self._how.objective.has("vae"):
            return None
        shape = (n_views, n_events, VAE_LATENT)
        drawn = torch.randn(shape, generator=generator, device=generator.device)
        return torch.cat([self._group.part(view) for view in drawn])

    def _split(self, outputs: Outputs, n_views: int) -> list[Outputs]:
        """Return the outputs of each view, (n, ...) over all processes, in float32."""
        size = self._group.size

        def gathered(output: torch.Tensor | None) -> list[torch.Tensor] | list[None]:
            if output is None:
                return [None] * n_views
            whole = self._group.gather(output.float())
            # (process, view, event) to (view, process, event)
            by_view = whole.view(size, n_views, -1, *output.shape[1:]).transpose(0, 1)
            return list(by_view.flatten(1, 2))

        return [Outputs(*parts) for parts in zip(*map(gathered, outputs), strict=True)]

    @torch.no_grad()
    def mean_loss(self, model: Model, seed: int) -> float:
        """Return the loss over one pass, with the same batches and views at every call."""
        generator = torch.Generator(self._group.device).manual_seed(seed)
        losses = [self.loss(model, b, generator) for b in self.sampler.batches(generator)]
        return float(torch.stack(losses).mean())


def _pair(stored: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two realisations of each event, (n, 19, 3) each, drawn from (n, 1 + K, 19, 3).

    They are never the same one, unless there is only one: two equal views would teach nothing.
    """
    n_events, n_stored = stored.shape[:2]
    if n_stored == 1:
        return stored[:, 0], stored[:, 0]
    device = stored.device
    first = torch.randint(n_stored, (n_events,), generator=generator, device=device)
    step = torch.randint(1, n_stored, (n_events,), generator=generator, device=device)
    events = torch.arange(n_events, device=device)
    return stored[events, first], stored[events, (first + step) % n_stored]
