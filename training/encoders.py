"""The encoders: raw kinematics to an embedding of d unconstrained numbers.

The embedding is what the backbone gives, and after it the physics quantities that are kept. The
projection head, the classifier and the decoder serve the loss alone and are dropped after training.

Source: arXiv:2502.15926.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from engines.errors import ParameterError
from engines.events import N_FEATURES, N_OBJECTS
from training.networks.backbones import KinematicsEncoder, MLPEncoder
from training.networks.heads import HEADS, make_head
from training.networks.physics_quantities import KEEP_NAMES, PhysicsQuantities, check_keep
from training.networks.preprocess import InputConfig, Preprocess, Scaling
from training.networks.transformer import VICREG_HEADS, TransformerEncoder, choose_heads
from training.networks.vae import VAE_LATENT, VAEDecoder, VAEEncoder, sample_latent

__all__ = [
    "ARCHITECTURES",
    "FIXED_DIMS",
    "UNTRAINED",
    "Encoder",
    "EncoderConfig",
    "Model",
    "Outputs",
    "build_model",
]

UNTRAINED = ("raw", "leading-pt", "quantities")
ARCHITECTURES = ("mlp", "transformer", "vicreg-transformer", "vae", *UNTRAINED)
_TRANSFORMERS = ("transformer", "vicreg-transformer")
_TOKEN_WIDTH, _TOKEN_HEADS = 64, 8
#: MET, two muons, two electrons, one jet.
_LEADING_SLOTS = (0, 5, 6, 1, 2, 9)
#: More coordinates than this are no summary of 57 numbers, and only fill the memory.
_MOST_DIMS = 1024
#: Embedding coordinates of architectures that leave no choice.
FIXED_DIMS = {
    "vae": 2 * VAE_LATENT,
    "raw": N_OBJECTS * N_FEATURES,
    "leading-pt": len(_LEADING_SLOTS),
    "quantities": 0,
}


@dataclass(frozen=True)
class EncoderConfig:
    """Which network, and what goes in and comes out.

    Attributes:
        arch: one of `ARCHITECTURES`; `raw` (57 numbers as they are in the file), `leading-pt` (six
            pT in GeV) and `quantities` (those of `keep` alone) are not trained.
        dim: embedding coordinates to learn; `FIXED_DIMS` where the architecture leaves no choice.
        inputs: what the numbers of an object become.
        heads: attention heads; None chooses by architecture and dimension.
        mask_absent: leave absent objects out of a transformer's attention.
        head: before the loss: `mlp`, `dino`, `expander` or `none`; those three networks
            have none.
        keep: physics quantities to put after the learned coordinates.
    """

    arch: str = "mlp"
    dim: int = 4
    inputs: InputConfig = field(default_factory=InputConfig)
    heads: int | None = None
    mask_absent: bool = False
    head: str = "mlp"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ParameterError: on an unknown name, a dimension below 1, heads that do not divide the
                token width, or an option of transformers for another network.
        """
        attends = self.arch in _TRANSFORMERS
        rules = {
            f"arch must be one of {', '.join(ARCHITECTURES)}; got {self.arch!r}": (
                self.arch in ARCHITECTURES
            ),
            f"dim must be at least 1; got {self.dim}": self.dim >= 1,
            f"dim must be at most {_MOST_DIMS}; got {self.dim}": self.dim <= _MOST_DIMS,
            f"head must be one of {', '.join(HEADS)}; got {self.head!r}": self.head in HEADS,
            f"heads and mask_absent must go with a transformer; got arch {self.arch}; "
            "leave them out": attends or (self.heads is None and not self.mask_absent),
            f"keep must name what arch quantities is made of, some of {', '.join(KEEP_NAMES)}"
            "; got none": (bool(self.keep) or self.arch != "quantities"),
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)
        check_keep(self.keep)
        if attends:
            _heads(self)

    @property
    def learned_dim(self) -> int:
        """Embedding coordinates without the physics quantities kept."""
        return FIXED_DIMS.get(self.arch, self.dim)

    @property
    def embedding_dim(self) -> int:
        """All embedding coordinates, those of the exported encoder."""
        return self.learned_dim + len(self.keep)


def _heads(config: EncoderConfig) -> int:
    """Return the attention heads of a transformer."""
    if config.arch == "vicreg-transformer":
        return choose_heads(config.dim, config.heads, VICREG_HEADS)
    return choose_heads(_TOKEN_WIDTH, config.heads, {_TOKEN_WIDTH: _TOKEN_HEADS})


class Encoder(nn.Module):
    """What is exported: preprocessing, backbone, and the physics quantities kept.

    Args:
        preprocess: raw kinematics to scaled inputs.
        backbone: scaled inputs and presence to learned coordinates.
        keep: names of physics quantities.
    """

    def __init__(
        self, preprocess: nn.Module, backbone: nn.Module, keep: tuple[str, ...] = ()
    ) -> None:
        """Join them."""
        super().__init__()
        self.preprocess, self.backbone = preprocess, backbone
        self.quantities = PhysicsQuantities(keep) if keep else None

    def learned(self, particles: torch.Tensor) -> torch.Tensor:
        """Return the learned coordinates alone, (n, d), of raw kinematics, (n, 19, 3)."""
        inputs = self.preprocess(particles)
        embeddings: torch.Tensor = self.backbone(inputs, particles[:, :, 0] > 0)
        return embeddings

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d + kept), of raw kinematics, (n, 19, 3), pT in GeV."""
        learned = self.learned(particles)
        if self.quantities is None:
            return learned
        return torch.cat((learned, self.quantities(particles).to(learned.dtype)), dim=1)


class Outputs(NamedTuple):
    """What the losses look at.

    Attributes:
        embedding: learned coordinates, (n, d).
        projection: of the head, (n, p).
        logits: of the classifier, (n, n_classes), or None.
        reconstruction: of the inputs, (n, 19, n_inputs), or None.
        inputs: scaled inputs, (n, 19, n_inputs), where there is a reconstruction; else None.
    """

    embedding: torch.Tensor
    projection: torch.Tensor
    logits: torch.Tensor | None
    reconstruction: torch.Tensor | None
    inputs: torch.Tensor | None


class Model(nn.Module):
    """An encoder, and what training needs beside it.

    Attributes:
        encoder: what is kept and exported.
        head: embedding to projection.
        classifier: embedding to logits, linear; None without classes.
        decoder: latent coordinates to inputs; None unless the encoder is a VAE.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        classifier: nn.Linear | None,
        decoder: VAEDecoder | None,
    ) -> None:
        """Join them."""
        super().__init__()
        self.encoder, self.head = encoder, head
        self.classifier, self.decoder = classifier, decoder

    def forward(self, particles: torch.Tensor, noise: torch.Tensor | None = None) -> Outputs:
        """Return what the losses look at.

        Args:
            particles: raw kinematics, (n, 19, 3) float32, pT in GeV.
            noise: standard normal numbers, (n, 3), with which a VAE samples what it decodes, in
                training and for the held-out loss alike; without them it decodes its means.
        """
        embedding = self.encoder.learned(particles)
        logits = None if self.classifier is None else self.classifier(embedding)
        projection = self.head(embedding)
        if self.decoder is None:
            return Outputs(embedding, projection, logits, None, None)
        latent = embedding[:, :VAE_LATENT]
        if noise is not None:
            latent = sample_latent(embedding, noise)
        inputs = self.encoder.preprocess(particles)
        return Outputs(embedding, projection, logits, self.decoder(latent), inputs)


def build_model(config: EncoderConfig, scaling: Scaling, n_classes: int, seed: int) -> Model:
    """Return a new model, its weights drawn from the seed alone.

    The encoder is drawn first: its weights do not depend on the head or on the classes.

    Args:
        config: which network.
        scaling: constants measured on the training events.
        n_classes: classes that a linear classifier on the embedding tells apart; 0 for none.
        seed: of all weights.

    Raises:
        ParameterError: if `n_classes` is negative.
    """
    if n_classes < 0:
        msg = f"n_classes must be 0 or more; got {n_classes}"
        raise ParameterError(msg)
    dim, untrained = config.learned_dim, config.arch in UNTRAINED
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        preprocess = nn.Identity() if untrained else Preprocess(scaling, config.inputs)
        encoder = Encoder(preprocess, _backbone(config), config.keep)
        head = make_head("none" if config.arch in FIXED_DIMS else config.head, dim)
        classifier = nn.Linear(dim, n_classes) if n_classes and not untrained else None
        decoder = VAEDecoder(config.inputs.n_inputs) if config.arch == "vae" else None
        return Model(encoder, head, classifier, decoder)


def _backbone(config: EncoderConfig) -> nn.Module:
    """Return a new backbone."""
    dim, n_inputs, mask = config.dim, config.inputs.n_inputs, config.mask_absent
    if config.arch == "mlp":
        return MLPEncoder(dim, n_inputs)
    if config.arch == "transformer":
        return TransformerEncoder(dim, n_inputs, _TOKEN_WIDTH, _heads(config), mask_absent=mask)
    if config.arch == "vicreg-transformer":
        return TransformerEncoder(
            dim, n_inputs, dim, _heads(config), 4 * dim, mask_absent=mask, narrow=True
        )
    if config.arch == "vae":
        return VAEEncoder(n_inputs)
    columns = {
        "raw": list(range(N_OBJECTS * N_FEATURES)),
        "leading-pt": [N_FEATURES * slot for slot in _LEADING_SLOTS],
        "quantities": [],
    }
    return KinematicsEncoder(columns[config.arch])
