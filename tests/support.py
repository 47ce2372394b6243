"""Small samples, encoders and artefacts that several tests use."""

from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import numpy as np

from engines.artifact import EngineFacts
from engines.engine import check_particles
from engines.errors import EngineError
from engines.nplm import BasisConfig, CachedReference, NullDistribution, draw_toys, offset_share
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import AnyArray, FloatArray, IntArray
from engines.windows import WindowSpec
from stream.window import Block, ClosedWindow, Span

__all__ = [
    "FINGERPRINT",
    "LinearEngine",
    "block",
    "closed_window",
    "gaussians",
    "small_artifact",
    "small_reference",
    "window_spec",
]

FINGERPRINT = "ab" * 32
_MIX = np.linalg.cholesky(0.6 * np.eye(4) + 0.4)


def gaussians(n: int, rng: np.random.Generator) -> FloatArray:
    """Draw n points of the null used here: a correlated 4-d Gaussian."""
    return (rng.normal(size=(n, 4)) @ _MIX.T).astype(np.float32)


def window_spec(mode: Literal["count", "time"], n_expected: float) -> WindowSpec:
    return WindowSpec(mode, float(n_expected), 1.0 if mode == "time" else 0.0)


def small_reference(
    rng: np.random.Generator,
    *,
    n_ref: int = 2000,
    n_expected: float = 200.0,
    n_centres: int = 20,
    n_basis: int = 1000,
) -> CachedReference:
    config = BasisConfig(n_centres=n_centres, n_ref=n_ref, n_expected=n_expected)
    return CachedReference.build(gaussians(n_basis, rng), gaussians(n_ref, rng), config)


def small_artifact(
    window: WindowSpec | None = None, *, n_toys: int = 99, n_pool: int = 4000, seed: int = 0
) -> ReferenceArtifact:
    """Calibrate a reference on Gaussians, in a fraction of a second."""
    rng = np.random.default_rng(seed)
    window = window or window_spec("count", 200)
    reference = small_reference(rng, n_expected=window.n_expected)
    toys = draw_toys(window, n_pool, n_toys, rng)
    null = NullDistribution(reference.test_toys(gaussians(n_pool, rng), toys))
    facts = ReferenceFacts(
        engine_fingerprint=FINGERPRINT,
        window=window,
        samples=(),
        n_basis=1000,
        n_ref=reference.n_ref,
        n_pool=n_pool,
        n_toys=n_toys,
        offset_share=offset_share(window.n_expected, n_pool, reference.n_ref),
        options={"sigma": reference.basis.sigma, "lam": 1e-6},
        created="2026-01-01T00:00:00+00:00",
    )
    return ReferenceArtifact(reference, null, facts)


def block(source: str, seq: int, t_ns: int, ids: IntArray, dim: int = 1) -> Block:
    """Return a message whose events carry their id as pT of MET and as embedding."""
    particles = np.zeros((len(ids), 19, 3), np.float32)
    particles[:, 0, 0] = ids
    embeddings = np.repeat(ids[:, None], dim, axis=1).astype(np.float32)
    return Block(source, seq, t_ns, particles, embeddings)


def closed_window(
    embeddings: FloatArray, *, index: int = 0, t_start_ns: int = 0, t_end_ns: int = 10**9
) -> ClosedWindow:
    """Return a window of these embeddings; event i has i GeV of MET."""
    particles = np.zeros((len(embeddings), 19, 3), np.float32)
    particles[:, 0, 0] = np.arange(len(embeddings))
    span = Span("test", 0, 0, 0, len(embeddings))
    return ClosedWindow(index, t_start_ns, t_end_ns, particles, embeddings, (span,))


class LinearEngine:
    """An encoder that reads the first four eta off an event; deterministic and quick.

    Args:
        trained_on: what `facts` say.
        refuse: events it fails on, (n, 19, 3) to (n,) bool.
    """

    dim, max_batch, fingerprint = 4, 4096, FINGERPRINT

    def __init__(
        self,
        facts: EngineFacts | None = None,
        refuse: Callable[[FloatArray], AnyArray] | None = None,
    ) -> None:
        self.facts = facts or EngineFacts()
        self._refuse = refuse

    def embed(self, particles: FloatArray) -> FloatArray:
        check_particles(particles)
        if self._refuse is not None and self._refuse(particles).any():
            msg = "the encoder cannot embed such an event"
            raise EngineError(msg)
        return np.ascontiguousarray(particles[:, 1:5, 1])

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
