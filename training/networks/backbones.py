"""Backbones without attention: the MLP, and raw kinematics passed on."""

import torch
from torch import nn

from engines.events import N_OBJECTS
from training.networks.heads import linear_block

__all__ = ["KinematicsEncoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """Four batch-normalised linear blocks; the last gives the embedding, without activation.

    A LeakyReLU on the embedding itself would fold half of each axis to a hundredth of its size,
    where a two-sample test resolves nothing.

    Args:
        dim: number of embedding coordinates d.
        n_inputs: numbers of an object.
        widths: outputs of the first three blocks.
    """

    def __init__(
        self, dim: int, n_inputs: int = 5, widths: tuple[int, int, int] = (128, 64, 32)
    ) -> None:
        """Stack the blocks."""
        super().__init__()
        first, second, third = widths
        self.layers = nn.Sequential(
            nn.Flatten(),
            *linear_block(N_OBJECTS * n_inputs, first),
            *linear_block(first, second),
            *linear_block(second, third),
            *linear_block(third, dim)[:-1],
        )

    def forward(self, inputs: torch.Tensor, present: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return embeddings, (n, d), of scaled inputs, (n, 19, n_inputs)."""
        embeddings: torch.Tensor = self.layers(inputs)
        return embeddings


class KinematicsEncoder(nn.Module):
    """Some of the 57 raw numbers, unchanged: the baselines that nothing trains.

    Args:
        columns: which of the 57; number 3 i + j is number j of object i.
    """

    columns: torch.Tensor

    def __init__(self, columns: list[int]) -> None:
        """Keep the columns as a buffer."""
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def forward(self, inputs: torch.Tensor, present: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the columns, (n, len(columns)), of raw kinematics, (n, 19, 3)."""
        return inputs.flatten(1).index_select(1, self.columns)
