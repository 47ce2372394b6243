"""What torch gives beside tensors on a GPU: urgent streams, CUDA graphs, page-locked memory."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from engines.types import FloatArray

__all__ = [
    "capture",
    "is_page_locked",
    "new_event",
    "page_locked",
    "replay",
    "shared_stream",
    "urgent_stream",
]

#: torch takes the greatest there is; windows are tested with the least.
_GREATEST_PRIORITY = -100
#: torch captures one CUDA graph at a time in a process.
_CAPTURING = threading.Lock()


def urgent_stream() -> torch.cuda.Stream:
    """Return a stream of the current GPU that goes before those where windows are tested."""
    return torch.cuda.Stream(priority=_GREATEST_PRIORITY)  # type: ignore[no-untyped-call]


def shared_stream(handle: int) -> torch.cuda.Stream:
    """Return torch's view of another package's stream, which it does not own."""
    return torch.cuda.ExternalStream(handle)  # type: ignore[no-untyped-call]


def new_event() -> torch.cuda.Event:
    """Return an event, which measures no time."""
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def capture(
    work: Callable[[], object],
    stream: torch.cuda.Stream,
    pool: Any = None,  # noqa: ANN401 - torch's handle of a memory pool has no public type
) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of the work, done twice before: what it prepares is not captured.

    Args:
        work: starts work on the current stream and waits for none of it.
        stream: where it runs.
        pool: memory that graphs share which never run at once.

    Raises:
        RuntimeError: if the work fails or cannot be captured.
    """
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    graph = torch.cuda.CUDAGraph()
    # Other threads test windows meanwhile, which takes memory: that must not fail the capture.
    with _CAPTURING, torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
        work()
    return graph


def replay(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> None:
    """Start a graph on a stream."""
    with torch.cuda.stream(stream):
        graph.replay()


def page_locked(shape: tuple[int, ...]) -> torch.Tensor:
    """Return uninitialised float32 memory that a GPU copies from and to by itself."""
    return torch.empty(shape, pin_memory=True)


def is_page_locked(array: FloatArray) -> bool:
    """Return whether the array lies in page-locked memory; one that is read-only does not count."""
    return array.flags.writeable and torch.from_numpy(array).is_pinned()
