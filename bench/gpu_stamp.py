"""Says which GPU a measurement was taken on."""

import importlib.metadata
import subprocess
from typing import Any

import torch

__all__ = ["gpu_stamp"]

_PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "pycuda", "triton")


def gpu_stamp(device: str) -> dict[str, Any] | None:
    """Return name, memory, driver and versions, JSON-able; None for the CPU."""
    if torch.device(device).type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "compute_capability": f"{found.major}.{found.minor}",
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _driver() -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            words, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
