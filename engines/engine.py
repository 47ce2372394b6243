"""The engine: raw kinematics in, embeddings out, whatever runs underneath."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from engines.artifact import EngineFacts
from engines.errors import ArtifactError, EngineError, EngineFailedError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray

__all__ = [
    "Engine",
    "EngineBase",
    "check_embeddings",
    "check_particles",
    "embed_surely",
    "open_engine",
]


class Engine(Protocol):
    """An encoder that is ready to run. Scaling and masking happen inside."""

    @property
    def dim(self) -> int:
        """Number of embedding coordinates d."""

    @property
    def max_batch(self) -> int:
        """Largest number of events computed at once; larger inputs are split."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ONNX graph that the engine came from."""

    @property
    def facts(self) -> EngineFacts:
        """Provenance of the encoder."""

    @property
    def runtime(self) -> str:
        """What computes, its version, where and how precisely; for people."""

    @property
    def precision(self) -> str:
        """Of its matrix products: fp32, tf32, fp16 or bf16."""

    def embed(self, particles: FloatArray) -> FloatArray:
        """Return the embeddings of events.

        Args:
            particles: (n, 19, 3) float32, pT in GeV, n >= 1.

        Returns:
            (n, d) float32.

        Raises:
            EngineError: on a wrong shape or dtype, an empty batch or non-finite values.
        """

    def embed_into(self, particles: FloatArray, embeddings: FloatArray) -> None:
        """Write the embeddings of events that the caller has checked; the stream's way.

        Args:
            particles: (n, 19, 3) float32, C-contiguous, finite, n >= 1; read fastest from memory
                of `input_buffer`.
            embeddings: (n, d) float32, C-contiguous; overwritten.

        Raises:
            EngineError: if the encoder fails or gives non-finite embeddings.
        """

    def input_buffer(self, n_events: int) -> FloatArray:
        """Return uninitialised memory for events, (n_events, 19, 3) float32.

        A GPU copies from it without a detour: it is page-locked there.
        """

    def close(self) -> None:
        """Release what the engine holds."""

    def __enter__(self) -> Self:
        """Return the engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the engine."""


class EngineBase(ABC):
    """What every engine does alike: checks, batches, and closing.

    Args:
        dim: number of embedding coordinates d.
        max_batch: largest number of events computed at once.
        fingerprint: SHA-256 of the ONNX graph.
        facts: provenance of the encoder.
    """

    def __init__(self, dim: int, max_batch: int, fingerprint: str, facts: EngineFacts) -> None:
        """Keep what the engine says of itself."""
        self._dim, self._max_batch = dim, max_batch
        self._fingerprint, self._facts = fingerprint, facts

    @property
    def dim(self) -> int:
        """Number of embedding coordinates d."""
        return self._dim

    @property
    def max_batch(self) -> int:
        """Largest number of events computed at once; larger inputs are split."""
        return self._max_batch

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the ONNX graph."""
        return self._fingerprint

    @property
    def facts(self) -> EngineFacts:
        """Provenance of the encoder."""
        return self._facts

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What computes, its version, where and how precisely; for people."""

    @property
    def precision(self) -> str:
        """Of its matrix products."""
        return "fp32"

    @abstractmethod
    def _compute(self, particles: FloatArray, embeddings: FloatArray) -> None:
        """Write the embeddings of at most `max_batch` events, as in `embed_into`."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def embed(self, particles: FloatArray) -> FloatArray:
        """Return the embeddings, (n, d) float32, of particles, (n, 19, 3) float32, n >= 1.

        Raises:
            EngineError: on a wrong shape or dtype, an empty batch, or non-finite values in or out.
        """
        check_particles(particles)
        embeddings = np.empty((len(particles), self._dim), dtype=np.float32)
        self.embed_into(np.ascontiguousarray(particles), embeddings)
        return embeddings

    def embed_into(self, particles: FloatArray, embeddings: FloatArray) -> None:
        """Write the embeddings of checked events; see `Engine.embed_into`.

        Raises:
            EngineError: if the encoder fails or gives non-finite embeddings.
        """
        for first in range(0, len(particles), self._max_batch):
            rows = slice(first, first + self._max_batch)
            self._compute(particles[rows], embeddings[rows])
        check_embeddings(embeddings)

    def input_buffer(self, n_events: int) -> FloatArray:
        """Return uninitialised memory for events, (n_events, 19, 3) float32."""
        return np.empty((n_events, N_OBJECTS, N_FEATURES), dtype=np.float32)

    def __enter__(self) -> Self:
        """Return the engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()


def check_particles(particles: AnyArray) -> None:
    """Refuse what no engine can embed.

    Raises:
        EngineError: on a wrong shape or dtype, an empty batch or non-finite values.
    """
    if particles.ndim != 3 or particles.shape[1:] != (N_OBJECTS, N_FEATURES):
        msg = f"particles must have shape (n, {N_OBJECTS}, {N_FEATURES}); got {particles.shape}"
        raise EngineError(msg)
    if particles.dtype != np.float32:
        msg = f"particles must be float32; got {particles.dtype}; use .astype(np.float32)"
        raise EngineError(msg)
    if len(particles) == 0:
        msg = "particles must hold at least one event; got an empty batch"
        raise EngineError(msg)
    if not np.isfinite(particles).all():
        first = int(np.argmin(np.isfinite(particles).all(axis=(1, 2))))
        msg = f"particles must be finite; event {first} of the batch is not; drop it"
        raise EngineError(msg)


def embed_surely(engine: Engine, particles: FloatArray, out: FloatArray) -> None:
    """Embed events, or tell those that cannot be embedded from an engine that fails.

    Where it refuses them it is to embed ordinary events, as many, since memory may be short for
    many alone; then, as what was short may be there again, these once more.

    Args:
        engine: the encoder.
        particles: (n, 19, 3).
        out: (n, d), filled.

    Raises:
        EngineFailedError: if it refuses so many of nothing but 50 GeV of missing energy too.
        EngineError: if it refuses these alone.
    """
    try:
        engine.embed_into(particles, out)
    except EngineError as exc:
        ordinary = np.zeros((len(particles), N_OBJECTS, N_FEATURES), dtype=np.float32)
        ordinary[:, 0, 0] = 50.0
        try:
            engine.embed(ordinary)
        except EngineError:
            msg = f"the encoder embeds nothing any more: {exc}"
            raise EngineFailedError(msg) from exc
        engine.embed_into(particles, out)


def check_embeddings(embeddings: FloatArray) -> None:
    """Refuse what no encoder should give.

    Raises:
        EngineError: if embeddings, (n, d), are not finite.
    """
    if not np.isfinite(embeddings).all():
        msg = "the encoder gave non-finite embeddings for finite events; retrain or export it"
        raise EngineError(msg)


def open_engine(
    path: str | Path, *, device: str = "cpu", threads: int = 1, max_batch: int = 4096
) -> Engine:
    """Open an encoder file, chosen by its suffix.

    Args:
        path: `.onnx` for ONNX Runtime, or torch on a GPU; `.plan` for TensorRT.
        device: where an `.onnx` runs, cpu or cuda; a plan always runs on the GPU.
        threads: CPU threads the engine may use.
        max_batch: largest number of events computed at once; that of a plan is its own, if less.

    Raises:
        ArtifactError: if the file is missing, truncated or of an unknown kind.
        EngineUnavailableError: if this machine or version cannot run it.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        if device != "cpu":
            from engines.gpu.cuda_engine import open_cuda_engine

            return open_cuda_engine(path, device=device, max_batch=max_batch)
        from engines.onnx_engine import OnnxEngine

        return OnnxEngine(path, threads=threads, max_batch=max_batch)
    if path.suffix == ".plan":
        from engines.tensorrt_engine import TensorRTEngine

        return TensorRTEngine(path, max_batch=max_batch)
    msg = f"an engine file must end in .onnx or .plan; got {path}"
    raise ArtifactError(msg)
