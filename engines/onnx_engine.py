"""An encoder on ONNX Runtime."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from engines.artifact import EngineFacts, fingerprint, load_onnx, read_facts
from engines.engine import check_particles
from engines.errors import ArtifactError, EngineError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray

__all__ = ["OnnxEngine"]

_RUNTIME_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxEngine:
    """Implements `engines.engine.Engine` over an ONNX Runtime session on the CPU.

    Args:
        path: an ONNX file with one input (n, 19, 3) and one output (n, d), both float32.
        threads: threads of one computation.
        max_batch: largest batch computed at once.

    Raises:
        ArtifactError: if the file is missing, damaged, or has other inputs and outputs.
    """

    def __init__(self, path: str | Path, *, threads: int = 1, max_batch: int = 4096) -> None:
        """Load the graph and check its interface."""
        model = load_onnx(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except _RUNTIME_ERRORS as exc:
            reason = str(exc).strip().partition("\n")[0]
            msg = f"ONNX Runtime cannot load {path} ({reason}); export it again"
            raise ArtifactError(msg) from exc
        self._input, self._output, self._dim = self._interface(path)
        self._fingerprint = fingerprint(model)
        self._facts = read_facts(model)
        self._max_batch = max_batch

    def _interface(self, path: str | Path) -> tuple[str, str, int]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [(node.type, node.shape) for node in (*inputs, *outputs)]
        right = (
            len(inputs) == 1
            and len(outputs) == 1
            and all(node.type == "tensor(float)" for node in (*inputs, *outputs))
            and list(inputs[0].shape[1:]) == [N_OBJECTS, N_FEATURES]
            and not isinstance(inputs[0].shape[0], int)
            and len(outputs[0].shape) == 2
            and isinstance(outputs[0].shape[1], int)
        )
        if not right:
            msg = f"{path} must map float32 (n, 19, 3) to (n, d) with a dynamic n; it has {found}"
            raise ArtifactError(msg)
        return inputs[0].name, outputs[0].name, outputs[0].shape[1]

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

    def embed(self, particles: FloatArray) -> FloatArray:
        """Return the embeddings, (n, d) float32, of particles, (n, 19, 3) float32, n >= 1.

        Raises:
            EngineError: on a wrong shape or dtype, an empty batch, or non-finite values in or out.
        """
        check_particles(particles)
        embeddings = np.empty((len(particles), self._dim), dtype=np.float32)
        for first in range(0, len(particles), self._max_batch):
            batch = particles[first : first + self._max_batch]
            embeddings[first : first + len(batch)] = self._run(np.ascontiguousarray(batch))
        if not np.isfinite(embeddings).all():
            msg = "the encoder gave non-finite embeddings for finite events; retrain or export it"
            raise EngineError(msg)
        return embeddings

    def _run(self, batch: FloatArray) -> FloatArray:
        try:
            out: FloatArray = self._session.run([self._output], {self._input: batch})[0]
        except _RUNTIME_ERRORS as exc:
            reason = str(exc).strip().partition("\n")[0]
            msg = f"the encoder failed on {len(batch)} events ({reason}); export it again"
            raise EngineError(msg) from exc
        if out.shape != (len(batch), self._dim):
            wanted = (len(batch), self._dim)
            msg = f"the encoder must give {wanted} embeddings; got {out.shape}; export it again"
            raise EngineError(msg)
        return out

    def close(self) -> None:
        """Release the session's memory."""
        del self._session

    def __enter__(self) -> Self:
        """Return the engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()
