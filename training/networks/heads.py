"""Projection heads: between the embedding and the loss, dropped after training."""

import torch
from torch import nn
from torch.nn import functional

from engines.errors import ParameterError

__all__ = ["HEADS", "DinoHead", "ExpanderHead", "ProjectionHead", "linear_block", "make_head"]

HEADS = ("mlp", "dino", "expander", "none")
_DINO_STD = 0.02


def linear_block(n_in: int, n_out: int) -> list[nn.Module]:
    """Return a linear layer, a batch norm and a LeakyReLU."""
    return [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU()]


class ProjectionHead(nn.Module):
    """Two linear blocks, the head of SimCLR.

    The second is linear alone: the loss compares directions, which an activation would confine to
    one corner, as SimCLR's own head leaves its last layer bare (arXiv:2002.05709 Sec. 4.2).

    Args:
        dim: number of embedding coordinates d.
        hidden: width of the first block.
        out: width of the projection.
    """

    def __init__(self, dim: int, hidden: int = 64, out: int = 64) -> None:
        """Stack the blocks."""
        super().__init__()
        self.layers = nn.Sequential(*linear_block(dim, hidden), nn.Linear(hidden, out))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return projections, (n, out), of embeddings, (n, d)."""
        projections: torch.Tensor = self.layers(embeddings)
        return projections


class DinoHead(nn.Module):
    """Three linear layers to a bottleneck on the unit sphere, then a layer of unit rows.

    There is no batch norm. The output is the cosine between the bottleneck and each row: weight
    normalisation with its scale held at one. Weights start as a normal of width 0.02 that is cut at
    -2 and 2, offsets at zero.

    Args:
        dim: number of embedding coordinates d.
        hidden: width of the first two layers.
        bottleneck: width of the third layer.
        out: width of the projection.

    Source: arXiv:2104.14294 App. C (head); arXiv:2502.15926 (widths).
    """

    def __init__(self, dim: int, hidden: int = 256, bottleneck: int = 64, out: int = 64) -> None:
        """Stack the layers and draw their weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.rows = nn.Parameter(torch.empty(out, bottleneck))
        nn.init.trunc_normal_(self.rows, std=_DINO_STD)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_DINO_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return projections, (n, out), of embeddings, (n, d)."""
        bottleneck = functional.normalize(self.layers(embeddings), dim=1)
        return functional.linear(bottleneck, functional.normalize(self.rows, dim=1))


class ExpanderHead(nn.Module):
    """The expander of VICReg: two blocks with batch norm and ReLU, then a linear layer.

    The paper's width of 8192 serves 2048 image features; 128 serves at most 64 coordinates.

    Args:
        dim: number of embedding coordinates d.
        width: outputs of each layer, and of the projection.

    Source: arXiv:2105.04906 Sec. 4.2.
    """

    def __init__(self, dim: int, width: int = 128) -> None:
        """Stack the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(dim, width), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()),
            nn.Linear(width, width),
        )

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return projections, (n, width), of embeddings, (n, d)."""
        projections: torch.Tensor = self.layers(embeddings)
        return projections


def make_head(name: str, dim: int) -> nn.Module:
    """Return a new head for embeddings of `dim` coordinates; `none` passes them on unchanged.

    Raises:
        ParameterError: on an unknown name.
    """
    if name not in HEADS:
        msg = f"head must be one of {', '.join(HEADS)}; got {name!r}"
        raise ParameterError(msg)
    if name == "none":
        return nn.Identity()
    if name == "mlp":
        return ProjectionHead(dim)
    return DinoHead(dim) if name == "dino" else ExpanderHead(dim)
