"""Times of functions, and what the memory gives: the rate at which a large array is read."""

import time
from collections.abc import Callable

import torch

from engines.nplm.threads import Threads

__all__ = ["LargeArray", "seconds_of", "synchronise"]


def seconds_of(function: Callable[[], object], repeat: int, device: str) -> list[float]:
    """Return the wall-clock seconds of each of several runs, the device idle before and after."""
    seconds = []
    for _ in range(repeat):
        synchronise(device)
        started = time.perf_counter()
        function()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return seconds


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told; a CPU has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class LargeArray:
    """An array many times the caches' size, read by all threads to see what the memory gives.

    Args:
        device: whose memory.
        threads: CPU threads that share the array; a GPU reads it whole.
        n_bytes: its size.
    """

    def __init__(self, device: str, threads: int, n_bytes: int = 512 * 2**20) -> None:
        """Fill the array."""
        self._array = torch.ones(n_bytes // 4, dtype=torch.float32, device=device)
        # Pieces much smaller than the array keep the threads busy to the end.
        self._pieces = self._array.chunk(64) if device == "cpu" else (self._array,)
        self._workers, self._device = Threads(threads), device

    def bandwidth(self) -> float:
        """Read the array once; return bytes a second."""
        (seconds,) = seconds_of(lambda: self._workers.map(torch.sum, self._pieces), 1, self._device)
        return self._array.nbytes / seconds
