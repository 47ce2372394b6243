"""What one thread runs a TensorRT plan with: a context, three streams, a ring and its graphs."""

import contextlib
import logging
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.events import N_FEATURES, N_OBJECTS
from engines.gpu.primary_context import PrimaryContext
from engines.gpu.ring_engine import bucket_of
from engines.gpu.torch_cuda import (
    capture,
    is_page_locked,
    new_event,
    replay,
    shared_stream,
    urgent_stream,
)
from engines.plans.tensorrt_api import TensorRT
from engines.types import FloatArray

__all__ = ["TensorRTLane"]

_N_SLOTS = 3
#: CU_STREAM_NON_BLOCKING: does not wait for the default stream, where anyone may work.
_NON_BLOCKING = 1
_FLOAT_BYTES = 4
_LOG = logging.getLogger(__name__)


class TensorRTLane:
    """Copies in and out on PyCUDA's streams, computes between them on torch's urgent one.

    PyCUDA knows no priorities and no CUDA graphs, so compute stream, events and graphs are torch's.
    Everything is made and released with the primary context current in the thread that does it.

    Args:
        primary: the GPU's primary context.
        engine: the deserialised plan.
        api: its TensorRT.
        buckets: sizes of batches, each captured as a CUDA graph for each slot.
        dim: embedding coordinates.

    Raises:
        RuntimeError: if the plan cannot run; nothing is left behind.
    """

    def __init__(
        self,
        primary: PrimaryContext,
        engine: Any,  # noqa: ANN401 - TensorRT has no types
        api: TensorRT,
        *,
        buckets: Sequence[int],
        dim: int,
    ) -> None:
        """Make everything and compute each bucket once."""
        self.buckets, self.dim, self.driver = buckets, dim, primary.driver
        self.slots: list[_Slot] = []
        self._primary = primary
        self._memory: list[Any] = []
        self._streams: list[Any] = []
        self._graphs: dict[tuple[_Slot, int], Any] = {}
        self._context: Any = None
        try:
            with primary.current():
                self._build(engine, api)
        except BaseException as exc:
            traceback.clear_frames(exc.__traceback__)  # their variables keep what is to be released
            self.close()
            raise

    def _build(self, engine: Any, api: TensorRT) -> None:  # noqa: ANN401
        for _ in range(2):
            self._streams.append(self.driver.Stream(_NON_BLOCKING))
        self.copied_in, self.copied_out = (shared_stream(s.handle) for s in self._streams)
        self.compute = urgent_stream()
        self._context = _execution_context(engine, api)
        self._input, self._output = _tensor_names(engine, api)
        self.slots += [_Slot(self) for _ in range(_N_SLOTS)]
        for bucket in self.buckets:
            for slot in self.slots:
                self._record(slot, bucket)
        self.compute.synchronize()

    def _record(self, slot: "_Slot", bucket: int) -> None:
        self._bind(slot, bucket)
        self._execute()  # TensorRT prepares a new shape at its first use
        self.compute.synchronize()
        try:
            self._graphs[slot, bucket] = capture(self._execute, self.compute)
        except RuntimeError as exc:
            reason = str(exc).strip().partition("\n")[0]
            _LOG.warning("batches of %d run without a CUDA graph (%s)", bucket, reason)

    def _bind(self, slot: "_Slot", bucket: int) -> None:
        shape = (bucket, N_OBJECTS, N_FEATURES)
        done = (
            self._context.set_input_shape(self._input, shape)
            and self._context.set_tensor_address(self._input, slot.device_particles)
            and self._context.set_tensor_address(self._output, slot.device_embeddings)
        )
        if not done:
            msg = f"TensorRT refuses batches of {bucket}"
            raise RuntimeError(msg)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self.compute.cuda_stream):
            msg = "TensorRT refuses to compute"
            raise RuntimeError(msg)

    def start(self, slot: "_Slot", bucket: int) -> None:
        """Start to compute a slot's batch on the compute stream."""
        graph = self._graphs.get((slot, bucket))
        if graph is not None:
            replay(graph, self.compute)
        else:
            self._bind(slot, bucket)
            self._execute()

    def copy_in(self, device: int, host: FloatArray) -> None:
        """Start to copy to the GPU."""
        self.driver.memcpy_htod_async(device, host, self._streams[0])

    def copy_out(self, host: FloatArray, device: int) -> None:
        """Start to copy from the GPU."""
        self.driver.memcpy_dtoh_async(host, device, self._streams[1])

    def device_memory(self, *shape: int) -> int:
        """Return the address of float32 zeros on the GPU, released with the lane."""
        zeros = np.zeros(shape, dtype=np.float32)
        self._memory.append(self.driver.mem_alloc(zeros.nbytes))
        self.driver.memcpy_htod(self._memory[-1], zeros)
        return int(self._memory[-1])

    def host_memory(self, *shape: int) -> FloatArray:
        """Return page-locked float32 memory, released with the lane."""
        array: FloatArray = self.driver.pagelocked_empty(shape, np.float32)
        self._memory.append(array.base)
        return array

    def close(self) -> None:
        """Wait, then release graphs, execution context, memory and streams, in this order."""
        with self._primary.current():
            # A failed GPU has been reported where it failed; everything is released all the same.
            with contextlib.suppress(Exception):
                self.driver.Context.synchronize()
            self._graphs.clear()
            self._context = None
            self.slots.clear()
            while self._memory:
                with contextlib.suppress(Exception):
                    self._memory.pop().free()
            while self._streams:
                self._streams.pop()


class _Slot:
    """Memory for one batch, on both sides.

    What an earlier batch left behind pads the next: finite events, whose embeddings nobody reads.
    """

    def __init__(self, lane: TensorRTLane) -> None:
        self._lane, n = lane, lane.buckets[-1]
        self._host_particles = lane.host_memory(n, N_OBJECTS, N_FEATURES)
        self._host_embeddings = lane.host_memory(n, lane.dim)
        self.device_particles = lane.device_memory(n, N_OBJECTS, N_FEATURES)
        self.device_embeddings = lane.device_memory(n, lane.dim)
        self._copied_in, self._computed, self._copied_out = (new_event() for _ in range(3))
        self._n = 0

    def submit(self, particles: FloatArray) -> None:
        lane, self._n = self._lane, len(particles)
        if not is_page_locked(particles):
            staged = self._host_particles[: self._n]
            staged[:] = particles
            particles = staged
        lane.copy_in(self.device_particles, particles)
        self._copied_in.record(lane.copied_in)
        lane.compute.wait_event(self._copied_in)
        lane.start(self, bucket_of(self._n, lane.buckets))
        self._computed.record(lane.compute)
        lane.copied_out.wait_event(self._computed)
        lane.copy_out(self._host_embeddings[: self._n], self.device_embeddings)
        self._copied_out.record(lane.copied_out)

    def finish(self, embeddings: FloatArray) -> None:
        self._copied_out.synchronize()
        embeddings[:] = self._host_embeddings[: self._n]


def _execution_context(engine: Any, api: TensorRT) -> Any:  # noqa: ANN401
    if api.is_rtx:
        # Compile the kernels of each bucket before it is captured, not later and beside the stream.
        config, strategies = engine.create_runtime_config(), api.module
        config.dynamic_shapes_kernel_specialization_strategy = (
            strategies.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        msg = "TensorRT makes no execution context; is the GPU's memory full?"
        raise RuntimeError(msg)
    return context


def _tensor_names(engine: Any, api: TensorRT) -> tuple[str, str]:  # noqa: ANN401
    """Return the names of the input and the output."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    is_input = api.module.TensorIOMode.INPUT
    names.sort(key=lambda name: engine.get_tensor_mode(name) != is_input)
    if len(names) != 2:
        msg = f"a plan must have one input and one output; it has {', '.join(names)}"
        raise RuntimeError(msg)
    return names[0], names[1]
