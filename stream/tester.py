"""What happens with a closed window: tested, kept if it alarms, told to every output."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zmq

from engines.errors import ArtifactError
from engines.nplm import z_score
from engines.types import Float64Array
from stream.alarms import write_alarm
from stream.metrics import Metrics
from stream.monitor import Monitor
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
    alarms: Path | None = None


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
        n_tested, n_merged, n_alarms: windows, those of longer scales, alarms of both.
    """

    def __init__(
        self, monitor: Monitor, outputs: Outputs, metrics: Metrics, sparse_log: SparseLog
    ) -> None:
        """Start without a result."""
        self._monitor, self._outputs, self._metrics = monitor, outputs, metrics
        self._sparse_log = sparse_log
        self.recent: deque[WindowResult] = deque(maxlen=_RECENT)
        self.merged: dict[int, WindowResult] = {}
        self.n_tested = self.n_merged = self.n_alarms = 0

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
            self._metrics.windows.labels("failed").inc()
            raise
        self.n_tested += 1
        self._keep(window, f, result)
        self._tell(result)
        self.recent.append(result)
        n_broken = self._monitor.n_broken
        for merged in self._monitor.merge(window):
            self.n_merged += 1
            self._tell(merged)
            self.merged[merged.scale] = merged
        for scale, n in self._monitor.n_broken.items():
            self._metrics.broken.labels(str(scale)).inc(n - n_broken[scale])

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
            "alarms": self.n_alarms,
            "windows": [_shown(result) for result in tuple(self.recent)],
            "merged": [_shown(result) for _, result in sorted(self.merged.copy().items())],
        }

    def _keep(self, window: ClosedWindow, f: Float64Array, result: WindowResult) -> None:
        if not result.alarm or self._outputs.alarms is None:
            return
        try:
            kept = write_alarm(self._outputs.alarms, window, f, result.record())
            _LOG.info("kept the alarm of window %d in %s", window.index, kept)
        except ArtifactError as exc:
            self._sparse_log.log("alarm not kept", str(exc))

    def _tell(self, result: WindowResult) -> None:
        self.n_alarms += result.alarm
        for sink in self._outputs.sinks:
            try:
                sink.write(result)
            except (OSError, zmq.ZMQError) as exc:
                self._sparse_log.log(f"result not written to {type(sink).__name__}", str(exc))
        self._metrics.observe_result(result)


def _shown(result: WindowResult) -> dict[str, object]:
    return {**replace(result, spans=()).record(), "threshold_z": z_score(result.threshold_p)}
