"""What happens with a closed window: tested, kept if it alarms, told to every output."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from stream.alarm.keeper import AlarmFolder, AlarmKeeper
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.page_data import window_view
from stream.results import Sink
from stream.sparse_log import SparseLog
from stream.window import ClosedWindow
from stream.window_result import WindowResult

__all__ = ["Outputs", "Tester"]

_LOG = logging.getLogger(__name__)
_RECENT = 500


@dataclass(frozen=True)
class Outputs:
    """Where results go: sinks for every window, a folder for those that alarm."""

    sinks: Sequence[Sink]
    alarms: AlarmFolder | None = None


class Tester:
    """Examines windows one after the other, always on the same thread.

    Args:
        monitor: tests the windows.
        outputs: where results go.
        metrics: what Prometheus sees.
        sparse_log: for trouble that may repeat.

    Attributes:
        recent: the latest results of windows.
        merged: the latest result of each longer scale.
    """

    def __init__(
        self, monitor: Monitor, outputs: Outputs, metrics: Metrics, sparse_log: SparseLog
    ) -> None:
        """Start without a result."""
        self._monitor, self._outputs, self._metrics = monitor, outputs, metrics
        self._sparse_log = sparse_log
        self._keeper = AlarmKeeper(outputs.alarms, metrics, sparse_log)
        self.recent: deque[WindowResult] = deque(maxlen=_RECENT)
        self.merged: dict[int, WindowResult] = {}

    def examine(self, window: ClosedWindow, *, confirm: bool) -> None:
        """Test a window and what it completes of the longer scales.

        Args:
            window: the window.
            confirm: whether an alarm may take the time of a relabelling test.

        Raises:
            Exception: what the test raised; the window is counted as failed.
        """
        try:
            result, f = self._monitor.examine(window, confirm=confirm)
        except Exception:
            self._metrics.windows["failed"] += 1
            raise
        self._keeper.follow(window, f, result)
        self._tell(result)
        self.recent.append(result)
        n_broken = self._monitor.n_broken
        self._follow_clock()
        for merged in self._monitor.merge(window):
            self._tell(merged)
            self.merged[merged.scale] = merged
        for scale, n in self._monitor.n_broken.items():
            self._metrics.scales[scale].n_broken += n - n_broken[scale]

    def _follow_clock(self) -> None:
        spacing, metrics = self._monitor.spacing, self._metrics
        if spacing.n_clock_jumps > metrics.n_clock_jumps:
            metrics.n_clock_jumps = spacing.n_clock_jumps
            text = "production time was set back; windows are charged from there on"
            self._sparse_log.log("clock set back", text)
        if spacing.n_uncharged > metrics.n_uncharged:
            metrics.n_uncharged = spacing.n_uncharged
            text = (
                "no production time passed since the window before, so it cannot alarm; send "
                "messages that are shorter than a window, and set the producers' clocks right"
            )
            self._sparse_log.log("window not charged", text)

    def close(self) -> None:
        """Close the outputs."""
        for sink in self._outputs.sinks:
            try:
                sink.close()
            except (OSError, zmq.ZMQError) as exc:
                _LOG.warning("%s did not close cleanly (%s)", type(sink).__name__, exc)

    def snapshot(self) -> dict[str, object]:
        """Return what the live page shows of results."""
        return {
            "alarms": sum(one.n_alarms for one in self._metrics.scales.copy().values()),
            "windows": [window_view(result) for result in tuple(self.recent)],
            "merged": [window_view(result) for _, result in sorted(self.merged.copy().items())],
            "last_alarm": self._keeper.shown,
        }

    def _tell(self, result: WindowResult) -> None:
        for sink in self._outputs.sinks:
            try:
                sink.write(result)
            except (OSError, zmq.ZMQError) as exc:
                self._sparse_log.log(f"result not written to {type(sink).__name__}", str(exc))
        self._metrics.observe_result(result, time.time())
