"""The encoders: raw kinematics to an embedding of d unconstrained numbers.

The embedding is what the backbone gives. The projection head serves the loss alone and is dropped
after training; only its output is put on the unit sphere, inside the loss.

Source: arXiv:2502.15926.
"""

import torch
from torch import nn

from engines.errors import ParameterError
from engines.events import N_OBJECTS
from training.data import Scaling

__all__ = [
    "ARCHITECTURES",
    "Encoder",
    "MLPEncoder",
    "Preprocess",
    "ProjectionHead",
    "TransformerEncoder",
    "build_encoder",
]

ARCHITECTURES = ("mlp", "transformer")
#: What an object becomes: present, ln pT, eta, sin and cos of the angle to the MET.
N_INPUTS = 5


class Preprocess(nn.Module):
    """Raw kinematics, (n, 19, 3), to inputs of the backbone, (n, 19, 5).

    Each object becomes (1, ln(1 + pT) and eta standardised, sin and cos of phi - phi_MET), or five
    zeros if it is absent: the leading 1 keeps a typical object apart from none. The logarithm
    tames the tail of pT. Angles relative to the MET make the embedding blind to a rotation of the
    event about the beam, under which physics is symmetric; sine and cosine have no seam at pi.

    Args:
        scaling: constants measured on the training events.
    """

    log_pt_mean: torch.Tensor
    log_pt_std: torch.Tensor
    eta_std: torch.Tensor

    def __init__(self, scaling: Scaling) -> None:
        """Keep the constants as buffers, so that they travel with the graph."""
        super().__init__()
        for name in ("log_pt_mean", "log_pt_std", "eta_std"):
            constant = torch.as_tensor(getattr(scaling, name), dtype=torch.float32)
            self.register_buffer(name, constant)

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return the scaled inputs."""
        pt, eta, phi = particles[:, :, 0], particles[:, :, 1], particles[:, :, 2]
        present = (pt > 0).to(particles.dtype)
        log_pt = (torch.log(pt + 1) - self.log_pt_mean) / self.log_pt_std
        angle = phi - phi[:, :1]
        features = (log_pt, eta / self.eta_std, torch.sin(angle), torch.cos(angle))
        return torch.stack((present, *features), dim=2) * present.unsqueeze(2)


def _block(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU()]


class MLPEncoder(nn.Module):
    """Four batch-normalised linear blocks; the last gives the embedding, without activation.

    A LeakyReLU on the embedding itself would fold half of each axis to a hundredth of its size,
    where a two-sample test resolves nothing.

    Args:
        dim: number of embedding coordinates d.
        widths: outputs of the first three blocks.
    """

    def __init__(self, dim: int, widths: tuple[int, int, int] = (128, 64, 32)) -> None:
        """Stack the blocks."""
        super().__init__()
        first, second, third = widths
        self.layers = nn.Sequential(
            nn.Flatten(),
            *_block(N_OBJECTS * N_INPUTS, first),
            *_block(first, second),
            *_block(second, third),
            *_block(third, dim)[:-1],
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d), of scaled inputs, (n, 19, 5)."""
        embeddings: torch.Tensor = self.layers(inputs)
        return embeddings


class _Attention(nn.Module):
    """Self-attention of all tokens to all tokens; its operations export to plain ONNX."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, size // heads
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        self.value, self.out = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        n_tokens, size = tokens.shape[1:]
        shape = (-1, n_tokens, self.heads, self.head_size)
        query = self.query(tokens).reshape(shape).permute(0, 2, 1, 3)
        key = self.key(tokens).reshape(shape).permute(0, 2, 3, 1)
        value = self.value(tokens).reshape(shape).permute(0, 2, 1, 3)
        share = torch.softmax(query @ key * self.head_size**-0.5, dim=-1)
        mixed = (share @ value).permute(0, 2, 1, 3).reshape(-1, n_tokens, size)
        result: torch.Tensor = self.out(mixed)
        return result


class _Layer(nn.Module):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, size: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = _Attention(size, heads)
        self.feed = nn.Sequential(
            nn.Linear(size, feed_forward), nn.ReLU(), nn.Linear(feed_forward, size)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.norm_attention(tokens))
        result: torch.Tensor = tokens + self.feed(self.norm_feed(tokens))
        return result


class TransformerEncoder(nn.Module):
    """The 19 objects and a CLS token attend to each other; the CLS token gives the embedding.

    Absent objects stay in as tokens: attention masking is off, as in the paper. Each slot has its
    own learned offset, which tells an electron from a jet; that of slot 0 is the CLS token.

    Args:
        dim: number of embedding coordinates d.
        size: width of a token.
        heads: attention heads.
        feed_forward: width inside a layer.
        n_layers: layers.
    """

    def __init__(
        self, dim: int, size: int = 64, heads: int = 8, feed_forward: int = 256, n_layers: int = 4
    ) -> None:
        """Build the layers."""
        super().__init__()
        self.tokens = nn.Linear(N_INPUTS, size, bias=False)
        self.slots = nn.Parameter(0.02 * torch.randn(N_OBJECTS + 1, size))
        self.layers = nn.Sequential(*(_Layer(size, heads, feed_forward) for _ in range(n_layers)))
        self.out = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, dim))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d), of scaled inputs, (n, 19, 5)."""
        objects = nn.functional.pad(self.tokens(inputs), (0, 0, 1, 0))
        embeddings: torch.Tensor = self.out(self.layers(objects + self.slots)[:, 0])
        return embeddings


class ProjectionHead(nn.Module):
    """Two linear blocks between the embedding and the loss; dropped after training.

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
        self.layers = nn.Sequential(*_block(dim, hidden), nn.Linear(hidden, out))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return projections, (n, out), of embeddings, (n, d)."""
        projections: torch.Tensor = self.layers(embeddings)
        return projections


class Encoder(nn.Module):
    """What is exported: preprocessing, then backbone.

    Args:
        preprocess: raw kinematics to scaled inputs.
        backbone: scaled inputs to embeddings.
    """

    def __init__(self, preprocess: Preprocess, backbone: nn.Module) -> None:
        """Join the two."""
        super().__init__()
        self.preprocess, self.backbone = preprocess, backbone

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d), of raw kinematics, (n, 19, 3)."""
        embeddings: torch.Tensor = self.backbone(self.preprocess(particles))
        return embeddings


def build_encoder(
    arch: str, dim: int, scaling: Scaling, seed: int
) -> tuple[Encoder, ProjectionHead]:
    """Return a new encoder and its projection head, their weights drawn from the seed.

    Raises:
        ParameterError: on an unknown architecture or a dimension below 1.
    """
    if dim < 1:
        msg = f"dim must be at least 1; got {dim}"
        raise ParameterError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch == "mlp":
            backbone: nn.Module = MLPEncoder(dim)
        elif arch == "transformer":
            backbone = TransformerEncoder(dim)
        else:
            msg = f"arch must be one of {', '.join(ARCHITECTURES)}; got {arch!r}"
            raise ParameterError(msg)
        return Encoder(Preprocess(scaling), backbone), ProjectionHead(dim)
