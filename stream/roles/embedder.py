"""The embedder's work: micro-batches embedded, their embeddings sent on."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from engines.engine import Engine, embed_surely
from engines.errors import EngineError, MessageError
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.delivery.admission import Admission, Receiver
from stream.header import Header, Reason
from stream.intake import Intake
from stream.memory import EventMemory
from stream.metrics import Metrics
from stream.service import Limits
from stream.snapshot import Recent
from stream.sparse_log import SparseLog
from stream.stages import Arrival
from stream.wire import Wire

__all__ = ["Embedder", "Forward"]

_IDLE_MS = 100
_DRAIN_S = 5.0
_SLAB_BATCHES = 8


class Forward(Protocol):
    """The way to the tester."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to come back."""

    def send(self, header: Header, embeddings: FloatArray) -> bool:
        """Send one message's embeddings, (n, d); return whether it went."""


class Embedder:
    """Takes messages until told to stop.

    Args:
        engine: the encoder.
        admission: which messages count.
        forward: the way to the tester.
        metrics: what Prometheus sees.
        limits: how much is embedded at once.
        wire: reads the messages; events if None.
        now_ns: the wall clock, unix ns.

    Attributes:
        intake: what came of the messages.
    """

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        forward: Forward,
        metrics: Metrics,
        limits: Limits,
        wire: Wire | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start without a message."""
        self._engine, self._admission, self._forward = engine, admission, forward
        self._metrics, self._limits = metrics, limits
        memory = EventMemory(engine.input_buffer, _SLAB_BATCHES * limits.max_batch)
        batch = MicroBatch(memory, limits.max_batch)
        sparse_log = SparseLog()
        self.intake = Intake(batch, self._process, admission, metrics, sparse_log, now_ns, wire)
        self._recent = Recent(metrics)

    def run(
        self, receiver: Receiver, stopped: Callable[[], bool], *, exit_on_end: bool = False
    ) -> None:
        """Embed until `stopped`, or with `exit_on_end` until each source has ended and knows it."""
        while not stopped() and not (exit_on_end and self._has_ended()):
            self.intake.gather(receiver, self._limits.max_delay_s, idle_ms=_IDLE_MS)
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline and self.intake.gather(receiver, 0.0):
            pass

    def snapshot(self, tester: str) -> dict[str, object]:
        """Return what the live page shows; windows and alarms are the tester's."""
        return {
            **self._recent.snapshot(),
            "alarms": 0,
            "windows": [],
            "merged": [],
            "last_alarm": None,
            "calibrated_on": f"an embedder: windows are tested at {tester}",
            "far": "",
        }

    def _has_ended(self) -> bool:
        return self.intake.all_ended and self._forward.is_done

    def _process(self, particles: FloatArray, messages: Sequence[Arrival], closed_s: float) -> None:
        """Embed a micro-batch, (n, 19, 3), and send its messages on, those without events too.

        Raises:
            EngineFailedError: if it is not the messages; their producers send them again.
        """
        embeddings = np.empty((len(particles), self._engine.dim), dtype=np.float32)
        try:
            if len(particles):
                with self._metrics.stages.engine_cpu():
                    if len(messages) == 1:
                        embed_surely(self._engine, particles, embeddings)
                    else:
                        self._engine.embed_into(particles, embeddings)
        except EngineError as exc:
            self._process_alone(particles, messages, exc)
            return
        embedded_s = time.perf_counter()
        stop = 0
        for message in messages:
            start, stop = stop, stop + message.header.n
            self._forward.send(message.header, embeddings[start:stop])
        held = [message for message in messages if message.header.n]
        if held:
            self._metrics.embedding.add([embedded_s - closed_s])
            self._metrics.stages.observe(held, closed_s, embedded_s, time.perf_counter())
            self._metrics.n_events += len(particles)

    def _process_alone(
        self, particles: FloatArray, messages: Sequence[Arrival], exc: EngineError
    ) -> None:
        """The encoder refused a micro-batch: refuse only the messages that it cannot embed."""
        if len(messages) == 1:
            refusal = MessageError(Reason.EMBEDDING, str(exc))
            self.intake.reject(refusal)
            self._admission.refuse(messages[0].header, refusal)
            return
        stop = 0
        for message in messages:
            start, stop = stop, stop + message.header.n
            self._process(particles[start:stop], [message], time.perf_counter())
