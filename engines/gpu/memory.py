"""How full the GPU is."""

from collections.abc import Callable

import torch

__all__ = ["memory_reader"]


def memory_reader(device: str) -> Callable[[], tuple[int, int]] | None:
    """Return what reads the used and total bytes of a GPU; None where torch sees none.

    Args:
        device: as given to `load_reference`; with `cpu` the first GPU, if any, where a plan runs.
    """
    if not torch.cuda.is_available():
        return None
    which = torch.device(device if device.startswith("cuda") else "cuda:0")

    def read() -> tuple[int, int]:
        free, total = torch.cuda.mem_get_info(which)
        return total - free, total

    return read
