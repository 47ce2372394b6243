"""A progress bar on a terminal; a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """Shows how far a long job is: `advance(n, note)` as work gets done.

    Args:
        total: units of work.
        title: what is being done.
        stream: where to show it; a bar if it is a terminal, else lines.
        every_s: seconds between lines where there is no terminal.
        quiet: show nothing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        total: int,
        title: str,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show the first state."""
        self._stream = stream or sys.stderr
        self._total, self._title, self._done = total, title, 0
        self._every_s, self._quiet, self._clock = every_s, quiet, clock
        self._started = self._shown = clock()
        self._bar = None
        if not quiet and self._stream.isatty():
            self._bar = tqdm(total=total, desc=title, file=self._stream, dynamic_ncols=True)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count n more units as done; the note stands at the end of the line."""
        self._done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        if self._bar is not None or self._quiet:
            return
        now = self._clock()
        if self._done >= self._total or now - self._shown >= self._every_s:
            self._shown = now
            spent = now - self._started
            left = spent * (self._total - self._done) / max(self._done, 1)
            tail = f" | {note}" if note else ""
            line = f"{self._title}: {self._done}/{self._total} ({spent:.0f} s, {left:.0f} s left)"
            self._stream.write(f"{line}{tail}\n")
            self._stream.flush()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
