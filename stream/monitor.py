"""The test of each window, and of longer scales: t, what the toys say of it, whether it alarms."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import numpy as np

from engines.nplm import Features
from engines.reference_file import ReferenceArtifact
from engines.types import Float64Array, FloatArray
from stream.account import Account, Rules
from stream.judge import Judge
from stream.nested import MergedWindow, NestedWindows
from stream.spacing import Spacing
from stream.window import ClosedWindow
from stream.window_result import (
    Confirmation,
    Decision,
    RelabellingStatus,
    Significance,
    Tested,
    WindowResult,
)

__all__ = ["Monitor"]

_LOG = logging.getLogger(__name__)
_CONVERGED = 1e-4

_AnyWindow: TypeAlias = ClosedWindow | MergedWindow


class Monitor:
    """Tests windows one after the other and keeps the run's accounts.

    Each time scale that the reference is calibrated for beside 1 is tested too, and has accounts
    of its own; all scales share the false-alarm rate equally.

    Args:
        artifact: the calibrated reference.
        rules: when a window alarms.
        n_relabellings: of each alarm's confirmation; 0 for none.
        n_panes: steps in a window; 1 where windows do not overlap.
        run: name of this run.
        clock: seconds, for durations.
        rng: makes the relabellings' generator from the window's index, so that a replay repeats
            them.
    """

    def __init__(
        self,
        artifact: ReferenceArtifact,
        rules: Rules,
        *,
        n_relabellings: int = 0,
        n_panes: int = 1,
        run: str = "",
        clock: Callable[[], float] = time.perf_counter,
        rng: Callable[[int], np.random.Generator] = np.random.default_rng,
    ) -> None:
        """Start with no trials."""
        self._artifact, self._judge = artifact, Judge(artifact, rules.alarm_on)
        self._n_relabellings, self._rng = n_relabellings, rng
        self._run, self._clock = run, clock
        scales = sorted(artifact.nulls)
        self._accounts = {scale: Account(rules, scale, len(scales)) for scale in scales}
        by_time = artifact.facts.window.mode == "time"
        self._nested = NestedWindows(
            [scale for scale in scales if scale > 1], n_panes=n_panes, by_time=by_time
        )

    @property
    def n_broken(self) -> dict[int, int]:
        """Runs of windows, by scale, that were broken before they made a window of that scale."""
        return self._nested.n_broken

    @property
    def spacing(self) -> Spacing:
        """The time that windows of scale 1 are charged for."""
        return self._accounts[1].spacing

    def state(self) -> dict[str, Any]:
        """Return the run's accounts, which JSON can hold: all that later decisions depend on."""
        accounts = {str(scale): account.state() for scale, account in self._accounts.items()}
        return {"accounts": accounts, "nested": self._nested.state()}

    def restore(self, state: Mapping[str, Any], away_s: float = 0.0) -> None:
        """Go on from the accounts of a run with the same reference and rules.

        Args:
            state: from `state`.
            away_s: seconds that have passed since then.
        """
        for scale, account in self._accounts.items():
            account.restore(state["accounts"][str(scale)], away_s)
        self._nested.restore(state["nested"])

    @property
    def n_expected(self) -> float:
        """Events expected in a window."""
        return self._artifact.facts.window.n_expected

    @property
    def by_time(self) -> bool:
        """Whether windows are spans of time, in which the count is Poisson under the null."""
        return self._artifact.facts.window.mode == "time"

    def features(self, embeddings: FloatArray) -> Features:
        """Return what the test needs of (n, d) embeddings; safe on any thread."""
        return self._artifact.reference.features(embeddings)

    def examine(
        self, window: ClosedWindow, *, confirm: bool = True
    ) -> tuple[WindowResult, Float64Array]:
        """Test a window and account for it.

        Args:
            window: the window.
            confirm: whether an alarm may take the time of a relabelling test.

        Returns:
            The result, and f of each event, (n_data,), of the width that decided.

        Raises:
            Exception: what computing the features raised.
            FloatingPointError: if t is not finite.
        """
        pieces = _pieces(window)
        started = self._clock()
        test = self._artifact.reference.test_features(pieces)
        test_s = self._clock() - started
        width, significance = self._judge.judge(test.t, window.scale)
        tested = self._tested(window, test_s, converged=test.gradient_squared <= _CONVERGED)
        decision = self._decide(window, significance, tested)
        confirmation = Confirmation.without(self._why_not(decision, confirm=confirm))
        if confirmation.relabelling == "done":
            confirmation = self._confirm(window, below_null=significance.below_null)
        result = WindowResult.of(tested, significance, decision, confirmation)
        return result, np.asarray(test.f[width], dtype=np.float64)

    def merge(self, window: ClosedWindow) -> Iterator[WindowResult]:
        """Add a window to the longer scales; yield the result of each that it completes.

        Exhaust the iterator.
        """
        longer = len(self._accounts) > 1 and self._is_complete(window)
        if not longer or not self._nested.wants(window):
            return
        sums = self._artifact.reference.sums(_pieces(window))
        for merged in self._nested.add(window, sums):
            started = self._clock()
            t = self._artifact.reference.test_sums(merged.sums[None], scale=merged.scale)[0]
            test_s = self._clock() - started
            _, significance = self._judge.judge(t, merged.scale)
            tested = self._tested(merged, test_s, converged=None)
            decision = self._decide(merged, significance, tested)
            confirmation = Confirmation.without("no events" if decision.alarm else "no alarm")
            yield WindowResult.of(tested, significance, decision, confirmation)

    def _is_complete(self, window: _AnyWindow) -> bool:
        is_whole = window.n_missing == 0 and not (isinstance(window, ClosedWindow) and window.cut)
        return self._artifact.facts.window.mode == "count" or is_whole

    def _tested(self, window: _AnyWindow, test_s: float, *, converged: bool | None) -> Tested:
        facts = self._artifact.facts
        return Tested(
            run=self._run,
            window=window.index,
            scale=window.scale,
            overlap=window.overlap,
            mode=facts.window.mode,
            n_events=len(window),
            n_expected=window.scale * facts.window.n_expected,
            t_start_ns=window.t_start_ns,
            t_end_ns=window.t_end_ns,
            spans=window.spans,
            n_missing=window.n_missing,
            complete=self._is_complete(window),
            converged=converged,
            test_s=test_s,
            loss=facts.loss_of(window.scale),
            calibrated_on=facts.calibration(window.scale),
            engine=facts.engine_fingerprint,
        )

    def _decide(self, window: _AnyWindow, significance: Significance, tested: Tested) -> Decision:
        return self._accounts[tested.scale].decide(
            *self._judge.p_and_z(significance),
            window=window.index,
            bounds_ns=(window.t_start_ns, window.t_end_ns),
            complete=tested.complete,
            below_null=significance.below_null,
        )

    def _why_not(self, decision: Decision, *, confirm: bool) -> RelabellingStatus:
        """Return why a window is not relabelled; `done` if it is."""
        if not decision.alarm:
            return "no alarm"
        if not self._n_relabellings:
            return "off"
        if not decision.onset:
            return "same alarm"
        return "done" if confirm else "skipped"

    def _confirm(self, window: ClosedWindow, *, below_null: bool) -> Confirmation:
        _LOG.info("window %d alarms; %d relabellings", window.index, self._n_relabellings)
        started = self._clock()
        try:
            relabelling = self._artifact.reference.relabel(
                _pieces(window),
                n_relabellings=self._n_relabellings,
                rng=self._rng(window.index),
            )
        except Exception:  # noqa: BLE001 - the alarm stands, whatever becomes of its confirmation
            _LOG.exception("the alarm of window %d could not be confirmed", window.index)
            return Confirmation.without("failed")
        return Confirmation(
            p_relabelled=relabelling.p_value_below if below_null else relabelling.p_value,
            n_relabellings=self._n_relabellings,
            relabel_s=self._clock() - started,
            relabelling="done",
        )


def _pieces(window: ClosedWindow) -> list[Features]:
    """Wait for a window's features; they came from the same reference that will test them."""
    return cast("list[Features]", window.features())
