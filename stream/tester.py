"""What happens with a closed window: tested, kept if it alarms, told to every output."""

import contextlib
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zmq

from stream.alarm.keeper import AlarmFolder, AlarmKeeper
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.notify import Webhook
from stream.page_data import window_view
from stream.results import JsonLines, Sink, json_line
from stream.runner import GivenUp
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.window import ClosedWindow
from stream.window_result import WindowResult

__all__ = ["Outputs", "Tester"]

_LOG = logging.getLogger(__name__)
_RECENT = 500
_NONE_GIVEN_UP = GivenUp()


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
        state: where the accounts are kept for a restart; None keeps none.

    Attributes:
        recent: the latest results of windows.
        merged: the latest result of each longer scale.
        decided: of the whole run, windows and events by outcome: tested, skipped, failed.
    """

    def __init__(
        self,
        monitor: Monitor,
        outputs: Outputs,
        metrics: Metrics,
        sparse_log: SparseLog,
        state: RunState | None = None,
    ) -> None:
        """Start without a result, or with the accounts of the run that the state holds."""
        self._monitor, self._outputs, self._metrics = monitor, outputs, metrics
        self._sparse_log = sparse_log
        self._keeper = AlarmKeeper(outputs.alarms, metrics, sparse_log)
        self.recent: deque[WindowResult] = deque(maxlen=_RECENT)
        self.merged: dict[int, WindowResult] = {}
        self.decided = Counter[str]()
        self._given_up = GivenUp()
        self._state = state
        if state is not None:
            self._take_up(state)

    def examine(
        self, window: ClosedWindow, *, confirm: bool, given_up: GivenUp = _NONE_GIVEN_UP
    ) -> None:
        """Test a window and what it completes of the longer scales; tell it once it is kept.

        Args:
            window: the window.
            confirm: whether an alarm may take the time of a relabelling test.
            given_up: what was given up so far, of windows before this one.

        Raises:
            Exception: what the test raised; the window is counted as failed.
        """
        n_windows, n_events = (
            now - before for now, before in zip(given_up, self._given_up, strict=True)
        )
        self._given_up = given_up
        self.decided.update({"windows skipped": n_windows, "events skipped": n_events})
        try:
            result, f = self._monitor.examine(window, confirm=confirm)
        except Exception:
            self._metrics.windows["failed"] += 1
            self.decided.update({"windows failed": 1, "events failed": len(window)})
            self._keep(window.index + 1, [])
            raise
        self.decided.update({"windows tested": 1, "events tested": len(window)})
        n_broken, merged = self._monitor.n_broken, list[WindowResult]()
        with self._line_comes_out(window):
            self._keeper.follow(window, f, result)
        with self._line_comes_out(window):
            merged += self._monitor.merge(window)
        self._keep(window.index + 1, [result, *merged])
        for one in (result, *merged):
            self._tell(one)
        self._note_told(window.index + 1)
        self.recent.append(result)
        self.merged.update({one.scale: one for one in merged})
        self._follow_clock()
        for scale, n in self._monitor.n_broken.items():
            self._metrics.scales[scale].n_broken += n - n_broken[scale]

    @contextlib.contextmanager
    def _line_comes_out(self, window: ClosedWindow) -> Iterator[None]:
        """A window is in the accounts: it, and its alarm, are told whatever else fails."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever it is, the line must come out
            _LOG.exception("window %d: its record or a longer scale failed", window.index)

    def _keep(self, n_windows: int, results: Sequence[WindowResult]) -> None:
        """Put on the disk what was decided, and the lines that say so, before anybody is told."""
        if self._state is None:
            return
        accounts = {
            "monitor": self._monitor.state(),
            "keeper": self._keeper.state(),
            "decided": self.decided,
        }
        told = {
            "lines": [json_line(result) for result in results],
            "files": [file.plan(results) for file in self._files()],
        }
        self._state.settle(n_windows, accounts, told)

    def _note_told(self, n_windows: int) -> None:
        """Keep that the lines stand in their files: a restart need not look for them there."""
        if self._state is not None and all(file.is_whole for file in self._files()):
            self._state.tell(n_windows)

    def _files(self) -> list[JsonLines]:
        return [sink for sink in self._outputs.sinks if isinstance(sink, JsonLines)]

    def _take_up(self, state: RunState) -> None:
        """Go on with the accounts of a run; after a kill tell again what may not have been told.

        Raises:
            ArtifactError: if the results that were to be written cannot be.
        """
        decided = state.decided
        if decided.accounts is None or decided.results is None:
            return
        away_s = time.time() - decided.saved_s
        self._monitor.restore(decided.accounts["monitor"], away_s)
        self._keeper.restore(decided.accounts["keeper"])
        spacing = self._monitor.spacing  # told by the process before
        self._metrics.n_clock_jumps = spacing.n_clock_jumps
        self._metrics.n_uncharged = spacing.n_uncharged
        self.decided.update(decided.accounts["decided"])
        for file in [] if state.told else self._files():
            for plan in decided.results["files"]:
                file.complete(plan)
        self._note_told(decided.n_windows)
        for sink in [] if state.notified else self._outputs.sinks:
            if isinstance(sink, Webhook):
                for line in decided.results["lines"]:
                    sink.write(WindowResult(**json.loads(line)))

    def _follow_clock(self) -> None:
        spacing, metrics = self._monitor.spacing, self._metrics
        if spacing.n_clock_jumps > metrics.n_clock_jumps:
            metrics.n_clock_jumps = spacing.n_clock_jumps
            text = "production time was set back; windows are charged from there on"
            self._sparse_log.log("clock set back", text)
        if spacing.n_uncharged > metrics.n_uncharged:
            metrics.n_uncharged = spacing.n_uncharged
            text = (
                "the time of its production was charged for before, so it cannot alarm: events "
                "that come late (after an outage, from a spool), messages longer than a window, or "
                "producers' clocks that are not right"
            )
            self._sparse_log.log("window not charged", text)

    @property
    def has_notified(self) -> bool:
        """Whether no alarm is left that a webhook has not been told of, once closed."""
        hooks = (sink for sink in self._outputs.sinks if isinstance(sink, Webhook))
        return all(hook.is_done for hook in hooks)

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
