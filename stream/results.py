"""Where results go: a JSONL file, a ZeroMQ PUB socket, a table on the terminal."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from engines.errors import ArtifactError
from stream.window_result import WindowResult

if TYPE_CHECKING:
    from stream.endpoints import Socket

__all__ = ["JsonLines", "Publisher", "Sink", "Table", "duration"]

_UNITS = (("y", 365 * 86_400.0), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


class Sink(Protocol):
    """Takes results, one at a time, always on the same thread."""

    def write(self, result: WindowResult) -> None:
        """Take one result."""

    def close(self) -> None:
        """Finish."""


class JsonLines:
    """Appends one JSON object a line; a line is on disk before the next window is tested.

    Args:
        path: the file; made if missing, appended to otherwise.

    Raises:
        ArtifactError: if it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as exc:
            msg = f"cannot write results to {path} ({exc}); choose a folder that exists"
            raise ArtifactError(msg) from exc

    def write(self, result: WindowResult) -> None:
        """Append a line and force it to disk."""
        self._file.write(json.dumps(result.record(), allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
        remarks.append("cut by a clock set back, does not count")
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
