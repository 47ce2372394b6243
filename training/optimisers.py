"""Optimisers by name."""

import torch
from torch import nn

from engines.errors import ParameterError

__all__ = ["OPTIMISERS", "make_optimiser"]

OPTIMISERS = ("lars", "adam", "adamw")


def make_optimiser(
    name: str, model: nn.Module, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return a new optimiser of all parameters of the model that learn.

    `lars` is SGD with momentum 0.9 whose step on each matrix w with gradient g is scaled by
    0.001 |w| / (|g| + weight_decay |w|); offsets and norms are neither scaled nor decayed. `adam`
    adds the decay to the gradient; `adamw` shrinks the weights by lr x weight_decay instead.

    Args:
        name: one of `OPTIMISERS`.
        model: what to train.
        lr: learning rate at the start; a schedule sets it in `param_groups`.
        weight_decay: strength of the decay.

    Raises:
        ParameterError: on an unknown name, or a number out of its range.

    Source: arXiv:1708.03888 Eq. 6 and Algorithm 1 (LARS); arXiv:1412.6980 (Adam);
        arXiv:1711.05101 (AdamW).
    """
    if not 0 < lr < float("inf"):
        msg = f"lr must be above zero; got {lr}; try 0.001"
        raise ParameterError(msg)
    if not 0 <= weight_decay < float("inf"):
        msg = f"weight decay must be zero or above; got {weight_decay}; try 1e-6"
        raise ParameterError(msg)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay, fused=True)
    if name == "lars":
        from pytorch_optimizer import LARS

        return LARS(
            parameters, lr, weight_decay=weight_decay, momentum=0.9, trust_coefficient=0.001
        )
    msg = f"optimiser must be one of {', '.join(OPTIMISERS)}; got {name!r}"
    raise ParameterError(msg)
