"""The variational autoencoder, a baseline: its means and log variances are the embedding.

Source: arXiv:2502.15926 (widths and KL weight); arXiv:1312.6114 (method).
"""

import torch
from torch import nn

from engines.events import N_OBJECTS
from training.networks.heads import linear_block

__all__ = ["VAE_LATENT", "VAEDecoder", "VAEEncoder", "sample_latent"]

#: Latent coordinates, each with a mean and a log variance.
VAE_LATENT = 3
_WIDTHS = (32, 16)


class VAEEncoder(nn.Module):
    """19 x n_inputs -> 32 -> 16 -> 3 means and 3 log variances, the 6 embedding coordinates.

    With three inputs an object (`--inputs plain`), the input is the paper's 57 numbers.

    Args:
        n_inputs: numbers of an object.
    """

    def __init__(self, n_inputs: int) -> None:
        """Stack the layers."""
        super().__init__()
        first, second = _WIDTHS
        self.layers = nn.Sequential(
            nn.Flatten(),
            *linear_block(N_OBJECTS * n_inputs, first),
            *linear_block(first, second),
            nn.Linear(second, 2 * VAE_LATENT),
        )

    def forward(self, inputs: torch.Tensor, present: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return means and log variances, (n, 6), of scaled inputs, (n, 19, n_inputs)."""
        embeddings: torch.Tensor = self.layers(inputs)
        return embeddings


class VAEDecoder(nn.Module):
    """The encoder's mirror: 3 -> 16 -> 32 -> 19 x n_inputs.

    Args:
        n_inputs: numbers of an object.
    """

    def __init__(self, n_inputs: int) -> None:
        """Stack the layers."""
        super().__init__()
        first, second = _WIDTHS
        self.layers = nn.Sequential(
            *linear_block(VAE_LATENT, second),
            *linear_block(second, first),
            nn.Linear(first, N_OBJECTS * n_inputs),
            nn.Unflatten(1, (N_OBJECTS, n_inputs)),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return reconstructed inputs, (n, 19, n_inputs), of latent coordinates, (n, 3)."""
        reconstruction: torch.Tensor = self.layers(latent)
        return reconstruction


def sample_latent(embeddings: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return latent coordinates, (n, 3), drawn from means and log variances, (n, 6).

    Args:
        embeddings: means, then log variances.
        noise: standard normal numbers, (n, 3).

    Source: arXiv:1312.6114 Eq. 4 (reparameterisation).
    """
    mean, log_variance = embeddings.chunk(2, dim=1)
    return mean + torch.exp(0.5 * log_variance) * noise.to(mean)
