"""The test of each window, beside the stream.

`Monitor` turns a window into a result; `TestRunner` runs it on a thread of its own, so that
embedding never waits for a test.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from engines.nplm import WindowTest, z_score
from engines.reference_file import ReferenceArtifact
from stream.alarms import FalseAlarmRate, Trials
from stream.window import ClosedWindow, Span

__all__ = ["AlarmTail", "Monitor", "TestRunner", "WindowResult"]

_LOG = logging.getLogger(__name__)
_CONVERGED = 1e-4

AlarmTail = Literal["chi2", "toys"]


@dataclass(frozen=True)
class WindowResult:
    """One line of the results.

    Attributes:
        run: name of this run of the consumer.
        window: index of the window within the run.
        mode, n_events, n_expected: what was counted and what the null expects.
        t_start_ns, t_end_ns: production time, unix ns.
        spacing_s: time since the window before, which the false-alarm rate is charged for.
        t: test statistic.
        p, z: empirical, from the toys; p is never below p_resolution, 1 / (n_toys + 1).
        p_chi2, z_chi2: from the chi-square fitted to the toys.
        z_systematic: change of z_chi2 if t is off by the finite pool's expected offset.
        extrapolated: whether p_chi2 lies beyond the toys' resolution.
        chi2_ks_p: how well the toys follow that chi-square.
        alarm_on: which p decides about an alarm.
        threshold_p: the p at which this window alarms.
        inverse_far_s: one false alarm as extreme as this one is expected in so many seconds.
        below_null: whether t lies more than six spreads below the null: data so unlike the
            reference that the fit broke down. Such a window alarms whatever its p.
        n_missing: messages known to be missing from the window, or just after it.
        complete: false for a time window with missing messages: its rate means nothing, so it
            neither alarms nor counts as a trial.
        alarm: whether it alarmed.
        trials, p_global, z_global: the run so far, corrected for the number of windows.
        converged: whether the fit reached its tolerance.
        test_s: seconds that the test took.
        spans: which events of which source the window holds.
        calibrated_on: what every p-value here rests on.
        engine: fingerprint of the encoder.
    """

    run: str
    window: int
    mode: str
    n_events: int
    n_expected: float
    t_start_ns: int
    t_end_ns: int
    spacing_s: float
    t: float
    p: float
    z: float
    p_resolution: float
    p_chi2: float
    z_chi2: float
    z_systematic: float
    extrapolated: bool
    chi2_ks_p: float
    alarm_on: AlarmTail
    threshold_p: float
    inverse_far_s: float
    below_null: bool
    n_missing: int
    complete: bool
    alarm: bool
    trials: int
    p_global: float
    z_global: float
    converged: bool
    test_s: float
    spans: tuple[Span, ...]
    calibrated_on: str
    engine: str

    def record(self) -> dict[str, object]:
        """Return the result as what JSON can hold."""
        return asdict(self)


class Monitor:
    """Tests windows one after the other and keeps the run's accounts.

    Args:
        artifact: the calibrated reference.
        far: the operator's false-alarm rate.
        alarm_on: `chi2` extrapolates beyond the toys; `toys` cannot go below their resolution.
        run: name of this run.
        clock: seconds, for the test's duration.
    """

    def __init__(
        self,
        artifact: ReferenceArtifact,
        far: FalseAlarmRate,
        *,
        alarm_on: AlarmTail = "chi2",
        run: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start with no trials."""
        self._artifact, self._far, self._alarm_on = artifact, far, alarm_on
        self._run, self._clock = run, clock
        self._trials = Trials()
        self._last_end_ns: int | None = None

    def examine(self, window: ClosedWindow) -> tuple[WindowResult, WindowTest]:
        """Test a window and account for it."""
        started = self._clock()
        test = self._artifact.reference.test(window.embeddings)
        test_s = self._clock() - started
        null, facts = self._artifact.null, self._artifact.facts
        p, p_chi2 = null.p_value(test.t), null.chi2_p_value(test.t)
        p_alarm = p_chi2 if self._alarm_on == "chi2" else p
        below = null.is_below(test.t)
        spacing_s = self._spacing_s(window)
        threshold_p = self._far.threshold_p(spacing_s)
        complete = facts.window.mode == "count" or window.n_missing == 0
        if complete:
            self._trials = self._trials.add(p_alarm)
        result = WindowResult(
            run=self._run,
            window=window.index,
            mode=facts.window.mode,
            n_events=len(window),
            n_expected=facts.window.n_expected,
            t_start_ns=window.t_start_ns,
            t_end_ns=window.t_end_ns,
            spacing_s=spacing_s,
            t=test.t,
            p=p,
            z=null.z_score(test.t),
            p_resolution=null.resolution,
            p_chi2=p_chi2,
            z_chi2=z_score(p_chi2),
            z_systematic=null.chi2_z_shift(test.t, facts.offset_share * null.std),
            extrapolated=p_chi2 < null.resolution,
            chi2_ks_p=null.chi2_ks_p,
            alarm_on=self._alarm_on,
            threshold_p=threshold_p,
            inverse_far_s=spacing_s / p_alarm,
            below_null=below,
            n_missing=window.n_missing,
            complete=complete,
            alarm=complete and (below or p_alarm <= threshold_p),
            trials=self._trials.n,
            p_global=self._trials.global_p,
            z_global=self._trials.global_z,
            converged=test.gradient_squared <= _CONVERGED,
            test_s=test_s,
            spans=window.spans,
            calibrated_on=facts.calibration,
            engine=facts.engine_fingerprint,
        )
        return result, test

    def _spacing_s(self, window: ClosedWindow) -> float:
        """Production time since the last window; never negative, also when a clock jumps back."""
        start_ns = window.t_start_ns if self._last_end_ns is None else self._last_end_ns
        self._last_end_ns = max(window.t_end_ns, start_ns)
        return (self._last_end_ns - start_ns) / 1e9


class TestRunner:
    """Runs a function on windows, on one thread, with a bounded queue.

    When windows close faster than they can be tested, the oldest that still waits is given up for
    the newest, and counted.

    Args:
        examine: what to do with a window.
        skipped: called with each window that is given up.
        size: how many windows may wait.
    """

    __test__ = False

    def __init__(
        self,
        examine: Callable[[ClosedWindow], None],
        skipped: Callable[[ClosedWindow], None],
        size: int = 4,
    ) -> None:
        """Start the thread."""
        self._examine, self._skipped, self._size = examine, skipped, size
        self._waiting: deque[ClosedWindow] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="nplm-test", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Windows that wait for their test."""
        return len(self._waiting)

    def submit(self, window: ClosedWindow) -> None:
        """Queue a window; never blocks."""
        with self._changed:
            if len(self._waiting) >= self._size:
                self._skipped(self._waiting.popleft())
            self._waiting.append(window)
            self._changed.notify()

    def close(self) -> None:
        """Finish the windows that wait, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                window = self._waiting.popleft()
            try:
                self._examine(window)
            except Exception:  # noqa: BLE001 - one window's fault must not end the stream
                _LOG.exception("the test of window %d failed", window.index)
