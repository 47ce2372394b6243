"""What a replay tells of itself: which events were signal, how far it is, how much was sent."""

import contextlib
import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from engines.errors import ArtifactError
from engines.progress import Progress
from stream.replay import Batch

__all__ = ["Shown", "Totals", "TruthLog"]

_LOG = logging.getLogger(__name__)
_NOTICE_EVERY_S = 10.0


@dataclass
class Totals:
    """What was sent."""

    messages: int = 0
    events: int = 0
    signal: int = 0

    def add(self, batch: Batch) -> None:
        """Count a message."""
        self.messages += 1
        self.events += len(batch.particles)
        self.signal += len(batch.signal)


class TruthLog:
    """One JSON line a message, saying which of its events are signal.

    Args:
        path: the file, written anew; None writes nothing.

    Raises:
        ArtifactError: if it cannot be written; so does every method.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file."""
        self._path = path
        self._file: TextIO | None = None
        if path is not None:
            with self._explained():
                self._file = path.open("w", buffering=1)

    def write(self, source: str, seq: int, batch: Batch) -> None:
        """Write a message's line."""
        if self._file is not None:
            n, positions = len(batch.particles), list(batch.signal)
            line = json.dumps({"source": source, "seq": seq, "n": n, "signal": positions})
            with self._explained():
                self._file.write(f"{line}\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with self._explained():
                self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            reason = exc.strerror or exc
            msg = f"cannot write --log {self._path} ({reason}); name a file that can be written"
            raise ArtifactError(msg) from exc


class Shown:
    """Shows how far the stream is; a stream without an end has no bar, only its log.

    Args:
        options: of `stream-producer`.
        n_background: events of the file that is replayed.
    """

    def __init__(self, options: Namespace, n_background: int) -> None:
        """Show nothing sent."""
        limit: int | None = options.events
        endless = options.loop and limit is None
        # Until its end, how much signal a file's stream will hold is chance: count background.
        self._all = limit is not None and (options.loop or limit <= n_background)
        total = limit if self._all else n_background
        self._bar = None if endless or total is None else Progress(total, "events sent")
        self._told_s = 0.0

    def advance(self, batch: Batch, totals: Totals, elapsed_s: float) -> None:
        """Show that a message was sent."""
        if self._bar is not None:
            n_signal = 0 if self._all else len(batch.signal)
            self._bar.advance(len(batch.particles) - n_signal, f"{totals.signal} signal")
        elif elapsed_s - self._told_s >= _NOTICE_EVERY_S:
            self._told_s = elapsed_s
            _LOG.info("%d events sent in %.0f s", totals.events, elapsed_s)

    def close(self) -> None:
        """Leave what is shown."""
        if self._bar is not None:
            self._bar.close()
