"""Saves a measurement with the machine it was taken on."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from engines.artifact import utc_now, versions
from engines.errors import ArtifactError
from engines.events import EventRange

__all__ = ["machine_stamp", "range_text", "save_record"]


def save_record(path: Path, benchmark: str, settings: dict[str, Any], **parts: object) -> None:
    """Write a measurement as JSON.

    Args:
        path: the file.
        benchmark: its name.
        settings: what was measured.
        parts: what came of it, by name.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    record = {"benchmark": benchmark, "machine": machine_stamp(), "settings": settings, **parts}
    try:
        path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    except OSError as exc:
        msg = f"cannot write {path} ({exc}); choose a folder that is writable"
        raise ArtifactError(msg) from exc


def range_text(source: EventRange) -> str:
    """Return a range as it is typed, without the folder."""
    return f"{source.path.name}@{source.start}:{source.stop or ''}"


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
