"""The results of a scan on disk, from which a scan that was ended goes on.

JSON lines. The first says what was scanned and how; then one line a window, each followed by those
of the longer time scales that it completes; then one line for each resampled reference and window.
A line is forced to the disk before the next window is tested. No line holds a duration, so the same
scan gives the same file, whether or not it was interrupted.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from engines.errors import ArtifactError, MismatchError

__all__ = ["Line", "ScanJournal", "lines_of_window"]

_LOG = logging.getLogger(__name__)
_MARK, _FORMAT = "nplm_stream_scan", 1

Line = dict[str, Any]


def lines_of_window(index: int, scales: Sequence[int]) -> int:
    """Return how many lines a window has: its own, and those of the scales that it completes.

    >>> [lines_of_window(index, (1, 3)) for index in range(4)]
    [1, 1, 2, 1]
    """
    return sum((index + 1) % scale == 0 for scale in scales)


class ScanJournal:
    """The results file of one scan.

    Args:
        path: the file; made if missing, gone on with otherwise.
        inputs: everything that a result depends on, of kinds that JSON holds, by name.
        scales: of the reference, 1 among them.

    Raises:
        ArtifactError: if the file cannot be written, is in use, is damaged, or is of another kind.
        MismatchError: if it holds results of other inputs; names those that differ.

    Attributes:
        windows: the lines of each window that is done, in order.
        resampled: the lines of resampled references.
    """

    def __init__(self, path: Path, inputs: Line, scales: Sequence[int]) -> None:
        """Read what is there, drop what was being written when the scan was killed."""
        self.path = path
        self.windows: list[list[Line]] = []
        self.resampled: list[Line] = []
        self._scales = tuple(scales)
        self._file = _locked(path)
        try:
            self._read(json.loads(json.dumps(inputs)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Let go of the file, which stays."""
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays."""
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, lines: Sequence[Line]) -> None:
        """Keep the lines of one window; they are on the disk on return.

        Raises:
            ArtifactError: if the file cannot be written.
        """
        self._write(lines)
        if "resampling" in lines[0]:
            self.resampled.extend(lines)
        else:
            self.windows.append(list(lines))

    def _read(self, inputs: Line) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines(keepends=True)
        if not lines:
            if not f'{{"{_MARK}'.encode().startswith(data[: len(_MARK) + 2]):
                raise self._other_kind()
            self._start(inputs)
            return
        different = self._different(lines[0], inputs)
        if different and len(lines) == 1:  # no result that could be lost
            self._start(inputs)
            return
        if different:
            msg = (
                f"{self.path} holds results of another scan: {', '.join(different)} differ; give "
                "what that scan was given to go on with it, or name another --results"
            )
            raise MismatchError(msg)
        kept = len(lines[0]) + sum(map(len, lines[1 : 1 + self._take(lines[1:])]))
        if kept < len(data):
            _LOG.warning(
                "%s ends in an unfinished result, as after a kill; it is dropped and made again",
                self.path,
            )
            self._file.truncate(kept)

    def _start(self, inputs: Line) -> None:
        self._file.truncate(0)
        self._write([{_MARK: _FORMAT, "inputs": inputs}])

    def _different(self, line: bytes, inputs: Line) -> list[str]:
        """Return the names of the inputs that differ from those of the first line."""
        try:
            header = json.loads(line)
            found = header["inputs"] if header[_MARK] == _FORMAT else {}
            names = {*found, *inputs}
        except (ValueError, KeyError, TypeError) as exc:
            raise self._other_kind() from exc
        return sorted(name for name in names if found.get(name) != inputs.get(name))

    def _take(self, lines: Sequence[bytes]) -> int:
        """Sort lines into windows and resamplings; return how many make whole windows."""
        place = 0
        while place < len(lines):
            try:
                n = 1
                if "resampling" in self._parsed(lines, place):
                    self.resampled.append(self._parsed(lines, place))
                else:
                    n = lines_of_window(len(self.windows), self._scales)
                    if place + n > len(lines):
                        return place
                    group = [self._parsed(lines, place + k) for k in range(n)]
                    if group[0]["window"] != len(self.windows):
                        raise ValueError  # noqa: TRY301 - one sentence for all damage
                    self.windows.append(group)
            except (ValueError, KeyError, TypeError) as exc:
                msg = f"{self.path} is damaged after line {place + 1}; remove it to scan anew"
                raise ArtifactError(msg) from exc
            place += n
        return place

    def _parsed(self, lines: Sequence[bytes], place: int) -> Line:
        line: Line = json.loads(lines[place])
        return line

    def _other_kind(self) -> ArtifactError:
        msg = f"{self.path} must be results of stream-scan to go on with; name another --results"
        return ArtifactError(msg)

    def _write(self, lines: Sequence[Line]) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            # What is left in the buffer would fail again on closing, and hide this error.
            self.close()
            msg = f"cannot write results to {self.path} ({exc.strerror}); make room and run again"
            raise ArtifactError(msg) from exc


def _locked(path: Path) -> BinaryIO:
    """Open the file for this process alone."""
    if path.exists() and not path.is_file():
        msg = f"results must be a plain file; {path} is none; name another --results"
        raise ArtifactError(msg)
    try:
        file = path.open("a+b")
    except OSError as exc:
        msg = f"cannot write results to {path} ({exc.strerror}); choose a folder that exists"
        raise ArtifactError(msg) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        msg = f"another scan is writing {path}; wait for it, or name another --results"
        raise ArtifactError(msg) from exc
    return file
