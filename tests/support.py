"""Small samples, encoders and artefacts that several tests use."""

from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import numpy as np

from engines.artifact import EngineFacts
from engines.engine import check_particles
from engines.errors import EngineError
from engines.nplm import BasisConfig, CachedReference, Loss, WidthNulls, draw_toys, offset_share
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import AnyArray, FloatArray
from engines.windows import WindowSpec

__all__ = [
    "FINGERPRINT",
    "LinearEngine",
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
    sigma_quantiles: tuple[float, ...] = (0.9,),
    loss: Loss = "cross-entropy",
) -> CachedReference:
    config = BasisConfig(
        n_centres=n_centres, n_ref=n_ref, n_expected=n_expected, sigma_quantiles=sigma_quantiles
    )
    return CachedReference.build(gaussians(n_basis, rng), gaussians(n_ref, rng), config, loss=loss)


def small_artifact(
    window: WindowSpec | None = None,
    *,
    n_toys: int = 99,
    n_pool: int = 4000,
    seed: int = 0,
    sigma_quantiles: tuple[float, ...] = (0.9,),
    scales: tuple[int, ...] = (),
) -> ReferenceArtifact:
    """Calibrate a reference on Gaussians, in a fraction of a second."""
    rng = np.random.default_rng(seed)
    window = window or window_spec("count", 200)
    reference = small_reference(rng, n_expected=window.n_expected, sigma_quantiles=sigma_quantiles)
    pool, nulls = gaussians(n_pool, rng), {}
    for scale in (1, *scales):
        toys = draw_toys(window, n_pool, n_toys, rng, scale=scale)
        nulls[scale] = WidthNulls(reference.test_toys(pool, toys, scale=scale))
    facts = ReferenceFacts(
        engine_fingerprint=FINGERPRINT,
        window=window,
        samples=(),
        n_basis=1000,
        n_ref=reference.n_ref,
        n_pool=n_pool,
        n_toys=n_toys,
        loss=reference.loss,
        store="float32",
        offset_shares={
            scale: offset_share(scale * window.n_expected, n_pool, reference.n_ref)
            for scale in nulls
        },
        options={"sigmas": list(reference.basis.sigmas), "lam": 1e-6, "n_centres": 20},
        created="2026-01-01T00:00:00+00:00",
    )
    return ReferenceArtifact(reference, nulls, facts)


class LinearEngine:
    """An encoder that reads the first four eta off an event; deterministic and quick.

    Args:
        trained_on: what `facts` say.
        refuse: events it fails on, (n, 19, 3) to (n,) bool.
    """

    dim, max_batch, fingerprint = 4, 4096, FINGERPRINT
    runtime, precision = "a stand-in", "fp32"

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

    def embed_into(self, particles: FloatArray, embeddings: FloatArray) -> None:
        embeddings[:] = self.embed(particles)

    def input_buffer(self, n_events: int) -> FloatArray:
        return np.empty((n_events, 19, 3), dtype=np.float32)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
