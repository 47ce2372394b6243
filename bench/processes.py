"""Modules of ours as processes beside this one."""

import contextlib
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from engines.errors import WorkerError

__all__ = ["Process", "free_endpoint", "start"]

_POLL_S = 0.05
_PORTS = range(10_000, 32_000)


@contextmanager
def start(*words: object, within: Sequence[str] = ()) -> Iterator["Process"]:
    """Run a module, given by its name and options; end it with the context.

    Args:
        words: its name and options.
        within: a command that runs the words that follow it, as `ip netns exec NAME` does.
    """
    command = [*within, sys.executable, "-m", *map(str, words)]
    # Into files, which never fill up as pipes do.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)  # noqa: S603 - our own command
        try:
            yield Process(str(words[0]), process, out, err)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Process:
    """A module that runs.

    Attributes:
        name: the module's.
        process: it.
        out, err: files that it writes to.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    out: IO[str]
    err: IO[str]

    def finish(self, timeout_s: float, *, needs: "Process | None" = None) -> str:
        """Wait for the end; return what went to stdout.

        Args:
            timeout_s: seconds to wait.
            needs: another that must not fail meanwhile.

        Raises:
            WorkerError: if either fails, or this one takes too long.
        """
        until_s = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if time.monotonic() > until_s:
                msg = f"{self.name} must end within {timeout_s:.0f} s; it still runs; send less"
                raise WorkerError(msg)
            if needs is not None:
                needs.check()
            time.sleep(_POLL_S)
        self.check()
        self.out.seek(0)
        return self.out.read()

    def check(self) -> None:
        """Do nothing if the process runs or has ended well.

        Raises:
            WorkerError: with its last words, if it has failed.
        """
        if code := self.process.poll():
            self.err.seek(0)
            last = (self.err.read().strip().splitlines() or ["it said nothing"])[-1]
            msg = f"{self.name} must end well; got exit code {code}: {last}"
            raise WorkerError(msg)


def free_endpoint() -> str:
    """Return a TCP endpoint of this machine at which nobody listens.

    Below the ports that the kernel gives to those who connect: one of those who wait for a listener
    that was killed could be given the listener's own port, and would keep it.
    """
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"tcp://127.0.0.1:{port}"
