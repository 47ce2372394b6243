"""The consumer's work: micro-batches embedded, their events placed in windows, windows tested."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from engines.engine import Engine
from engines.errors import EngineError, MessageError
from engines.reference_file import ReferenceFacts
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.block import Block, Part
from stream.delivery.admission import Admission, Receiver
from stream.delivery.plain import PlainAdmission
from stream.features import Featuriser, PendingFeatures
from stream.intake import Intake
from stream.memory import EventMemory
from stream.message import EVENT_ROW, Frame, Header, Reason
from stream.metrics import Metrics, Queue
from stream.monitor import Monitor
from stream.runner import GivenUp, TestRunner
from stream.sequence import SequenceTracker
from stream.snapshot import Recent
from stream.sparse_log import SparseLog
from stream.stages import Arrival
from stream.state.replay import replayed
from stream.state.run import RunState
from stream.tester import Outputs, Tester
from stream.tumbling import NoWindows
from stream.window import ClosedWindow, Windows
from stream.wire import NO_KINEMATICS, EventWire, Wire

__all__ = ["DEFAULT_LIMITS", "NOTHING_KEPT", "Consumer", "Keeping", "Limits"]

_LOG = logging.getLogger(__name__)
_IDLE_MS = 100
_DRAIN_S = 5.0
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
        self._windows = windows if limits.tests else NoWindows()
        self._limits, self._state = limits, keeping.state
        self._by_time = monitor.by_time
        self._largest_message = max(1.0, _LARGEST_MESSAGE * monitor.n_expected**0.5)
        self._n_unembedded = self._n_empty = 0
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
        self._runner = TestRunner(self._examine, self._skip, limits.max_waiting)
        metrics.n_expected = monitor.n_expected
        metrics.n_open = lambda: self._windows.n_open
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
        while time.monotonic() < deadline and self.intake.gather(receiver, 0.0):
            pass

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
                self.intake.follow(self._wire.header((one.header, one.payload)))
        embed = partial(replayed, wire=self._wire, engine=self._engine, featurise=self._featurise)
        whole = {block.number: block for block in embed(before, max_batch=self._limits.max_batch)}
        if self._state.point.windows:
            self._windows.restore(self._state.point.windows, partial(_part, whole))
        self._metrics.n_recovered += self._windows.n_open
        for block in self._again(embed(after, max_batch=self._limits.max_batch)):
            self._metrics.n_recovered += len(block)
            for window in self._place(block):
                self._runner.wait_for_room()
                self._runner.submit(window)

    def _again(self, blocks: Generator[Block, None, int]) -> Iterator[Block]:
        """Yield blocks; what went missing after the last is charged to the next to come."""
        self._n_unembedded = yield from blocks

    def take(self, received: Iterable[Sequence[Frame]]) -> None:
        """Process messages, given by their frames, as one micro-batch if they fit in one."""
        for frames in received:
            self.intake.take(frames)
        self.intake.close_batch()

    def close(self, *, clean: bool = True) -> None:
        """Test the windows that wait, close the state, then the outputs.

        Args:
            clean: whether the end is in order, and the state is to say so.

        Raises:
            ArtifactError: if the state could not be written.
        """
        self._runner.close()
        self._featuriser.close()
        try:
            if self._state is not None:
                self._state.close(clean=clean)
        finally:
            self.tester.close()

    @property
    def has_state(self) -> bool:
        """Whether the run goes on after a restart."""
        return self._state is not None

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""
        return self._windows.n_unclosed

    def _process(self, particles: FloatArray, messages: Sequence[Arrival], closed_s: float) -> None:
        """Embed a micro-batch, (n, *row), and place its events in windows."""
        messages = [message for message in messages if message.header.n]
        if not messages:
            return
        embeddings = np.empty((len(particles), self._engine.dim), dtype=np.float32)
        try:
            with self._metrics.stages.engine_cpu():
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
        self._metrics.stages.observe(messages, closed_s, embedded_s, time.perf_counter())
        self._metrics.n_events += len(particles)
        self._count_empty()

    def _process_alone(
        self, particles: FloatArray, messages: Sequence[Arrival], exc: EngineError
    ) -> None:
        """The encoder refused a micro-batch: refuse only the messages that it cannot embed."""
        if len(messages) == 1:
            self.intake.reject(MessageError(Reason.EMBEDDING, str(exc)))
            self._n_unembedded += messages[0].n_missing + 1
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
        block = Block(
            source=header.source,
            seq=header.seq,
            t_ns=header.t_ns,
            particles=particles if self._wire.row == EVENT_ROW else NO_KINEMATICS,
            embeddings=embeddings,
            features=features,
            n_missing=message.n_missing + self._n_unembedded,
            number=message.number,
        )
        self._n_unembedded = 0
        self._check_size(header)
        for window in self._place(block):
            self._runner.submit(window)

    def _place(self, block: Block) -> list[ClosedWindow]:
        """Place a block; return the windows that it closes and no run before has decided."""
        closed = list(self._windows.add(block))
        if self._state is None:
            return closed
        if closed:
            self._state.mark(self._windows, block.number)
        return [window for window in closed if window.index >= self._state.decided.n_windows]

    def _count_empty(self) -> None:
        n_empty, self._n_empty = self._windows.n_empty - self._n_empty, self._windows.n_empty
        if n_empty:
            self._metrics.windows["empty"] += n_empty
            _LOG.warning("%d time windows without any event were not tested", n_empty)

    def _check_size(self, header: Header) -> None:
        """Messages are placed whole: large ones make the counts of time windows jump."""
        if self._by_time and header.n > self._largest_message:
            text = (
                f"{header.n} events of source {header.source!r}; counts of time windows are "
                "Poisson only if messages are of at most about "
                f"{self._largest_message:.0f}; p-values are too small at times"
            )
            self._sparse_log.log("large message", text)

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


def _part(whole: Mapping[int, Block], name: Part) -> Block:
    """Return the block that a name stands for, of messages that were embedded again."""
    if name[0] not in whole:
        msg = (
            f"message {name[0]} of the run was embedded when it came and cannot be now; start "
            "again where the encoder runs"
        )
        raise EngineError(msg)
    return whole[name[0]].part(name)
