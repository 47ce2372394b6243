"""The consumer's work: micro-batches embedded, their events placed in windows, windows tested."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engines.engine import Engine, embed_surely
from engines.errors import EngineError, MessageError
from engines.reference_file import ReferenceFacts
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.block import Block
from stream.delivery.admission import Admission, Receiver
from stream.delivery.plain import PlainAdmission
from stream.features import Featuriser, PendingFeatures
from stream.header import EVENT_ROW, Frame, Reason
from stream.intake import Intake
from stream.memory import EventMemory
from stream.metrics import Metrics, Queue
from stream.monitor import Monitor
from stream.runner import MOST_WAITING, GivenUp, TestRunner
from stream.sequence import SequenceTracker
from stream.snapshot import Recent
from stream.sparse_log import SparseLog
from stream.stages import Arrival
from stream.state.replay import replayed
from stream.state.run import RunState
from stream.tester import Outputs, Tester
from stream.tumbling import NoWindows
from stream.window import ClosedWindow, Windows
from stream.window_feed import WindowFeed
from stream.wire import NO_KINEMATICS, EventWire, Wire

__all__ = ["DEFAULT_LIMITS", "NOTHING_KEPT", "Consumer", "Keeping", "Limits"]

_LOG = logging.getLogger(__name__)
_IDLE_MS = 100
_DRAIN_S = 5.0
_DISK_MS = 10
_JOIN_S = 10.0
#: Times the square root of the events expected in a time window.
_LARGEST_MESSAGE = 0.5
#: Micro-batches of full size that a slab of memory holds.
_SLAB_BATCHES = 8


@dataclass(frozen=True)
class Limits:
    """How much the consumer takes on at once.

    Attributes:
        max_batch: events embedded together.
        max_delay_s: a micro-batch that is not full closes so long after its first message.
        max_waiting: closed windows that may wait for their test; beyond it the oldest is skipped.
        tests: False embeds and forgets, to measure the stream alone.
    """

    max_batch: int = 2048
    max_delay_s: float = 2e-3
    max_waiting: int = 16
    tests: bool = True


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Keeping:
    """What outlives the process.

    Attributes:
        state: what is kept for a restart; None keeps nothing.
        admission: which messages count; those that continue their sequence if None.
        wire: what messages hold; events if None.
    """

    state: RunState | None = None
    admission: Admission | None = None
    wire: Wire | None = None


NOTHING_KEPT = Keeping()


class Consumer:
    """Takes messages from a socket until told to stop.

    Args:
        engine: the encoder.
        monitor: tests the windows.
        windows: cuts the stream.
        outputs: where results go.
        metrics: what Prometheus sees.
        limits: how much is taken on at once.
        keeping: what outlives the process.
        now_ns: the wall clock, unix ns.

    Attributes:
        intake: what came of the messages.
        tester: what came of the windows.
    """

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        windows: Windows,
        outputs: Outputs,
        metrics: Metrics,
        *,
        limits: Limits = DEFAULT_LIMITS,
        keeping: Keeping = NOTHING_KEPT,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start the threads of the features and of the test."""
        self._engine, self._metrics = engine, metrics
        self._limits, self._state = limits, keeping.state
        self._confirms = True
        self._sparse_log = SparseLog()
        memory = EventMemory(engine.input_buffer, _SLAB_BATCHES * limits.max_batch)
        batch = MicroBatch(memory, limits.max_batch)
        state = keeping.state
        admission = keeping.admission or PlainAdmission(SequenceTracker(), state)
        self._wire = keeping.wire or EventWire()
        self.intake = Intake(
            batch, self._process, admission, metrics, self._sparse_log, now_ns, self._wire
        )
        self.tester = Tester(monitor, outputs, metrics, self._sparse_log, state)
        self._featuriser = Featuriser(monitor.features, lambda s: metrics.features.add([s]))
        self._featurise = self._featuriser.submit if limits.tests else PendingFeatures.of
        most = MOST_WAITING * limits.max_waiting * monitor.n_expected
        self._runner = TestRunner(self._examine, self._skip, limits.max_waiting, most)
        largest = max(1.0, _LARGEST_MESSAGE * monitor.n_expected**0.5)
        self._feed = WindowFeed(
            windows if limits.tests else NoWindows(),
            self._runner,
            metrics,
            self._sparse_log,
            state=state,
            largest_message=largest if monitor.by_time else None,
        )
        metrics.n_expected = monitor.n_expected
        metrics.n_open = lambda: self._feed.n_open
        metrics.queues["tests"] = Queue(lambda: self._runner.n_waiting, limits.max_waiting)
        if state is not None:
            metrics.queues["state"] = Queue(lambda: state.n_bytes, state.max_bytes)
        metrics.queues["features"] = Queue(lambda: self._featuriser.n_waiting)
        self._recent = Recent(metrics)

    def run(
        self, receiver: Receiver, stopped: Callable[[], bool], *, exit_on_end: bool = False
    ) -> None:
        """Consume until `stopped`, or with `exit_on_end` until each source has sent its end.

        What has been received by then is still processed and every closed window tested; once
        stopped, alarms are no longer confirmed, so that the end comes soon.
        """
        started_s = time.monotonic()
        while not stopped() and not (exit_on_end and self._has_ended(started_s)):
            self.intake.gather(receiver, self._limits.max_delay_s, idle_ms=_IDLE_MS)
        self._confirms = not stopped()
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline:
            # Producers are told of what is still to be written before the windows are tested.
            is_writing = self._state is not None and self._state.n_bytes > 0
            idle_ms = _DISK_MS if is_writing else 0
            if not self.intake.gather(receiver, 0.0, idle_ms=idle_ms) and not is_writing:
                break

    def _has_ended(self, started_s: float) -> bool:
        """Return whether every source has ended; others may join those of an earlier life."""
        waited = time.monotonic() - started_s > _JOIN_S
        return self.intake.all_ended and (waited or self._metrics.n_messages > 0)

    def recover(self) -> None:
        """Take up the run that the state holds: the open window, and those not decided yet.

        Raises:
            EngineError: if the encoder cannot embed again what it had embedded.
        """
        if self._state is None:
            return
        before, after = self._state.take_stored()
        if not self._state.clean:  # the ends that it was killed over are not seen again
            for one in (*before, *after):
                with contextlib.suppress(MessageError):
                    frames = (one.header, one.payload)
                    self.intake.follow(self._wire.header(frames, stored=True))
        unreadable: dict[int, str] = {}
        embed = (self._wire, self._engine, self._featurise, self._limits.max_batch)
        blocks = (replayed(stored, *embed, unreadable) for stored in (before, after))
        self._feed.take_up(self._state, *blocks, unreadable=unreadable)

    def take(self, received: Iterable[Sequence[Frame]]) -> None:
        """Process messages, given by their frames, as one micro-batch if they fit in one."""
        for frames in received:
            self.intake.take(frames)
        self.intake.close_batch()

    def close(self, *, clean: bool = True, look: Callable[[], None] | None = None) -> None:
        """Test the windows that wait, close the outputs, then the state.

        Args:
            clean: whether the end is in order, and the state is to say so.
            look: called twenty times a second while windows are tested.

        Raises:
            ArtifactError: if the state could not be written.
        """
        try:
            self._runner.close(look)
            self._featuriser.close()
        finally:
            self.tester.close()
            if self._state is not None:
                self._state.close(clean=clean, notified=self.tester.has_notified)

    def faults(self) -> list[str]:
        """Return what is not done any more, as its thread has ended; all is well if empty."""
        parts = {
            "the test of windows": self._runner.is_alive,
            "the features of events": self._featuriser.is_alive,
            "the writing of the state": self._state is None or self._state.is_alive,
        }
        return [name for name, is_alive in parts.items() if not is_alive]

    @property
    def has_state(self) -> bool:
        """Whether the run goes on after a restart."""
        return self._state is not None

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""
        return self._feed.n_unclosed

    def _process(self, particles: FloatArray, messages: Sequence[Arrival], closed_s: float) -> None:
        """Embed a micro-batch, (n, *row), and place its events in windows.

        Raises:
            EngineFailedError: if it is not the messages; what was accepted is kept for a restart.
        """
        held = [message for message in messages if message.header.n]
        if not held:
            self._feed.n_lost += sum(message.n_missing for message in messages)
            return
        embeddings = np.empty((len(particles), self._engine.dim), dtype=np.float32)
        try:
            with self._metrics.stages.engine_cpu():
                if len(messages) == 1:
                    embed_surely(self._engine, particles, embeddings)
                else:
                    self._engine.embed_into(particles, embeddings)
        except EngineError as exc:
            self._process_alone(particles, messages, exc)
            return
        embedded_s = time.perf_counter()
        self._metrics.embedding.add([embedded_s - closed_s])
        features = self._featurise(embeddings)
        stop = 0
        for message in messages:
            start, stop = stop, stop + message.header.n
            self._add(message, particles[start:stop], embeddings[start:stop], features[start:stop])
        self._metrics.stages.observe(held, closed_s, embedded_s, time.perf_counter())
        self._metrics.n_events += len(particles)
        self._feed.count_empty()

    def _process_alone(
        self, particles: FloatArray, messages: Sequence[Arrival], exc: EngineError
    ) -> None:
        """The encoder refused a micro-batch: refuse only the messages that it cannot embed."""
        if len(messages) == 1:
            self.intake.reject(MessageError(Reason.EMBEDDING, str(exc)))
            self._feed.n_lost += messages[0].n_missing + 1
            return
        stop = 0
        for message in messages:
            start, stop = stop, stop + message.header.n
            self._process(particles[start:stop], [message], time.perf_counter())

    def _add(
        self,
        message: Arrival,
        particles: FloatArray,
        embeddings: FloatArray,
        features: PendingFeatures,
    ) -> None:
        header = message.header
        if not header.n:
            self._feed.n_lost += message.n_missing
            return
        block = Block(
            source=header.source,
            seq=header.seq,
            t_ns=header.t_ns,
            particles=particles if self._wire.row == EVENT_ROW else NO_KINEMATICS,
            embeddings=embeddings,
            features=features,
            n_missing=message.n_missing + self._feed.n_lost,
            number=message.number,
        )
        self._feed.n_lost = 0
        self._feed.add(block)

    def _examine(self, window: ClosedWindow, given_up: GivenUp) -> None:
        # With many windows waiting, each is still tested before one is confirmed.
        has_time = self._runner.n_waiting <= self._limits.max_waiting // 2
        confirm = self._confirms and has_time
        self.tester.examine(window, confirm=confirm, given_up=given_up)

    def _skip(self, window: ClosedWindow) -> None:
        self._metrics.windows["skipped"] += 1
        text = f"window {window.index}: windows close faster than tests finish"
        self._sparse_log.log("window skipped", text)

    def snapshot(self, facts: ReferenceFacts, far: str) -> dict[str, object]:
        """Return what the live page shows."""
        return {
            **self._recent.snapshot(),
            **self.tester.snapshot(),
            "calibrated_on": facts.calibration(),
            "far": far,
        }
