"""An encoder on ONNX Runtime."""

from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from engines.artifact import fingerprint, load_onnx, read_facts
from engines.engine import EngineBase
from engines.errors import ArtifactError, EngineError
from engines.events import N_FEATURES, N_OBJECTS
from engines.first_line import first_line
from engines.multiplicity import buckets
from engines.packed_graph import TOKENS, with_packing
from engines.types import AnyArray, FloatArray

__all__ = ["OnnxEngine"]

# It would tell its maker of every session.
ort.disable_telemetry_events()

_RUNTIME_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxEngine(EngineBase):
    """Implements `engines.engine.Engine` over an ONNX Runtime session on the CPU.

    Of a transformer that masks absent objects it computes those that are there alone.

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
        packed = with_packing(model)
        self._packs = packed is not None
        try:
            self._session = ort.InferenceSession(
                (packed or model).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except _RUNTIME_ERRORS as exc:
            msg = f"ONNX Runtime cannot load {path} ({first_line(exc)}); export it again"
            raise ArtifactError(msg) from exc
        self._input, self._output, dim = self._interface(path)
        super().__init__(dim, max_batch, fingerprint(model), read_facts(model))

    def _interface(self, path: str | Path) -> tuple[str, str, int]:
        inputs = [node for node in self._session.get_inputs() if node.name != TOKENS]
        outputs = self._session.get_outputs()
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
    def runtime(self) -> str:
        """What computes, its version and where."""
        packs = ", absent objects left out" if self._packs else ""
        return f"ONNX Runtime {ort.__version__} on the CPU, fp32{packs}"

    def _compute(self, particles: FloatArray, embeddings: FloatArray) -> None:
        if not self._packs:
            embeddings[:] = self._run({self._input: particles})
            return
        for bucket in buckets(particles):
            inputs: dict[str, AnyArray] = {
                self._input: particles[bucket.events],
                TOKENS: bucket.tokens,
            }
            embeddings[bucket.events] = self._run(inputs)

    def _run(self, inputs: dict[str, AnyArray]) -> FloatArray:
        """Return the embeddings, (m, d), of the m events in the inputs."""
        n_events = len(inputs[self._input])
        try:
            out: FloatArray = self._session.run([self._output], inputs)[0]
        except _RUNTIME_ERRORS as exc:
            msg = f"the encoder failed on {n_events} events ({first_line(exc)}); export it again"
            raise EngineError(msg) from exc
        if out.shape != (n_events, self._dim):
            wanted = (n_events, self._dim)
            msg = f"the encoder must give {wanted} embeddings; got {out.shape}; export it again"
            raise EngineError(msg)
        return out

    def close(self) -> None:
        """Release the session's memory; a second time does nothing."""
        vars(self).pop("_session", None)
