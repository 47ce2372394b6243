"""Work split over CPU threads, with a result that does not depend on their number."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from engines.errors import ParameterError

__all__ = ["Threads", "check_device"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check_device(device: str) -> None:
    """Refuse a device that this machine lacks.

    Raises:
        ParameterError: if it is neither the CPU nor a CUDA device that is there.
    """
    kind, _, number = device.partition(":")
    found = torch.cuda.device_count() if kind == "cuda" else 0
    if device != "cpu" and not (
        found and (number or "0").isdecimal() and int(number or "0") < found
    ):
        msg = f"device must be cpu, or cuda with a driver and a GPU; got {device}; use --device cpu"
        raise ParameterError(msg)


class Threads:
    """Maps a function over fixed pieces of work.

    The pieces, not torch's operations, are spread over the threads: torch is set to one thread in
    this process. Whoever adds results up in the order of the pieces gets the same bits from any
    number of threads.

    Args:
        n: how many threads.
    """

    def __init__(self, n: int = 1) -> None:
        """Start no thread yet."""
        self.n = n
        _single_thread()
        # The caller works too, so that waking threads costs little where there is little to do.
        self._pool = ThreadPoolExecutor(n - 1, "nplm", _single_thread) if n > 1 else None

    def map(
        self, work: Callable[[_Item], _Result], items: Sequence[_Item], *, worthwhile: bool = True
    ) -> list[_Result]:
        """Return the results in the items' order; in this thread if not `worthwhile`."""
        if self._pool is None or not worthwhile or len(items) < 2:
            return [work(item) for item in items]
        results: dict[int, _Result] = {}
        waiting = iter(range(len(items)))

        def drain() -> None:
            for index in waiting:
                results[index] = work(items[index])

        helpers = [self._pool.submit(drain) for _ in range(min(self.n, len(items)) - 1)]
        try:
            drain()
        finally:
            # One that has not begun is busy elsewhere, and all the work is taken.
            wait([helper for helper in helpers if not helper.cancel()])
        for helper in helpers:
            if not helper.cancelled():
                helper.result()
        return [results[index] for index in range(len(items))]


def _single_thread() -> None:
    torch.set_num_threads(1)
