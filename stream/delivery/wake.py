"""Wakes a thread that polls ZeroMQ sockets, from any other thread."""

import contextlib
import socket

__all__ = ["Wake"]


class Wake:
    """Can be polled beside sockets; calling it wakes whoever polls, however often it is called."""

    def __init__(self) -> None:
        """Open both ends."""
        self._heard, self._said = socket.socketpair()
        self._heard.setblocking(False)
        self._said.setblocking(False)

    def __call__(self) -> None:
        """Wake."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: it is gone
            self._said.send(b"\0")

    def fileno(self) -> int:
        """Return what is polled."""
        return self._heard.fileno()

    def clear(self) -> None:
        """Forget the calls so far."""
        with contextlib.suppress(BlockingIOError):
            while self._heard.recv(4096):
                pass

    def close(self) -> None:
        """Close both ends."""
        self._heard.close()
        self._said.close()
