"""Cases that may crash, hang or eat all memory, each in a process that may.

A worker (`bench.fuzzing.worker`) takes cases in order and says before each which it is. When it
dies or is silent for too long, that case is what killed it; another goes on with the next.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import IO, Any

from engines.errors import WorkerError

__all__ = ["COMMAND", "VERDICTS", "CaseLimits", "Outcome", "run_cases"]

#: Opened, or refused in one sentence: right. Refused in another way, an exception that is not
#: ours, dead, silent: wrong.
VERDICTS = ("opened", "refused", "untidy", "exception", "crash", "hang")
#: Starts a worker; its words follow.
COMMAND = (sys.executable, "-m", "bench.fuzzing.worker")
_LAST_WORDS = 4000
_START_S = 120.0


@dataclass(frozen=True)
class CaseLimits:
    """What a case may take.

    Attributes:
        time_s: until it counts as hanging.
        memory_mib: address space beyond what the worker has before its first case.
    """

    time_s: float = 20.0
    memory_mib: int = 1024


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: its number.
        kind: what was done to the file.
        verdict: one of `VERDICTS`.
        said: the error's sentence, or what went wrong.
        seconds: how long it took.
        peak_mib: resident memory at its most, less that before.
    """

    case: int
    kind: str
    verdict: str
    said: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0


def run_cases(target: str, seed: int, n: int, limits: CaseLimits) -> Iterator[Outcome]:
    """Yield the outcome of cases 0 to n of a target, in order.

    Args:
        target: a name in `bench.fuzzing.artefacts.TARGETS`.
        seed: of everything that is drawn.
        n: how many cases.
        limits: what each may take.

    Raises:
        WorkerError: if a worker does not even start.
    """
    first = 0
    while first < n:
        for outcome in _one_worker(target, seed, range(first, n), limits):
            yield outcome
            first = outcome.case + 1


def _one_worker(target: str, seed: int, cases: range, limits: CaseLimits) -> Iterator[Outcome]:
    """Yield outcomes until the worker has done all cases, or one has ended it."""
    words = [target, seed, cases.start, cases.stop, limits.memory_mib]
    command = [*COMMAND, *map(str, words)]
    with (
        tempfile.TemporaryFile() as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err) as worker,  # noqa: S603 - ours
    ):
        try:
            yield from _outcomes(worker, err, cases, limits)
        finally:
            worker.kill()


def _outcomes(
    worker: "subprocess.Popen[bytes]", err: IO[bytes], cases: range, limits: CaseLimits
) -> Iterator[Outcome]:
    begun: dict[str, Any] | None = None
    lines, wait_s = _Lines(worker), _START_S
    for case in cases:
        while True:
            line = lines.next(wait_s)
            if line is None:
                if begun is None or begun["case"] != case:
                    msg = f"a worker must make case {case}; it did not: {_last_words(err)[-200:]}"
                    raise WorkerError(msg)
                verdict, said = _why(worker, err, silent=lines.silent)
                seconds = limits.time_s if lines.silent else 0.0
                yield Outcome(case, str(begun["kind"]), verdict, said, seconds)
                return
            if "verdict" in line:
                yield Outcome(**{field.name: line[field.name] for field in fields(Outcome)})
                break
            begun, wait_s = line, limits.time_s


class _Lines:
    """JSON lines of a worker, as they come."""

    def __init__(self, worker: "subprocess.Popen[bytes]") -> None:
        if worker.stdout is None:
            msg = "a worker must be started with a pipe as stdout; got none"
            raise WorkerError(msg)
        self._descriptor, self._buffer = worker.stdout.fileno(), b""
        self.silent = False

    def next(self, wait_s: float) -> dict[str, Any] | None:
        """Return the next; None if the worker has ended, or said nothing in time: then `silent`."""
        while b"\n" not in self._buffer:
            if not select.select([self._descriptor], [], [], wait_s)[0]:
                self.silent = True
                return None
            got = os.read(self._descriptor, 65_536)
            if not got:
                return None
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _why(worker: "subprocess.Popen[bytes]", err: IO[bytes], *, silent: bool) -> tuple[str, str]:
    if silent:
        return "hang", "silent for too long"
    code = worker.wait()
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return "crash", f"{name}: {_last_words(err)}"


def _last_words(err: IO[bytes]) -> str:
    err.seek(0)
    return err.read()[-_LAST_WORDS:].decode(errors="replace")
