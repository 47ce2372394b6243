"""The engine: raw kinematics in, embeddings out, whatever runs underneath."""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from engines.artifact import EngineFacts
from engines.errors import ArtifactError, EngineError, EngineUnavailableError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import AnyArray, FloatArray

__all__ = ["Engine", "check_particles", "open_engine"]


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

    def embed(self, particles: FloatArray) -> FloatArray:
        """Return the embeddings of events.

        Args:
            particles: (n, 19, 3) float32, pT in GeV, n >= 1.

        Returns:
            (n, d) float32.

        Raises:
            EngineError: on a wrong shape or dtype, an empty batch or non-finite values.
        """

    def close(self) -> None:
        """Release what the engine holds."""

    def __enter__(self) -> Self:
        """Return the engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the engine."""


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


def open_engine(path: str | Path, *, threads: int = 1) -> Engine:
    """Open an encoder file, chosen by its suffix.

    Args:
        path: `.onnx` for ONNX Runtime, `.plan` for TensorRT.
        threads: CPU threads the engine may use.

    Raises:
        ArtifactError: if the file is missing, truncated or of an unknown kind.
        EngineUnavailableError: if this machine or version cannot run it.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        from engines.onnx_engine import OnnxEngine

        return OnnxEngine(path, threads=threads)
    if path.suffix == ".plan":
        msg = (
            f"engine {path} is a TensorRT plan, which this version cannot run; "
            f"use the ONNX file it came from: --engine {path.with_suffix('.onnx')}"
        )
        raise EngineUnavailableError(msg)
    msg = f"an engine file must end in .onnx or .plan; got {path}"
    raise ArtifactError(msg)
