"""The accounts of a run, and the thread beside the stream."""

import itertools
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest

from engines.nplm import CachedReference, NullDistribution, WindowTest, z_score
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import FloatArray
from stream.alarms import FalseAlarmRate
from stream.monitor import Monitor, TestRunner
from stream.window import ClosedWindow
from tests.support import FINGERPRINT, closed_window, gaussians, small_artifact, window_spec

S = 10**9
HOURLY = FalseAlarmRate.parse("1/hour")
WAIT_S = 20.0


@dataclass
class ScriptedReference:
    """Gives the t that the window's first embedding says."""

    gradient_squared: float = 1e-6

    def test(self, embeddings: FloatArray) -> WindowTest:
        f = np.zeros(len(embeddings))
        return WindowTest(float(embeddings[0, 0]), f, self.gradient_squared, 5)


def scripted(gradient_squared: float = 1e-6) -> ReferenceArtifact:
    """Return an artifact whose toys are t = 1 to 99, so that p = 0.01 at t = 100."""
    facts = ReferenceFacts(FINGERPRINT, window_spec("count", 3), (), 10, 10, 100, 99, 0.1)
    reference = cast("CachedReference", ScriptedReference(gradient_squared))
    return ReferenceArtifact(reference, NullDistribution(np.arange(1.0, 100.0)), facts)


def window(t: float, index: int = 0, start_s: float = 0.0, end_s: float = 1.0) -> ClosedWindow:
    embeddings = np.full((3, 1), t, np.float32)
    return closed_window(
        embeddings, index=index, t_start_ns=round(start_s * S), t_end_ns=round(end_s * S)
    )


def test_result_carries_what_it_rests_on() -> None:
    ticks = itertools.count(10.0, 0.5)
    monitor = Monitor(scripted(), HOURLY, run="r1", clock=lambda: next(ticks))
    result, test = monitor.examine(window(50.0, index=4))
    assert (result.run, result.window, result.mode) == ("r1", 4, "count")
    assert (result.n_events, result.n_expected) == (3, 3.0)
    assert result.t == test.t == 50.0
    assert result.p == pytest.approx(0.51)
    assert result.p_chi2 == pytest.approx(scripted().null.chi2_p_value(50.0))
    assert result.test_s == 0.5
    assert result.converged
    assert result.engine == FINGERPRINT
    assert "99 toys of 3 events" in result.calibrated_on
    assert not result.alarm
    assert not result.extrapolated
    assert json.loads(json.dumps(result.record(), allow_nan=False))["spans"][0]["source"] == "test"


def test_chi2_alarms_beyond_the_toys_and_says_so() -> None:
    result, _ = Monitor(scripted(), HOURLY).examine(window(1000.0))
    assert result.p == 0.01
    assert result.p_chi2 < 1e-100
    assert result.extrapolated
    assert result.alarm
    assert result.threshold_p == pytest.approx(1 / 3600)
    assert result.inverse_far_s == pytest.approx(1.0 / result.p_chi2)


def test_t_far_below_the_null_alarms_though_its_p_is_one() -> None:
    null = scripted().null
    monitor = Monitor(scripted(), HOURLY)
    near, _ = monitor.examine(window(null.mean - 5.9 * null.std))
    assert not near.below_null
    assert not near.alarm
    far, _ = monitor.examine(window(null.mean - 6.1 * null.std, index=1))
    assert far.p == 1.0
    assert far.below_null
    assert far.alarm


def test_window_in_one_narrow_spot_does_not_pass_as_null() -> None:
    artifact = small_artifact(window_spec("count", 2000), n_pool=40_000)
    spot = np.random.default_rng(3).normal(size=(2000, 4)) * 0.01 + np.array([0.3, 0.2, 0.1, 0])
    result, _ = Monitor(artifact, HOURLY).examine(closed_window(spot.astype(np.float32)))
    assert result.alarm


def test_time_window_with_missing_messages_is_no_alarm_and_no_trial() -> None:
    count, time = scripted(), scripted()
    time = replace(time, facts=replace(time.facts, window=window_spec("time", 3)))
    holed = replace(window(1000.0), n_missing=2)
    result, _ = Monitor(count, HOURLY).examine(holed)
    assert (result.complete, result.alarm, result.trials, result.n_missing) == (True, True, 1, 2)
    result, _ = Monitor(time, HOURLY).examine(holed)
    assert (result.complete, result.alarm, result.trials) == (False, False, 0)
    assert result.p_global == 1.0
    assert result.z_global < 0
    whole, _ = Monitor(time, HOURLY).examine(window(1000.0))
    assert (whole.complete, whole.alarm) == (True, True)


def test_z_carries_the_offset_of_the_finite_pool() -> None:
    artifact = scripted()
    null, offset = artifact.null, artifact.facts.offset_share * artifact.null.std
    result, _ = Monitor(artifact, HOURLY).examine(window(80.0))
    up, down = (z_score(null.chi2_p_value(80.0 + s * offset)) for s in (1, -1))
    assert result.z_systematic == pytest.approx((up - down) / 2)
    assert 0.1 < result.z_systematic < 1


def test_toys_alone_alarm_only_where_their_resolution_allows() -> None:
    monitor = Monitor(scripted(), HOURLY, alarm_on="toys")
    result, _ = monitor.examine(window(1000.0, start_s=0, end_s=30))
    assert result.threshold_p < result.p
    assert not result.alarm
    result, _ = monitor.examine(window(1000.0, start_s=30, end_s=70))
    assert result.threshold_p == 0.01 == result.p  # 40 s an hour, capped
    assert result.alarm
    assert result.inverse_far_s == pytest.approx(40.0 / 0.01)


@pytest.mark.parametrize("t", [-1e6, 0.0, 1e6])
def test_every_figure_is_finite(t: float) -> None:
    result, _ = Monitor(scripted(), HOURLY).examine(window(t))
    json.dumps(result.record(), allow_nan=False)


def test_spacing_is_end_to_end_and_never_negative() -> None:
    monitor = Monitor(scripted(), HOURLY)
    spacings = [
        monitor.examine(window(50.0, start_s=start, end_s=end))[0].spacing_s
        for start, end in ((100, 101), (103, 105), (50, 60), (60, 106), (106, 108))
    ]
    assert spacings == [1.0, 4.0, 0.0, 1.0, 2.0]


def test_spacings_add_up_to_the_time_that_passed() -> None:
    monitor = Monitor(scripted(), HOURLY)
    rng = np.random.default_rng(0)
    ends = rng.uniform(1, 100, size=50)
    spacings = [monitor.examine(window(50.0, end_s=end))[0].spacing_s for end in ends]
    assert sum(spacings) == pytest.approx(ends.max(), abs=1e-6)


def test_global_p_counts_the_trials() -> None:
    monitor = Monitor(scripted(), HOURLY, alarm_on="toys")
    results = [monitor.examine(window(t))[0] for t in (50.0, 1000.0, 60.0)]
    assert [result.trials for result in results] == [1, 2, 3]
    assert results[-1].p_global == pytest.approx(1 - 0.99**3)
    assert results[0].p_global == pytest.approx(results[0].p)


def test_fit_that_did_not_converge_is_marked() -> None:
    result, _ = Monitor(scripted(gradient_squared=1.0), HOURLY).examine(window(50.0))
    assert not result.converged


def test_real_reference_passes_the_null_and_alarms_on_a_signal() -> None:
    monitor = Monitor(small_artifact(), HOURLY)
    rng = np.random.default_rng(3)
    null, _ = monitor.examine(closed_window(gaussians(200, rng), t_end_ns=S))
    events = gaussians(200, rng)
    events[:60] += 2.5
    signal, test = monitor.examine(closed_window(events, t_end_ns=2 * S))
    assert not null.alarm
    assert signal.alarm
    assert signal.t > null.t + 50
    assert test.f[:60].mean() > test.f[60:].mean()


class Bench:
    """Examines windows only when let, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.examined: list[int] = []
        self.skipped: list[int] = []
        self.fail_on: int | None = None

    def examine(self, closed: ClosedWindow) -> None:
        self.begun.release()
        if not self.go.acquire(timeout=WAIT_S):
            msg = "nobody let the test go on"
            raise TimeoutError(msg)
        if closed.index == self.fail_on:
            msg = "this window cannot be tested"
            raise ValueError(msg)
        self.examined.append(closed.index)

    def skip(self, closed: ClosedWindow) -> None:
        self.skipped.append(closed.index)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def runner(bench: Bench) -> Iterator[TestRunner]:
    made = TestRunner(bench.examine, bench.skip, size=2)
    yield made
    bench.go.release(100)
    made.close()


def submit(runner: TestRunner, indices: range) -> None:
    for index in indices:
        runner.submit(window(0.0, index=index))


def test_newest_windows_wait_and_the_oldest_is_given_up(bench: Bench, runner: TestRunner) -> None:
    submit(runner, range(1))
    assert bench.begun.acquire(timeout=WAIT_S)  # window 0 is being tested, none waits
    submit(runner, range(1, 6))
    assert bench.skipped == [1, 2, 3]
    assert runner.n_waiting == 2
    bench.go.release(3)
    runner.close()
    assert bench.examined == [0, 4, 5]
    assert runner.n_waiting == 0


def test_close_finishes_what_waits(bench: Bench, runner: TestRunner) -> None:
    submit(runner, range(2))
    bench.go.release(2)
    runner.close()
    assert bench.examined == [0, 1]
    assert bench.skipped == []


def test_close_without_windows_returns(runner: TestRunner) -> None:
    runner.close()


def test_failing_test_does_not_end_the_thread(
    bench: Bench, runner: TestRunner, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fail_on = 0
    submit(runner, range(2))
    bench.go.release(2)
    with caplog.at_level(logging.ERROR):
        runner.close()
    assert bench.examined == [1]
    assert "the test of window 0 failed" in caplog.text
