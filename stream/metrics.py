"""Everything that the consumer counts, in plain numbers, which Prometheus reads when it scrapes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from engines.reference_file import ReferenceArtifact
from stream.alarms import FalseAlarmRate
from stream.durations import Durations
from stream.header import REASONS
from stream.stages import Arrival, Stages
from stream.window_result import WindowResult

__all__ = ["OUTCOMES", "Metrics", "Queue", "ScaleCounts"]

OUTCOMES = ("tested", "skipped", "failed", "empty")
#: Sources that have a series of their own; a hostile producer could invent any number of names.
_MAX_SOURCES = 100
_OTHER_SOURCES = "other"
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Queue:
    """Something that waits.

    Attributes:
        length: returns how much waits now.
        capacity: how much may; 0 where there is no limit.
    """

    length: Callable[[], int] = lambda: 0
    capacity: int = 0


@dataclass
class ScaleCounts:
    """What came of the windows of one scale.

    Attributes:
        n_tested, n_broken: windows tested, runs given up before complete.
        n_alarms, n_alarming: alarms, and windows over the threshold, of which an alarm has several.
        last, last_alarming: the last result, and the last one over the threshold.
        last_alarming_s: unix time of that window's test.
        null_t: quantiles of the toys' t, by their name.
    """

    n_tested: int = 0
    n_broken: int = 0
    n_alarms: int = 0
    n_alarming: int = 0
    last: WindowResult | None = None
    last_alarming: WindowResult | None = None
    last_alarming_s: float = 0.0
    null_t: dict[str, float] | None = None


class Metrics:
    """The consumer's account; each number is written by one thread and may be read by any.

    Args:
        stages: where the time of messages is kept; its own if None.

    Attributes:
        n_events, n_messages, n_missing: events embedded, messages accepted and known to be missing.
        rejected: messages refused, by reason.
        by_source: events accepted, by source; from the 101st on all are "other".
        last_event_s, last_window_s: unix time of the last message accepted, window tested.
        windows: windows of scale 1, by outcome.
        scales: what came of each scale's windows.
        saturation: time of the last test over its window's spacing.
        n_unconverged, n_discoveries, n_clock_jumps: tests, windows, times.
        n_uncharged: windows that could not alarm, as their time was charged for before.
        embedding, features, test, relabelling: durations.
        p_relabelled: of the last alarm confirmed.
        records, notifications: alarm records kept or failed; notifications by outcome.
        queues: what waits, by name.
        n_open: returns the events in the open window.
        n_expected: events expected in a window.
        fallback: whether the ONNX file runs in the plan's stead.
        build, reference: what runs, as labels.
        reference_created_s: unix time of the calibration.
        far_hz: the operator's false-alarm rate.
        gpu_memory: returns used and total bytes, where there is a GPU.
        state: durations of writes of the state, where there is one.
        n_state_failures: writes of it that failed and were tried again.
        n_duplicates: messages that came again and were not counted again.
        n_recovered: events that a restart took up from the state.
        n_restamped: messages whose time of production lay ahead, taken as produced on arrival.
    """

    def __init__(self, stages: Stages | None = None) -> None:
        """Start with nothing counted, every series in place."""
        self.stages = stages or Stages()
        self.n_events = self.n_messages = self.n_missing = 0
        self.rejected = Counter(dict.fromkeys(REASONS, 0))
        self.by_source: Counter[str] = Counter()
        self.last_event_s = self.last_window_s = 0.0
        self.windows = Counter(dict.fromkeys(OUTCOMES, 0))
        self.scales = {1: ScaleCounts()}
        self.saturation = 0.0
        self.n_unconverged = self.n_discoveries = self.n_clock_jumps = self.n_uncharged = 0
        self.embedding, self.features = Durations(["embedding"]), Durations(["features"])
        self.test, self.relabelling = Durations(["test"]), Durations(["relabelling"])
        self.p_relabelled = 1.0
        self.records = Counter(dict.fromkeys(("kept", "failed"), 0))
        self.notifications = Counter(dict.fromkeys(("delivered", "failed", "dropped"), 0))
        self.queues = {name: Queue() for name in ("tests", "features", "notifications", "state")}
        self.n_open: Callable[[], int] = lambda: 0
        self.n_expected = 0.0
        self.fallback = False
        self.build: dict[str, str] = {}
        self.reference: dict[str, str] = {}
        self.reference_created_s = self.far_hz = 0.0
        self.gpu_memory: Callable[[], tuple[int, int]] | None = None
        self.state = Durations(["state"])
        self.n_state_failures = self.n_duplicates = self.n_recovered = self.n_restamped = 0

    @property
    def n_rejected(self) -> int:
        """Messages refused, for any reason."""
        return sum(self.rejected.values())

    @property
    def fill(self) -> float:
        """Events in the open window over those expected."""
        return self.n_open() / self.n_expected if self.n_expected else 0.0

    def describe(self, artifact: ReferenceArtifact, far: FalseAlarmRate) -> None:
        """Say what windows are compared with, and let the series of longer scales exist."""
        facts = artifact.facts
        self.far_hz = far.per_s
        self.reference = {
            "fingerprint": artifact.fingerprint,
            "engine": facts.engine_fingerprint,
            "window": str(facts.window),
            "n_ref": str(facts.n_ref),
            "n_toys": str(facts.n_toys),
            "precision": facts.precision,
        }
        if facts.created:
            self.reference_created_s = datetime.fromisoformat(facts.created).timestamp()
        for scale, nulls in artifact.nulls.items():
            # Of the first width: a panel beside t is to show the null's size.
            levels = np.quantile(nulls.t[:, 0], _QUANTILES).tolist()
            counts = self.scales.setdefault(scale, ScaleCounts())
            counts.null_t = dict(zip(map(str, _QUANTILES), levels, strict=True))

    def observe_messages(self, messages: Sequence[Arrival], now_s: float) -> None:
        """Count accepted messages."""
        self.n_messages += len(messages)
        self.last_event_s = now_s
        for message in messages:
            source, n = message.header.source, message.header.n
            if source not in self.by_source and len(self.by_source) >= _MAX_SOURCES:
                source = _OTHER_SOURCES
            self.by_source[source] += n

    def observe_result(self, result: WindowResult, now_s: float) -> None:
        """Count a tested window."""
        counts = self.scales.setdefault(result.scale, ScaleCounts())
        counts.n_tested += 1
        counts.n_alarms += result.onset
        counts.n_alarming += result.alarm
        counts.last = result
        if result.alarm:
            counts.last_alarming, counts.last_alarming_s = result, now_s
        if result.scale == 1:
            self.windows["tested"] += 1
            self.last_window_s = now_s
            self.saturation = result.test_s / result.spacing_s if result.spacing_s else 0.0
        self.test.add([result.test_s])
        self.n_unconverged += result.converged is False
        self.n_discoveries += bool(result.discovery)
        if result.p_relabelled is not None:
            self.relabelling.add([result.relabel_s])
            self.p_relabelled = result.p_relabelled
