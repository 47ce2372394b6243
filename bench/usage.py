"""What a process uses, as Linux counts it: memory, file descriptors, threads, CPU."""

import os
from dataclasses import dataclass
from pathlib import Path

from engines.errors import WorkerError

__all__ = ["Usage", "forget_peak", "usage"]

_KIB = 1024
_TICKS_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """A process at one instant.

    Attributes:
        resident_bytes, peak_bytes: memory now, and the most since the start or `forget_peak`.
        descriptors: open files, sockets among them.
        threads: how many.
        cpu_s: seconds of CPU since the start.
    """

    resident_bytes: int
    peak_bytes: int
    descriptors: int
    threads: int
    cpu_s: float


def usage(pid: int) -> Usage:
    """Return what a process uses now.

    Raises:
        WorkerError: if there is no such process.

    >>> usage(os.getpid()).threads >= 1
    True
    """
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        # The name, in brackets, may hold anything; the state follows it.
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
    except OSError as exc:
        msg = f"process {pid} must be running; its state cannot be read ({exc}); see why it ended"
        raise WorkerError(msg) from exc
    said = dict(line.split(":", 1) for line in lines)
    return Usage(
        resident_bytes=_KIB * int(said["VmRSS"].split()[0]),
        peak_bytes=_KIB * int(said["VmHWM"].split()[0]),
        descriptors=descriptors,
        threads=int(said["Threads"]),
        cpu_s=(int(times[11]) + int(times[12])) / _TICKS_HZ,
    )


def forget_peak(pid: int) -> None:
    """Let a process's peak of memory begin again.

    Raises:
        WorkerError: if that is not allowed.
    """
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError as exc:
        msg = f"the peak memory of process {pid} must be ours to reset; it is not ({exc})"
        raise WorkerError(msg) from exc
