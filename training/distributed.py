"""Several processes under torchrun that together take the step of one.

Every process holds all events and draws the same batch and the same views; it computes its own
part of them. Projections are gathered with their gradient, so that each process sees the loss of
the whole batch, and the gradients of the parameters are added up.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from engines.errors import ParameterError

__all__ = ["ALONE", "Group", "open_group"]


@dataclass(frozen=True)
class Group:
    """The processes of a training, and which of them this is.

    Attributes:
        rank: of this process, 0 to size - 1; only rank 0 writes.
        size: processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch that cannot be shared out evenly.

        Raises:
            ParameterError: if the processes do not divide it.
        """
        if batch_size % self.size:
            msg = (
                f"the batch size must be a multiple of the {self.size} processes; got "
                f"{batch_size}; try --batch-size {self.size * max(1, batch_size // self.size)}"
            )
            raise ParameterError(msg)

    def part(self, batch: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a batch, (n / size, ...) of (n, ...)."""
        return batch if self.size == 1 else batch.chunk(self.size)[self.rank]

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """Return the parts of all processes, (size x n, ...), with the gradient of this one's."""
        if self.size == 1:
            return part
        gathered: torch.Tensor = _Gather.apply(part.contiguous(), self.rank, self.size)  # type: ignore[no-untyped-call]
        return gathered

    def add_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, parts, strict=True):
            gradient.copy_(total.view_as(gradient))

    def share(self, value: float) -> float:
        """Return rank 0's value, so that all processes decide alike."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.size > 1:
            dist.barrier()

    def splits_norms(self, model: nn.Module) -> bool:
        """Return whether batch norms will see a part of each batch only."""
        here = self.size > 1 and self.device.type == "cpu"
        return here and any(isinstance(part, nn.BatchNorm1d) for part in model.modules())

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on the device, with batch norms over the whole batch on CUDA.

        torch has synchronised batch norms for CUDA alone: on CPUs each process normalises by its
        own part of the batch, and the running averages of rank 0 are kept.
        """
        model = model.to(self.device)
        if self.size > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model


ALONE = Group()


class _Gather(torch.autograd.Function):
    """All parts, of which the gradient flows back to this process's own.

    Each process computes the loss of the whole batch, so its own part's gradient is complete; the
    parameters' gradients are added up afterwards.
    """

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, rank: int, size: int) -> torch.Tensor:  # noqa: ANN401
        ctx.rank, ctx.size = rank, size
        parts = [torch.empty_like(part) for _ in range(size)]
        dist.all_gather(parts, part)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: ANN401
        return gradients[0].chunk(ctx.size)[ctx.rank], None, None


@contextmanager
def open_group(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, or stand alone.

    Args:
        device: `cpu` or `cuda`; under torchrun each process takes the GPU of its local rank.

    Raises:
        ParameterError: if there is no such device.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "cuda" and not torch.cuda.is_available():
        msg = "device must be cpu on this machine, where torch finds no CUDA device; got cuda"
        raise ParameterError(msg)
    place = torch.device(device)
    if device == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    if size == 1:
        yield Group(device=place)
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Group(rank, size, place)
    finally:
        dist.destroy_process_group()
