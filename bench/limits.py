"""What the machine allows: the peak of matrix products, and the bandwidth of its memory."""

from typing import Any

import torch

from bench.bandwidth import LargeArray, seconds_of
from bench.spread import spread
from engines.plans.precision import PRECISIONS

__all__ = ["Limits"]

#: Rows and columns of the matrices.
_SIZE = 2048


class Limits:
    """The two limits, measured again and again.

    Args:
        device: whose: cpu or cuda.
        threads: CPU threads.

    Attributes:
        flops: floating-point operations a second, by precision, one for each time.
        bandwidth: bytes read a second, one for each time.
    """

    def __init__(self, device: str, threads: int) -> None:
        """Measure once without counting: the first time is slow."""
        self._device, self._threads = device, threads
        self._array = LargeArray(device, threads)
        names = ("fp32",) if device == "cpu" else PRECISIONS
        self.flops: dict[str, list[float]] = {name: [] for name in names}
        self.bandwidth: list[float] = []
        self.measure()
        for values in (*self.flops.values(), self.bandwidth):
            values.clear()

    def measure(self) -> None:
        """Measure both once more."""
        self.bandwidth.append(self._array.bandwidth())
        for name, values in self.flops.items():
            values.append(self._peak_flops(name))

    def record(self) -> dict[str, Any]:
        """Return both, JSON-able."""
        return {
            "peak_gflops": {
                name: spread([one / 1e9 for one in values]) for name, values in self.flops.items()
            },
            "bandwidth_gb_per_s": spread([one / 1e9 for one in self.bandwidth]),
        }

    def _peak_flops(self, precision: str) -> float:
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        matrix = torch.ones((_SIZE, _SIZE), dtype=dtype, device=self._device)
        cublas = torch.backends.cuda.matmul
        before, n_before = cublas.allow_tf32, torch.get_num_threads()
        cublas.allow_tf32 = precision == "tf32"
        torch.set_num_threads(self._threads)
        try:
            (seconds,) = seconds_of(lambda: torch.mm(matrix, matrix), 1, self._device)
        finally:
            cublas.allow_tf32 = before
            torch.set_num_threads(n_before)
        return 2 * _SIZE**3 / seconds
