"""Network namespaces on one machine, as if they were machines on one switch."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from bench.processes import Process, start
from engines.errors import EngineUnavailableError, ParameterError

__all__ = ["Machine", "Traffic", "network"]

_PORT = 5555
_LINK, _BRIDGE = "eth0", "switch"
_DEVICE_COLUMNS = {"received": 0, "sent": 8}


@dataclass(frozen=True)
class Traffic:
    """What a machine's interface has carried, Ethernet, IP and TCP headers included.

    Attributes:
        received_bytes, sent_bytes: so far.
    """

    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Machine:
    """A network namespace with one interface.

    Attributes:
        namespace: its name.
        address: its own.
    """

    namespace: str
    address: str

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"tcp://{self.address}:{_PORT}"

    def start(self, *words: object) -> AbstractContextManager[Process]:
        """Run a module of ours in it, as `bench.processes.start` does here."""
        return start(*words, within=self._inside())

    def traffic(self) -> Traffic:
        """Return what its interface has carried so far."""
        said = _ip(*self._inside()[1:], "cat", "/proc/net/dev")
        line = next(line for line in said.splitlines() if line.strip().startswith(f"{_LINK}:"))
        numbers = line.partition(":")[2].split()
        received, sent = (int(numbers[column]) for column in _DEVICE_COLUMNS.values())
        return Traffic(received, sent)

    def _inside(self) -> list[str]:
        return [_program(), "netns", "exec", self.namespace]


@contextmanager
def network(names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Make machines of these names on one switch; take everything away at any end.

    All of it lies in namespaces of its own: the machine's network is not touched. Segments are cut
    to the size of Ethernet's before they are counted, as a real interface would.

    Raises:
        EngineUnavailableError: if this system lets nobody make network namespaces.
        ParameterError: if the user may not.
    """
    if os.geteuid() != 0:
        msg = "bench-embedders must be run as root, who alone may make network namespaces; use sudo"
        raise ParameterError(msg)
    _program()
    prefix = f"nplm-{os.getpid()}"
    switch = f"{prefix}-switch"
    with ExitStack() as stack:
        _add_namespace(stack, switch)
        _ip("-n", switch, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", switch, "link", "set", _BRIDGE, "up")
        machines = {}
        for place, name in enumerate(names):
            machine = Machine(f"{prefix}-{name}", f"10.77.0.{place + 1}")
            _add_namespace(stack, machine.namespace)
            _plug(machine, switch, f"port{place}")
            machines[name] = machine
        yield machines


def _add_namespace(stack: ExitStack, name: str) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    _ip("-n", name, "link", "set", "lo", "up")


def _plug(machine: Machine, switch: str, port: str) -> None:
    name = machine.namespace
    one_end = ("link", "add", _LINK, "netns", name, "gso_max_segs", "1", "type", "veth")
    _ip(*one_end, "peer", "name", port, "netns", switch)
    _ip("-n", switch, "link", "set", port, "master", _BRIDGE, "up")
    _ip("-n", name, "addr", "add", f"{machine.address}/24", "dev", _LINK)
    _ip("-n", name, "link", "set", _LINK, "up")


def _ip(*words: str) -> str:
    done = subprocess.run([_program(), *words], capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"`ip {' '.join(words)}` must work here; it said: {said}"
        raise EngineUnavailableError(msg)
    return done.stdout


def _program() -> str:
    path = shutil.which("ip")
    if path is None:
        msg = "the program `ip` must be installed; it is not; install the package iproute2"
        raise EngineUnavailableError(msg)
    return path
