"""Where results go: a JSONL file, a ZeroMQ PUB socket, a table on the terminal."""

import contextlib
import fcntl
import json
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from engines.errors import ArtifactError
from stream.window_result import WindowResult

if TYPE_CHECKING:
    from stream.endpoints import Socket

__all__ = ["JsonLines", "Publisher", "Sink", "Table", "duration", "json_line"]

_LOG = logging.getLogger(__name__)
_MOST_UNWRITTEN = _LONGEST_LINE = 1 << 20
_UNITS = (("y", 365 * 86_400.0), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


def json_line(result: WindowResult) -> str:
    """Return a result as a line of JSON."""
    return json.dumps(result.record(), allow_nan=False) + "\n"


class Sink(Protocol):
    """Takes results, one at a time, always on the same thread."""

    def write(self, result: WindowResult) -> None:
        """Take one result."""

    def close(self) -> None:
        """Finish."""


class JsonLines:
    """Appends one JSON object a line; a line is on disk before the next window is tested.

    A line is there whole or not at all. What a full disk refuses is written before the next line,
    as long as it is less than a megabyte; what a kill has torn is cut off when the file is opened.

    Args:
        path: the file; made if missing, appended to otherwise; no other consumer's.

    Raises:
        ArtifactError: if it cannot be opened for writing, or another consumer has it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._path = path
        self._unwritten = b""
        try:
            self._file = path.open("ab", buffering=0)
            self._lock()
            self._mend()
        except OSError as exc:
            msg = f"cannot write results to {path} ({exc}); choose a folder that exists"
            raise ArtifactError(msg) from exc

    def plan(self, results: Sequence[WindowResult]) -> dict[str, object]:
        """Return what `complete` needs to write these results whatever happens meanwhile."""
        lines = self._unwritten.decode() + "".join(map(json_line, results))
        return {"path": str(self._path.resolve()), "start": self._size(), "lines": lines}

    @property
    def is_whole(self) -> bool:
        """Whether every line so far is on the disk."""
        return not self._unwritten

    def complete(self, plan: Mapping[str, Any]) -> None:
        """Make sure that planned lines stand in the file once and whole, after a kill.

        Raises:
            ArtifactError: if they cannot be written.
        """
        try:
            self._complete(plan)
        except OSError as exc:
            msg = f"cannot write results to {self._path} ({exc}); make room there and start again"
            raise ArtifactError(msg) from exc

    def _complete(self, plan: Mapping[str, Any]) -> None:
        if plan["path"] != str(self._path.resolve()) or not self._is_regular():
            return
        wanted = plan["lines"].encode()
        with self._path.open("rb") as file:
            file.seek(plan["start"])
            there = file.read(len(wanted))
        if wanted.startswith(there):
            self._append(wanted[len(there) :])
        else:
            _LOG.warning("%s was changed since the last run wrote to it", self._path)
            self._append(wanted)

    def write(self, result: WindowResult) -> None:
        """Append a line and force it to disk.

        Raises:
            OSError: if it cannot be written.
        """
        self._append(json_line(result).encode())

    def close(self) -> None:
        """Close the file."""
        if self._unwritten:
            with contextlib.suppress(OSError):
                self._append(b"")
        self._file.close()

    def _append(self, lines: bytes) -> None:
        lines = self._unwritten + lines
        size = self._size()
        try:
            left = memoryview(lines)
            while left:
                left = left[self._file.write(left) or 0 :]
            if self._is_regular():  # a pipe has no disk
                os.fsync(self._file.fileno())
        except OSError:
            self._unwritten = lines if len(lines) <= _MOST_UNWRITTEN else b""
            if self._is_regular():
                os.ftruncate(self._file.fileno(), size)
            raise
        self._unwritten = b""

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def _lock(self) -> None:
        """Keep others out, who would cut off a line that is being written as torn."""
        if not self._is_regular():
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            msg = f"another consumer is writing results to {self._path}; name another --results"
            raise ArtifactError(msg) from exc
        except OSError:  # a disk over the network that knows no locks
            _LOG.warning("%s cannot be locked; let no other consumer write there", self._path)

    def _mend(self) -> None:
        """Cut off a line that a kill has torn."""
        if not self._is_regular():
            return
        size = self._size()
        with self._path.open("rb") as file:
            file.seek(max(0, size - _LONGEST_LINE))
            tail = file.read()
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn.startswith(b"{"):
            _LOG.warning("%s ends in a torn line, as after a kill; it is cut off", self._path)
            os.ftruncate(self._file.fileno(), size - len(torn))
        elif torn:
            self._append(b"\n")


class Publisher:
    """Publishes each result as one frame of JSON on a PUB socket.

    Args:
        socket: a bound PUB socket, used by no other thread from now on.
    """

    def __init__(self, socket: "Socket") -> None:
        """Take the socket over."""
        self._socket = socket

    def write(self, result: WindowResult) -> None:
        """Publish; a subscriber that is too slow loses it."""
        self._socket.send(json.dumps(result.record(), allow_nan=False).encode())

    def close(self) -> None:
        """Close the socket; what is queued is still sent for two seconds."""
        self._socket.close()


class Table:
    """One line a window for people; `3x10` is window 3 of ten windows as one.

    `Z` is the empirical one, which the number of toys limits (marked `>=` at that limit); `Z alarm`
    is of the p-value that decides about an alarm.
    """

    def __init__(self, stream: TextIO) -> None:
        """Print nothing yet."""
        self._stream = stream
        self._has_head = False

    def write(self, result: WindowResult) -> None:
        """Print one line, the first under a head."""
        if not self._has_head:
            self._has_head = True
            self._stream.write(
                f"{'window':>7} {'events':>8} {'t':>8} {'p':>8} {'Z':>7} {'Z alarm':>7} "
                f"{'1/FAR':>8} {'Z run':>6} {'test':>7}\n"
            )
        name = f"{result.window}" + (f"x{result.scale}" if result.scale > 1 else "")
        limit = ">=" if result.p <= result.p_resolution else ""
        self._stream.write(
            f"{name:>7} {result.n_events:>8} {result.t:>8.1f} {result.p:>8.2g} "
            f"{limit + format(result.z, '.2f'):>7} {result.z_alarm:>7.2f} "
            f"{duration(result.inverse_far_s):>8} {result.z_global:>6.2f} "
            f"{1e3 * result.test_s:>4.0f} ms{_remark(result)}\n"
        )
        self._stream.flush()

    def close(self) -> None:
        """Nothing to do: the stream is the caller's."""


def _remark(result: WindowResult) -> str:
    remarks = []
    if result.alarm:
        alarm = "ALARM: t below null" if result.below_null else "ALARM"
        p = result.p_relabelled
        if p is not None:
            alarm += f" (relabelled p {p:.2g})"
        elif result.relabelling in ("skipped", "failed"):
            alarm += f" (relabelling {result.relabelling})"
        remarks.append(alarm)
    if result.n_missing:
        remarks.append(f"{result.n_missing} messages missing")
    elif not result.complete:
        remarks.append("cut by a clock set back or far too many events, does not count")
    if result.converged is False:
        remarks.append("not converged")
    return "  " + ", ".join(remarks) if remarks else ""


def duration(seconds: float) -> str:
    """Return a duration in its largest unit; a million years stand for all that is longer.

    >>> duration(7200.0), duration(1e15)
    ('2.0h', '>1My')
    """
    for unit, size in _UNITS:
        if seconds >= size:
            years = seconds / _UNITS[0][1]
            return ">1My" if years > 1e6 else f"{seconds / size:.{0 if years > 100 else 1}f}{unit}"
    return f"{seconds:.2g}s"
