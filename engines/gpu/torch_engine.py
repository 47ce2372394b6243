"""An encoder's ONNX file, computed by torch."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from engines.artifact import load_onnx
from engines.events import N_FEATURES, N_OBJECTS
from engines.gpu.onnx_torch import OnnxModule
from engines.gpu.ring_engine import Lane, RingEngine, Slot, batch_buckets, bucket_of
from engines.gpu.torch_cuda import capture, is_page_locked, new_event, page_locked, urgent_stream
from engines.onnx_engine import OnnxEngine
from engines.types import FloatArray

__all__ = ["TorchEngine"]

_N_SLOTS = 3
_Encode: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class TorchEngine(RingEngine):
    """Implements `engines.engine.Engine` with torch, by a CUDA graph for each size of batch.

    Args:
        path: an ONNX file.
        device: cuda, one of several such as cuda:1, or cpu, which has no graphs.
        max_batch: largest number of events computed at once.
        compiled: whether torch compiles the graph's operators together, which takes a minute.

    Raises:
        ArtifactError: if the file is missing, damaged, or has an operator that torch lacks here.
        EngineError: if the GPU fails, or has not the memory.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cuda",
        max_batch: int = 4096,
        compiled: bool = False,
    ) -> None:
        """Move the encoder to the device and make the first thread's buffers and graphs."""
        with OnnxEngine(path) as checked:
            super().__init__(
                checked.dim, max_batch, checked.fingerprint, checked.facts, (RuntimeError,)
            )
        self._device, self._compiled = torch.device(device), compiled
        module = OnnxModule(load_onnx(path)).eval().to(self._device)
        self._encode: _Encode = torch.compile(module, dynamic=True) if compiled else module
        self._buckets = batch_buckets(1, max_batch)
        self.prepare()

    @property
    def runtime(self) -> str:
        """What computes, its version, where and how precisely."""
        on_cpu = self._device.type == "cpu"
        where = "the CPU" if on_cpu else torch.cuda.get_device_name(self._device)
        how = "compiled, " if self._compiled else ""
        return f"torch {torch.__version__} on {where}, {how}fp32"

    def input_buffer(self, n_events: int) -> FloatArray:
        """Return uninitialised memory for events, (n_events, 19, 3) float32, page-locked."""
        if self._device.type == "cpu":
            return super().input_buffer(n_events)
        return page_locked((n_events, N_OBJECTS, N_FEATURES)).numpy()

    def _make_lane(self) -> Lane:
        if self._device.type == "cpu":
            slots = [_CpuSlot(self._encode, self._buckets) for _ in range(_N_SLOTS)]
            return _TorchLane(slots, ())
        return _cuda_lane(self._encode, self._device, self._buckets, self.dim)

    def _release(self) -> None:
        del self._encode
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _TorchLane:
    """The ring of one thread, and the streams it runs on."""

    def __init__(self, slots: Sequence[Slot], streams: Sequence[torch.cuda.Stream]) -> None:
        self.slots, self._streams = list(slots), streams

    def close(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(RuntimeError):  # a failed GPU is reported where it failed
                stream.synchronize()
        self.slots.clear()


def _cuda_lane(
    encode: _Encode, device: torch.device, buckets: Sequence[int], dim: int
) -> _TorchLane:
    with torch.cuda.device(device):
        streams = [urgent_stream() for _ in range(3)]
        pool = torch.cuda.graph_pool_handle()
        slots = [_CudaSlot(encode, streams, buckets, dim, pool) for _ in range(_N_SLOTS)]
    return _TorchLane(slots, streams)


class _CpuSlot:
    """Pads and computes as a GPU's slot does, at once and without copies."""

    def __init__(self, encode: _Encode, buckets: Sequence[int]) -> None:
        self._encode, self._buckets = encode, buckets
        self._particles = torch.zeros((buckets[-1], N_OBJECTS, N_FEATURES))
        self._embeddings = torch.empty(0)

    def submit(self, particles: FloatArray) -> None:
        n = len(particles)
        self._particles[:n].numpy()[:] = particles
        self._embeddings = self._encode(self._particles[: bucket_of(n, self._buckets)])[:n]

    def finish(self, embeddings: FloatArray) -> None:
        embeddings[:] = self._embeddings.numpy()


class _CudaSlot:
    """Page-locked and GPU memory for one batch, and a CUDA graph for each bucket.

    What an earlier batch left behind pads the next: finite events, whose embeddings nobody reads.
    """

    def __init__(
        self,
        encode: _Encode,
        streams: Sequence[torch.cuda.Stream],
        buckets: Sequence[int],
        dim: int,
        pool: Any,  # noqa: ANN401 - torch's handle of a memory pool has no public type
    ) -> None:
        self._copy_in, self._compute, self._copy_out = streams
        self._buckets = buckets
        device, n = self._compute.device, buckets[-1]
        self._host_particles = page_locked((n, N_OBJECTS, N_FEATURES))
        self._host_embeddings = page_locked((n, dim))
        self._particles = torch.zeros((n, N_OBJECTS, N_FEATURES), device=device)
        self._embeddings = torch.zeros((n, dim), device=device)
        self._copied_in, self._computed, self._copied_out = (new_event() for _ in range(3))
        self._n = 0
        torch.cuda.synchronize(device)  # zeros were written on another stream

        def record(bucket: int) -> torch.cuda.CUDAGraph:
            return capture(
                lambda: self._embeddings[:bucket].copy_(encode(self._particles[:bucket])),
                self._compute,
                pool,
            )

        self._graphs = {bucket: record(bucket) for bucket in buckets}

    def submit(self, particles: FloatArray) -> None:
        self._n = n = len(particles)
        with torch.cuda.stream(self._copy_in):
            self._particles[:n].copy_(self._page_locked(particles), non_blocking=True)
            self._copied_in.record()
        with torch.cuda.stream(self._compute):
            self._compute.wait_event(self._copied_in)
            self._graphs[bucket_of(n, self._buckets)].replay()
            self._computed.record()
        with torch.cuda.stream(self._copy_out):
            self._copy_out.wait_event(self._computed)
            self._host_embeddings[:n].copy_(self._embeddings[:n], non_blocking=True)
            self._copied_out.record()

    def finish(self, embeddings: FloatArray) -> None:
        self._copied_out.synchronize()
        embeddings[:] = self._host_embeddings[: self._n].numpy()

    def _page_locked(self, particles: FloatArray) -> torch.Tensor:
        if is_page_locked(particles):
            return torch.from_numpy(particles)
        staged = self._host_particles[: len(particles)]
        staged.numpy()[:] = particles
        return staged
