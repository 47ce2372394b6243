"""TensorRT and torch's CUDA graphs on the GPU of `doubles_cuda`, and a plan that it runs."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engines.artifact import EngineFacts
from engines.plans.plan_file import PlanFacts, write_plan
from engines.plans.tensorrt_api import TensorRT
from tests.doubles_cuda import SERIALISED, Event, FakeGpu, Queue, Stream, make_driver

__all__ = ["CAPABILITY", "install", "make_plan", "make_tensorrt"]

CAPABILITY = "8.9"
_VERSION = "10.13.0.35"


def make_plan(path: Path, **changes: Any) -> PlanFacts:  # noqa: ANN401
    """Write a plan of 3 embedding coordinates."""
    facts: dict[str, Any] = {
        "fingerprint": "ab" * 32,
        "dim": 3,
        "precision": "fp16",
        "flavour": "tensorrt",
        "version": _VERSION,
        "compute_capabilities": (CAPABILITY,),
        "min_batch": 1,
        "opt_batch": 64,
        "max_batch": 64,
        "onnx": "d4.onnx",
        "engine": EngineFacts(arch="mlp", dim=3),
    }
    return write_plan(path, PlanFacts(**facts | changes), SERIALISED)


def make_tensorrt(gpu: FakeGpu, flavour: str = "tensorrt") -> TensorRT:
    """Return a TensorRT that loads only what `make_plan` wrote."""
    module = SimpleNamespace(
        Logger=_Logger,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        Runtime=lambda _: _Runtime(gpu),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )
    return TensorRT(module, flavour, _VERSION)


class _Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        self.severity = severity


class _Object:
    """Something of TensorRT's, which must be released with the context current."""

    kind = ""

    def __init__(self, gpu: FakeGpu) -> None:
        gpu.step(self.kind)
        self.gpu = gpu
        gpu.live[self.kind] += 1

    def __del__(self) -> None:
        if not hasattr(self, "gpu"):  # its making failed
            return
        self.gpu.require(f"{self.kind} released elsewhere", holds=self.gpu.is_current())
        self.gpu.say(f"{self.kind} released")
        self.gpu.live[self.kind] -= 1


class _Runtime(_Object):
    kind = "runtime"

    def deserialize_cuda_engine(self, serialised: bytes) -> "_Engine | None":
        return _Engine(self.gpu) if serialised == self.gpu.serialised else None


class _Engine(_Object):
    kind = "engine"
    num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ("embeddings", "particles")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "particles" else "out"

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace()

    def create_execution_context(self, config: SimpleNamespace | None = None) -> "_Context":
        if config is not None:
            self.gpu.strategies.append(vars(config))
        return _Context(self.gpu)


class _Context(_Object):
    kind = "execution context"

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__(gpu)
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.unfinished: list[int] = []
        gpu.made_contexts += 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == "particles"

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self.gpu.step("execute")
        gpu, (n, *_), addresses = self.gpu, self.shape, dict(self.addresses)
        thread = threading.get_ident()

        def enqueue() -> None:
            others = [other for other in self.unfinished if other != thread]
            gpu.require("a context used by two threads at once", holds=not others)
            self.unfinished.append(thread)
            gpu.streams[handle].append((compute, None))

        def compute() -> None:
            self.unfinished.pop()
            x = gpu.find(addresses["particles"])[: n * 57].reshape(n, 57)
            y = (x @ gpu.weights).astype(np.float32)
            gpu.find(addresses["embeddings"])[: y.size] = y.ravel()

        if gpu.capturing is not None:
            gpu.captured[addresses["particles"], n] += 1
            gpu.capturing.append(enqueue)
        else:
            enqueue()
        return True


def _capture(gpu: FakeGpu) -> Callable[..., list[Any]]:
    def capture(work: Callable[[], object], stream: Stream) -> list[Any]:
        gpu.step("capture")
        work()
        graph: list[Any] = []
        gpu.capturing = graph
        try:
            work()
        finally:
            gpu.capturing = None
        return graph

    return capture


def _replay(gpu: FakeGpu) -> Callable[..., None]:
    def replay(graph: list[Any], stream: Stream) -> None:
        gpu.step("replay")
        gpu.replays += 1
        for enqueue in graph:
            enqueue()

    return replay


def install(
    monkeypatch: pytest.MonkeyPatch,
    gpu: FakeGpu,
    *,
    flavour: str = "tensorrt",
    capability: str | None = CAPABILITY,
) -> None:
    """Put the doubles where the engine finds PyCUDA, TensorRT and torch's CUDA."""
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pycuda.driver", make_driver(gpu))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    engine = "engines.tensorrt_engine."
    monkeypatch.setattr(engine + "gpu_capability", lambda: capability)
    monkeypatch.setattr(engine + "load_tensorrt", lambda _: make_tensorrt(gpu, flavour))
    monkeypatch.setattr(engine + "page_locked", lambda shape: _pinned(gpu, shape))
    lane = "engines.gpu.tensorrt_lane."
    monkeypatch.setattr(lane + "capture", _capture(gpu))
    monkeypatch.setattr(lane + "replay", _replay(gpu))
    monkeypatch.setattr(lane + "new_event", lambda: Event(gpu))
    monkeypatch.setattr(lane + "urgent_stream", lambda: Stream(gpu, "torch stream"))
    monkeypatch.setattr(lane + "shared_stream", lambda handle: Queue(gpu, gpu.streams[handle]))
    monkeypatch.setattr(lane + "is_page_locked", gpu.is_page_locked)


def _pinned(gpu: FakeGpu, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(gpu.lock_pages(shape)))
