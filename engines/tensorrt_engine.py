"""An encoder compiled by TensorRT, on PyCUDA's buffers."""

import ctypes
from pathlib import Path
from typing import Any

from engines.errors import ArtifactError, EngineUnavailableError, MissingPackageError
from engines.events import N_FEATURES, N_OBJECTS
from engines.gpu.primary_context import PrimaryContext
from engines.gpu.ring_engine import Lane, RingEngine, batch_buckets
from engines.gpu.tensorrt_lane import TensorRTLane
from engines.gpu.torch_cuda import page_locked
from engines.plans.plan_file import PlanFacts, check_runnable, read_plan
from engines.plans.tensorrt_api import TensorRT, gpu_capability, load_tensorrt
from engines.types import FloatArray

__all__ = ["TensorRTEngine"]


class TensorRTEngine(RingEngine):
    """Implements `engines.engine.Engine` over a plan.

    Each thread has an execution context, streams and a ring of buffers of its own, and a CUDA graph
    for each size of batch; smaller batches are padded.

    Args:
        path: a file of `build-engine`.
        max_batch: largest number of events computed at once, if the plan does not allow fewer.

    Raises:
        ArtifactError: if the file is missing, truncated, altered, or of another kind.
        EngineUnavailableError: if the plan is for another TensorRT or GPU, or there is no GPU.
        MissingPackageError: if TensorRT, PyCUDA, or torch for CUDA is not installed.
        EngineError: if the GPU fails, or has not the memory.
    """

    def __init__(self, path: str | Path, *, max_batch: int = 4096) -> None:
        """Load the plan and make the first thread's buffers and graphs."""
        plan, serialised = read_plan(path)
        api = load_tensorrt(plan.flavour)
        _check_machine(Path(path), plan, api)
        primary = PrimaryContext()
        largest = min(max_batch, plan.max_batch)
        failures = (RuntimeError, primary.driver.Error)
        super().__init__(plan.dim, largest, plan.fingerprint, plan.engine, failures)
        self._api, self._primary, self._precision = api, primary, plan.precision
        self._buckets = batch_buckets(plan.min_batch, largest)
        self._runtime: Any = None
        self._engine: Any = None
        try:
            with primary.current():
                self._load(path, plan, serialised)
            self.prepare()
        except BaseException:
            self.close()
            raise

    def _load(self, path: str | Path, plan: PlanFacts, serialised: bytes) -> None:
        trt = self._api.module
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            msg = (
                f"{path} must be a plan that {self._api.name} can load; it cannot; "
                f"build it again: {plan.rebuild(Path(path))}"
            )
            raise ArtifactError(msg)

    @property
    def runtime(self) -> str:
        """What computes, its version, where and how precisely."""
        import torch

        return f"{self._api.name} on {torch.cuda.get_device_name(0)}, {self._precision}"

    @property
    def precision(self) -> str:
        """Of its matrix products."""
        return self._precision

    def input_buffer(self, n_events: int) -> FloatArray:
        """Return uninitialised memory for events, (n_events, 19, 3) float32, page-locked."""
        return page_locked((n_events, N_OBJECTS, N_FEATURES)).numpy()

    def _compute(self, particles: FloatArray, embeddings: FloatArray) -> None:
        with self._primary.current():
            super()._compute(particles, embeddings)

    def _make_lane(self) -> Lane:
        return TensorRTLane(
            self._primary, self._engine, self._api, buckets=self._buckets, dim=self._dim
        )

    def _release(self) -> None:
        with self._primary.current():
            self._engine = None
            self._runtime = None  # TensorRT wants it to outlive the engine
        self._primary.close()


def _check_machine(path: Path, plan: PlanFacts, api: TensorRT) -> None:
    """Refuse a plan for another TensorRT or GPU, a machine without one, and a torch for CPUs."""
    import torch

    capability = gpu_capability()
    # Without a GPU, the version can still be wrong, and is said first.
    supposed = capability or next(iter(plan.compute_capabilities), None)
    check_runnable(plan, api.flavour, api.version, supposed, path)
    if capability is None:
        msg = (
            f"engine {path} must run on an NVIDIA GPU with its driver; this machine has none "
            f"({_why_no_gpu()}); {_instead(path.with_name(Path(plan.onnx).name))}"
        )
        raise EngineUnavailableError(msg)
    if not torch.cuda.is_available():
        msg = (
            f"torch must be built for CUDA to run a plan; got {torch.__version__}; "
            "pip install torch, from PyPI"
        )
        raise MissingPackageError(msg)


def _instead(onnx: Path) -> str:
    if onnx.is_file():
        return f"use the ONNX file it came from: --engine {onnx}, or add --fallback"
    return f"copy the ONNX file it came from to {onnx} and use that, or add --fallback"


def _why_no_gpu() -> str:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no libcuda.so.1"
    return "the driver finds no GPU"
