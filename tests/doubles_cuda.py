"""A GPU that computes only what was waited for, with the PyCUDA and TensorRT that work on it.

Work on a stream runs when someone waits for it, and then only what the streams' events demand: a
wait that is missing gives a wrong result. Rules that a real GPU would punish are checked as they
are broken: `violations` must stay empty.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from engines.types import FloatArray

__all__ = ["SERIALISED", "Event", "FakeGpu", "Queue", "Stream", "make_driver"]

#: What the plans of the tests hold.
SERIALISED = b"ftrt a compiled engine"
_Work: TypeAlias = Callable[[], object]
_Queue: TypeAlias = deque[tuple[_Work, dict[str, Any] | None]]


class FakeGpu:
    """The device, and whatever is alive on it.

    Args:
        weights: (57, d) float32 of the linear map that every plan computes.
    """

    def __init__(self, weights: FloatArray) -> None:
        self.weights = weights
        self.lock = threading.RLock()
        self.violations: list[str] = []
        self.events: list[str] = []
        self.live: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}
        self.page_locked: list[Any] = []
        self.streams: dict[int, _Queue] = {}
        self.made_contexts = 0
        self.strategies: list[dict[str, str]] = []
        self.serialised = SERIALISED
        self.captured: Counter[tuple[int, int]] = Counter()
        self.replays = 0
        self.fail_on: dict[str, int] = {}
        self.capturing: list[_Work] | None = None
        self._stack = threading.local()
        self._next = 1 << 20

    def say(self, text: str) -> None:
        self.events.append(text)

    def require(self, text: str, *, holds: bool) -> None:
        if not holds:
            self.violations.append(text)

    def step(self, name: str) -> None:
        """Count one call down, and fail where a test asked for it."""
        self.require(f"{name} without the context current", holds=self.is_current())
        if name in self.fail_on:
            self.fail_on[name] -= 1
            if self.fail_on[name] == 0:
                del self.fail_on[name]
                msg = f"{name} failed\nand more"
                raise RuntimeError(msg)

    def is_current(self) -> bool:
        return bool(getattr(self._stack, "depth", 0))

    def push(self) -> None:
        self._stack.depth = getattr(self._stack, "depth", 0) + 1

    def pop(self) -> None:
        self.require("pop without push", holds=self.is_current())
        self._stack.depth -= 1

    def address(self, n_bytes: int) -> int:
        self._next += (n_bytes + 255) // 256 * 256
        return self._next

    def find(self, address: int) -> FloatArray:
        """Return the device memory at an address."""
        if int(address) not in self.memory:
            self.require("use of released GPU memory", holds=False)
            return np.full(1 << 20, np.nan, dtype=np.float32)
        array: FloatArray = self.memory[int(address)]
        return array

    def is_page_locked(self, array: FloatArray) -> bool:
        return any(np.shares_memory(array, np.asarray(memory)) for memory in self.page_locked)

    def lock_pages(self, shape: tuple[int, ...]) -> "_HostMemory":
        memory = _HostMemory(self, shape)
        self.page_locked.append(memory)
        return memory


class Queue:
    """Work in order, some of it waiting for what other queues recorded."""

    def __init__(self, gpu: FakeGpu, queue: _Queue | None = None) -> None:
        self.gpu = gpu
        self.queue: _Queue = deque() if queue is None else queue

    def wait_event(self, event: "Event") -> None:
        record = event.record_of
        self.queue.append((lambda: _run_until(record), None))

    def synchronize(self) -> None:
        with self.gpu.lock:
            while self.queue:
                _run_one(self.queue)


class Stream(Queue):
    """A stream of PyCUDA's, or of torch's, which owns its own."""

    def __init__(self, gpu: FakeGpu, kind: str, flags: int = 0) -> None:
        gpu.step("Stream")
        super().__init__(gpu)
        self.kind, self.flags = kind, flags
        self.handle = self.cuda_stream = len(gpu.streams) + 1
        gpu.streams[self.handle] = self.queue
        gpu.live[kind] += 1

    def __del__(self) -> None:
        if not hasattr(self, "gpu"):  # its making failed
            return
        self.gpu.require(f"a {self.kind} released with work on it", holds=not self.queue)
        if self.kind == "stream":
            self.gpu.require("a stream released elsewhere", holds=self.gpu.is_current())
            self.gpu.say("stream released")
        self.gpu.live[self.kind] -= 1


class Event:
    """Marks a place in a queue."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.record_of: dict[str, Any] = {"done": True}

    def record(self, stream: Any) -> None:  # noqa: ANN401
        self.record_of = {"done": False, "queue": stream.queue}
        stream.queue.append((lambda: None, self.record_of))

    def synchronize(self) -> None:
        with self.gpu.lock:
            _run_until(self.record_of)


def _run_until(record: dict[str, Any]) -> None:
    while not record["done"]:
        _run_one(record["queue"])


def _run_one(queue: "_Queue") -> None:
    work, record = queue.popleft()
    work()
    if record is not None:
        record["done"] = True


class _HostMemory:
    """Page-locked memory, the base of the array made from it."""

    def __init__(self, gpu: FakeGpu, shape: tuple[int, ...]) -> None:
        self.gpu, self.array = gpu, np.full(shape, np.nan, dtype=np.float32)
        self.__array_interface__ = self.array.__array_interface__

    def free(self) -> None:
        self.gpu.step("free")
        _require_idle(self.gpu)
        self.gpu.page_locked.remove(self)
        self.array[:] = np.nan
        self.gpu.say("host memory released")
        self.gpu.live["host memory"] -= 1


class _DeviceMemory:
    def __init__(self, gpu: FakeGpu, n_bytes: int) -> None:
        gpu.step("mem_alloc")
        self.gpu, self.at = gpu, gpu.address(n_bytes)
        gpu.memory[self.at] = np.full(n_bytes // 4, np.nan, dtype=np.float32)
        gpu.live["device memory"] += 1

    def __int__(self) -> int:
        return self.at

    def free(self) -> None:
        self.gpu.step("free")
        _require_idle(self.gpu)
        del self.gpu.memory[self.at]
        self.gpu.say("device memory released")
        self.gpu.live["device memory"] -= 1


def _require_idle(gpu: FakeGpu) -> None:
    busy = any(gpu.streams.values())
    gpu.require("memory released while work is in flight", holds=not busy)


class PrimaryContext:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        gpu.live["primary context"] += 1

    def push(self) -> None:
        self.gpu.push()

    def detach(self) -> None:
        self.gpu.require("detached while current", holds=not self.gpu.is_current())
        self.gpu.say("primary context released")
        self.gpu.live["primary context"] -= 1


def make_driver(gpu: FakeGpu) -> ModuleType:
    """Return a module like `pycuda.driver`."""

    def pagelocked_empty(shape: tuple[int, ...], dtype: type) -> FloatArray:
        gpu.step("pagelocked_empty")
        gpu.live["host memory"] += 1
        return np.asarray(gpu.lock_pages(shape))

    def memcpy_htod(device: Any, host: FloatArray) -> None:  # noqa: ANN401
        gpu.step("memcpy_htod")
        gpu.find(int(device))[: host.size] = host.ravel()

    def copy(host: FloatArray, device: int, stream: Stream, *, into_device: bool) -> None:
        gpu.step("memcpy_async")
        gpu.require("a copy of memory that is not page-locked", holds=gpu.is_page_locked(host))
        gpu.require("a copy on a stream that waits for the default", holds=stream.flags == 1)

        def work() -> None:
            there = gpu.find(device)[: host.size].reshape(host.shape)
            if into_device:
                there[:] = host
            else:
                host[:] = there

        stream.queue.append((work, None))

    def synchronize() -> None:
        gpu.step("synchronize")
        with gpu.lock:
            for queue in list(gpu.streams.values()):
                while queue:
                    _run_one(queue)

    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        Error=type("Error", (Exception,), {}),
        init=lambda: None,
        Device=lambda _: SimpleNamespace(retain_primary_context=lambda: PrimaryContext(gpu)),
        Context=SimpleNamespace(pop=gpu.pop, synchronize=synchronize),
        Stream=lambda flags=0: Stream(gpu, "stream", flags),
        mem_alloc=lambda n_bytes: _DeviceMemory(gpu, n_bytes),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod=memcpy_htod,
        memcpy_htod_async=lambda d, h, s: copy(h, d, s, into_device=True),
        memcpy_dtoh_async=lambda h, d, s: copy(h, d, s, into_device=False),
    )
    return driver
