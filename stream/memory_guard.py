"""Keeps a consumer alive whose peers would fill its memory or use up its file descriptors.

libzmq queues so many messages a peer (the high-water mark), but sets no limit to the number of
frames of one message: a peer that sends frame after frame, each announcing another, is given all
memory, as are hundreds that queue large messages. What the queues hold cannot be asked; the
process's resident memory can. When it passes the limit the receiving socket is closed, which frees
whatever its peers had queued, and opened again once that is free; producers connect again by
themselves.
"""

import contextlib
import ctypes
import logging
import math
import os
import resource
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Protocol

from engines.errors import EndpointError
from stream.endpoints import Socket, bound_endpoint
from stream.header import Frame

__all__ = [
    "GuardedReceiver",
    "MemoryGuard",
    "cgroup_limit_bytes",
    "default_limit_bytes",
    "read_rss_bytes",
]

_LOG = logging.getLogger(__name__)
_MIB, _GIB = 2**20, 2**30
_CHECK_EVERY_S = 0.05
_DESCRIPTORS_EVERY_S = 1.0
_MOST_DESCRIPTORS = 0.8
#: Freed by libzmq's own threads, which take a moment.
_FREED_WITHIN_S = 1.0
_OPEN_WITHIN_S = 5.0
#: Memory that a reset does not free is the consumer's own: the next reset comes so much later.
_STEP_BYTES = 256 * _MIB
#: Of what the cgroup may have: beyond that the kernel would slow or end the process.
_CGROUP_SHARE = 0.9
_PAGE_BYTES = resource.getpagesize()


def read_rss_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    return 0


def cgroup_limit_bytes(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float:
    """Return what the cgroup (v2) of this process may have; infinity where it has no limit.

    Above `memory.high` the kernel slows the process down, above `memory.max` it ends it.
    """
    limits, name = [math.inf], ""
    with contextlib.suppress(OSError):
        name = own.read_text().rpartition("0::/")[2].strip()
    # A container may see its own as the root.
    for folder, file in product((root, root / name), ("memory.max", "memory.high")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((folder / file).read_text()))
    return min(limits)


def default_limit_bytes(
    rss_bytes: int,
    held_bytes: float,
    cgroup_bytes: Callable[[], float] = cgroup_limit_bytes,
) -> int:
    """Return the limit where the operator gives none: what may rightly be held, and 1 GiB.

    Args:
        rss_bytes: resident memory with engine and reference loaded.
        held_bytes: what windows may hold: the open one, those that wait, the one that is tested.
        cgroup_bytes: says what the process may have; the limit is 90 % of that at most.
    """
    return round(min(rss_bytes + held_bytes + _GIB, _CGROUP_SHARE * cgroup_bytes()))


class MemoryGuard:
    """Owns the receiving socket, and opens it again when its peers have filled the memory.

    Args:
        open_socket: opens it at an endpoint.
        endpoint: where.
        limit_bytes: resident memory of the process at which its socket is reset.
        look_too: called as often as the guard looks; may raise.
        read_rss: returns resident memory.
        count_descriptors: returns open file descriptors and how many may be.
        clock: seconds.

    Attributes:
        n_resets: times the socket was reset; what was queued is lost each time.
        limit_bytes: the limit.

    Raises:
        EndpointError: if the endpoint is malformed, taken or forbidden.
    """

    def __init__(
        self,
        open_socket: Callable[[str], Socket],
        endpoint: str,
        limit_bytes: int,
        *,
        look_too: Callable[[], None] = lambda: None,
        read_rss: Callable[[], int] = read_rss_bytes,
        count_descriptors: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the socket."""
        self._open_socket, self._endpoint, self.limit_bytes = open_socket, endpoint, limit_bytes
        self._look_too, self._read_rss, self._clock = look_too, read_rss, clock
        self._count_descriptors = count_descriptors or _count_descriptors
        self._threshold = limit_bytes
        self._next_s = self._next_descriptors_s = clock()
        self.n_resets = 0
        self.socket = open_socket(endpoint)
        self._endpoint = bound_endpoint(self.socket) or endpoint

    def check(self, socket: Socket) -> Socket:
        """Return the socket to receive from: the same, or a new one if that had to be closed.

        To be called by the thread that receives, ten times a second or oftener; it looks twenty
        times a second at most.

        Raises:
            EndpointError: if the endpoint cannot be opened again.
        """
        now = self._clock()
        if now < self._next_s or socket is not self.socket:
            return self.socket
        self._next_s = now + _CHECK_EVERY_S
        self._look_too()
        rss = self._read_rss()
        if rss > self._threshold:
            self._close(f"resident memory is {rss / _GIB:.2f} GiB, over its limit")
            self._settle()  # before peers can fill it again, which would be taken for our own
            self._open_again()
        elif now >= self._next_descriptors_s:
            self._next_descriptors_s = now + _DESCRIPTORS_EVERY_S
            # Memory that had to be believed the consumer's own may have gone since.
            self._threshold = min(self._threshold, self._above(rss))
            n_open, most = self._count_descriptors()
            if n_open > _MOST_DESCRIPTORS * most:
                self._close(f"{n_open} of {most} file descriptors are in use")
                self._open_again()
        return self.socket

    def close(self) -> None:
        """Close the socket; what it has still to send goes as long as its linger time allows."""
        self.socket.close()

    def _above(self, rss: int) -> int:
        """Return where the next reset is due if so much memory is the consumer's own."""
        return self.limit_bytes if rss <= self.limit_bytes else rss + _STEP_BYTES

    def _close(self, why: str) -> None:
        self.n_resets += 1
        _LOG.warning(
            "%s: the receiving socket is opened again, what its peers had queued is lost", why
        )
        self.socket.close(linger=0)

    def _open_again(self) -> None:
        until = time.monotonic() + _OPEN_WITHIN_S
        while True:
            try:
                self.socket = self._open_socket(self._endpoint)
            except EndpointError:
                # The old one closes on libzmq's own time.
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _settle(self) -> None:
        """Wait until the memory is free; what stays is believed to be the consumer's own."""
        until = time.monotonic() + _FREED_WITHIN_S
        while (rss := _trimmed(self._read_rss)) > self._threshold and time.monotonic() < until:
            time.sleep(0.01)
        self._threshold = self._above(rss)
        if rss > self.limit_bytes:
            text = "%.2f GiB are still resident: the consumer's own; give it more by --max-memory"
            _LOG.warning(text, rss / _GIB)


class _Receives(Protocol):
    socket: Socket | None

    def receive(self, wait_ms: int) -> list[Frame] | None: ...


class GuardedReceiver:
    """A receiver whose socket a guard looks after.

    Args:
        receiver: takes messages from its socket.
        guard: owns the socket.
    """

    def __init__(self, receiver: _Receives, guard: MemoryGuard) -> None:
        """Give the receiver the guard's socket."""
        self._receiver, self._guard = receiver, guard
        receiver.socket = guard.socket

    def receive(self, wait_ms: int) -> list[Frame] | None:
        """Return the frames of the next message; None if none comes.

        Raises:
            EndpointError: if a socket that was closed cannot be opened again.
        """
        self.look()
        return self._receiver.receive(wait_ms)

    def look(self) -> None:
        """Let the guard look: also where the thread that receives waits for something else.

        Raises:
            EndpointError: if a socket that was closed cannot be opened again.
        """
        self._receiver.socket = self._guard.check(self._guard.socket)


def _trimmed(read_rss: Callable[[], int]) -> int:
    """Return the resident memory, after glibc has given back what it keeps of freed memory."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return read_rss()


def _count_descriptors() -> tuple[int, int]:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return sum(1 for _ in os.scandir("/proc/self/fd")), most
    except OSError:
        return 0, most
