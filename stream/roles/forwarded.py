"""Embeddings that were made elsewhere, in an engine's place."""

import numpy as np

from engines.artifact import EngineFacts
from engines.engine import EngineBase
from engines.types import FloatArray

__all__ = ["ForwardedEmbeddings"]


class ForwardedEmbeddings(EngineBase):
    """Hands on what embedders have computed.

    Args:
        dim: numbers an event.
        fingerprint: of the embedders' engine; others' embeddings are refused.
        precision: that the reference was embedded in.
        max_batch: events handed on together.
    """

    def __init__(self, dim: int, fingerprint: str, precision: str, max_batch: int) -> None:
        """Compute nothing."""
        super().__init__(dim, max_batch, fingerprint, EngineFacts())
        self._precision = precision

    @property
    def runtime(self) -> str:
        """What computes."""
        return "embedders, which send their embeddings"

    @property
    def precision(self) -> str:
        """What the reference was embedded in: the embedders' own is theirs to compare."""
        return self._precision

    def embed(self, particles: FloatArray) -> FloatArray:
        """Return a copy of embeddings, (n, d)."""
        return particles.copy()

    def embed_into(self, particles: FloatArray, embeddings: FloatArray) -> None:
        """Copy embeddings, (n, d)."""
        embeddings[:] = particles

    def input_buffer(self, n_events: int) -> FloatArray:
        """Return memory for n embeddings."""
        return np.empty((n_events, self.dim), dtype=np.float32)

    def close(self) -> None:
        """Nothing to close."""

    def _compute(self, particles: FloatArray, embeddings: FloatArray) -> None:
        embeddings[:] = particles
