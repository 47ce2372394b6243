"""Which windows of an alarm are kept and shown: that which opens it, and each more extreme one."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ArtifactError
from engines.types import Float64Array
from stream.alarm.record import NullUsed, write_alarm
from stream.alarm.strength import Strength, strength
from stream.alarm.view import alarm_view
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.window import ClosedWindow
from stream.window_result import WindowResult

__all__ = ["AlarmFolder", "AlarmKeeper"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlarmFolder:
    """Where alarms are kept, and the null that they were judged by."""

    path: Path
    null: NullUsed


class AlarmKeeper:
    """Keeps the windows of alarms; an alarm that goes on for a day does not fill the disk.

    Args:
        folder: where; None keeps none.
        metrics: counts what was kept, and what could not be.
        sparse_log: for trouble that may repeat.

    Attributes:
        shown: the most extreme window of the last alarm, for the live page; None before any.
    """

    def __init__(self, folder: AlarmFolder | None, metrics: Metrics, sparse_log: SparseLog) -> None:
        """Start without an alarm."""
        self._folder, self._metrics, self._sparse_log = folder, metrics, sparse_log
        self._shown: Strength | None = None
        self._kept: Strength | None = None
        self.shown: dict[str, object] | None = None

    def state(self) -> list[Strength | None]:
        """Return what decides which windows of the alarm at hand are still to be kept."""
        return [self._shown, self._kept]

    def restore(self, state: Sequence[Sequence[Any] | None]) -> None:
        """Go on with the alarm at hand."""
        self._shown, self._kept = (_strength(one) for one in state)

    def follow(self, window: ClosedWindow, f: Float64Array, result: WindowResult) -> None:
        """Keep a window if it opens an alarm or is more extreme than its alarm was so far.

        Args:
            window: the window.
            f: (n_data,) log density ratio of each event, of the kernel width that decided.
            result: what was said of it.
        """
        if not result.alarm:
            return
        if result.onset:
            self._shown = self._kept = None
        found = strength(below_null=result.below_null, z=result.z_alarm, t=result.t)
        if self._shown is None or found > self._shown:
            self._shown = found
            self.shown = alarm_view(window.embeddings, window.particles, f, result.record())
        if self._folder is not None and (self._kept is None or found > self._kept):
            self._keep(self._folder, window, f, result, found)

    def _keep(
        self,
        folder: AlarmFolder,
        window: ClosedWindow,
        f: Float64Array,
        result: WindowResult,
        found: Strength,
    ) -> None:
        try:
            kept = write_alarm(folder.path, window, f, result, folder.null)
        except ArtifactError as exc:
            self._metrics.records["failed"] += 1
            self._sparse_log.log("alarm not kept", str(exc))
        else:
            self._kept = found
            self._metrics.records["kept"] += 1
            _LOG.info("kept the alarm of window %d in %s", window.index, kept)


def _strength(state: Sequence[Any] | None) -> Strength | None:
    if state is None:
        return None
    is_below, z, t = state
    return bool(is_below), float(z), float(t)
