"""Tests on a GPU run behind the engines: on streams of the least priority, one for each thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

__all__ = ["BackgroundStream", "in_background"]

_LEAST_PRIORITY = 0
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class BackgroundStream:
    """Where a reference's work runs on its device.

    Args:
        device: of the reference's features; on the CPU nothing changes.
    """

    def __init__(self, device: torch.device) -> None:
        """Take no stream yet."""
        self._device = device
        self._own = threading.local()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Run what the block starts on this thread's stream, and wait for it at the end.

        What comes out may so be used by any thread, on any stream.
        """
        if self._device.type != "cuda":
            yield
            return
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device, priority=_LEAST_PRIORITY)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._own.stream):
            yield
        self._own.stream.synchronize()


class _HasStream(Protocol):
    @property
    def stream(self) -> BackgroundStream: ...


_Owner = TypeVar("_Owner", bound=_HasStream)


def in_background(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
    """Return the method, run on its object's background stream."""

    @wraps(method)
    def run(owner: _Owner, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with owner.stream.work():
            return method(owner, *args, **kwargs)

    return run
