"""Which machine a measurement was taken on."""

import os
import platform
from pathlib import Path
from typing import Any

from engines.artifact import utc_now, versions

__all__ = ["machine_stamp"]


def machine_stamp() -> dict[str, Any]:
    """Return processor, cores, memory, system, versions and time, JSON-able."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions("torch", "numpy", "numba", "onnxruntime"),
        "when": utc_now(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
