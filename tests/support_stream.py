"""Blocks and windows that several tests of the stream use."""

import numpy as np

from engines.nplm import CachedReference
from engines.types import FloatArray, IntArray
from stream.block import Block
from stream.features import PendingFeatures
from stream.window import ClosedWindow

__all__ = ["block", "closed_window"]


def block(source: str, seq: int, t_ns: int, ids: IntArray, dim: int = 1) -> Block:
    """Return a message whose events carry their id as pT of MET, as embedding and as feature."""
    particles = np.zeros((len(ids), 19, 3), np.float32)
    particles[:, 0, 0] = ids
    embeddings = np.repeat(ids[:, None], dim, axis=1).astype(np.float32)
    return Block(source, seq, t_ns, particles, embeddings, PendingFeatures.of(embeddings))


def closed_window(
    embeddings: FloatArray,
    reference: CachedReference | None = None,
    *,
    index: int = 0,
    t_start_ns: int = 0,
    t_end_ns: int = 10**9,
) -> ClosedWindow:
    """Return a window of these embeddings, event i with i GeV of MET.

    Its features are the reference's; the embeddings themselves without one.
    """
    particles = np.zeros((len(embeddings), 19, 3), np.float32)
    particles[:, 0, 0] = np.arange(len(embeddings))
    features = embeddings if reference is None else reference.features(embeddings)
    pending = PendingFeatures.of(features)
    block = Block("test", 0, t_end_ns, particles, embeddings, pending)
    return ClosedWindow(index, t_start_ns, t_end_ns, (block,))
