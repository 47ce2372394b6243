"""Memory of this process, as Linux counts it."""

import contextlib
import os
from pathlib import Path

__all__ = ["forget_peak", "peak_bytes", "resident_bytes", "virtual_bytes"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def virtual_bytes() -> int:
    """Return the address space in use."""
    return _PAGE * int(Path("/proc/self/statm").read_text().split()[0])


def resident_bytes(process: int | str = "self") -> int:
    """Return the memory in use, of this process or of the one with a number."""
    return _PAGE * int(Path(f"/proc/{process}/statm").read_text().split()[1])


def peak_bytes() -> int:
    """Return the most memory in use since the start, or since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return 1024 * int(peak.split()[1])


def forget_peak() -> None:
    """Let `peak_bytes` begin again, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
