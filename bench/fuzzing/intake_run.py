"""Malformed messages through the consumer's intake, each judged by the rules on its own."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.fuzzing.memory import resident_bytes
from bench.fuzzing.messages import MessageFuzzer
from bench.fuzzing.rules import Rules
from engines.types import FloatArray
from stream.batch import MicroBatch
from stream.delivery.plain import PlainAdmission
from stream.intake import Intake
from stream.memory import EventMemory
from stream.metrics import Metrics
from stream.sequence import SequenceTracker
from stream.sparse_log import SparseLog
from stream.stages import Arrival
from stream.wire import EmbeddingWire, EventWire, Wire

__all__ = ["Findings", "IntakeRun"]

NOW_NS = 1_800_000_000 * 10**9
_MAX_BATCH, _SLAB = 64, 512
_GOOD = "good"
_GOOD_SHARE = 0.1
_KEPT_FINDINGS = 20
_LONGEST_SENTENCE = 1000
_DIM, _ENGINE = 4, "ab" * 32


@dataclass
class Findings:
    """What went wrong, by what; the first of each kind with its message.

    Attributes:
        counts: how often, by kind.
        examples: the first few, in words.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, what: str, frames: Sequence[bytes] = (), said: str = "") -> None:
        """Count one."""
        self.counts[what] += 1
        if len(self.examples) < _KEPT_FINDINGS:
            shown = [frame[:200].hex() for frame in frames[:3]]
            self.examples.append(f"{what}: {said} {len(frames)} frames {shown}")


class IntakeRun:
    """One intake, fed.

    Args:
        rng: of everything that is drawn.
        embeddings: whether messages hold embeddings, as the tester of several embedders takes them.

    Attributes:
        findings: what went wrong.
        kinds: messages by how they were made, and of these the accepted.
        metrics: the consumer's own account.
        slowest_s, slowest_kind: wall time and processor time of the slowest message.
    """

    def __init__(self, rng: np.random.Generator, *, embeddings: bool = False) -> None:
        """Open the intake."""
        self.findings, self.metrics = Findings(), Metrics()
        self.kinds: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.slowest_s = self.slowest_cpu_s = 0.0
        self.slowest_kind = ""
        wire: Wire = EmbeddingWire(_DIM, _ENGINE) if embeddings else EventWire()
        row, engine = wire.row, _ENGINE if embeddings else None
        fields = {"engine": _ENGINE} if embeddings else {}
        self._rng, self._rules = rng, Rules(row, engine)
        self._fuzzer = MessageFuzzer(rng, row, NOW_NS, fields)
        self._waiting: list[tuple[list[bytes], Any]] = []
        self._intake = Intake(
            MicroBatch(EventMemory(lambda n: np.empty((n, *row), np.float32), _SLAB), _MAX_BATCH),
            self._emit,
            PlainAdmission(SequenceTracker()),
            self.metrics,
            _Listener(self.findings),
            lambda: NOW_NS,
            wire,
        )

    def feed(self, n: int, advance: Callable[[int], None]) -> list[int]:
        """Feed n messages; return the resident memory, bytes, after each hundredth of them."""
        resident = []
        for first in range(0, n, step := max(1, n // 100)):
            for _ in range(first, min(first + step, n)):
                self._one()
            self._close()
            resident.append(resident_bytes())
            advance(min(step, n - first))
        return resident

    def _one(self) -> None:
        is_good = self._rng.random() < _GOOD_SHARE
        kind, frames = (_GOOD, self._fuzzer.right(_GOOD)) if is_good else self._fuzzer.draw()
        self.kinds[kind] += 1
        verdict = self._rules.judge(frames, NOW_NS)
        before = dict(self.metrics.rejected)
        # As pyzmq hands them over: read-only memory, at times at an odd address.
        received = [memoryview(frame) for frame in frames]
        started_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            self._intake.take(received)
        except Exception as exc:  # noqa: BLE001 - what must not happen is what is looked for
            self.findings.add(f"{type(exc).__name__} escaped", frames, str(exc)[:200])
            return
        self._time(kind, time.perf_counter() - started_s, time.thread_time() - cpu_s)
        reasons = [key for key, n in self.metrics.rejected.items() if n != before.get(key, 0)]
        self._compare(kind, frames, verdict, reasons)
        if self._rng.random() < 0.05:
            self._close()

    def _time(self, kind: str, wall_s: float, cpu_s: float) -> None:
        self.slowest_s = max(self.slowest_s, wall_s)
        if cpu_s > self.slowest_cpu_s:
            self.slowest_cpu_s, self.slowest_kind = cpu_s, kind

    def _compare(self, kind: str, frames: list[bytes], verdict: Any, reasons: list[str]) -> None:  # noqa: ANN401
        if len(reasons) > 1:
            self.findings.add("counted under several reasons", frames, str(reasons))
        if reasons:
            self.refused[reasons[0]] += 1
            if reasons[0] not in verdict.must | verdict.may:
                said = f"{reasons} instead of {verdict.must}"
                self.findings.add("refused for what is not so", frames, said)
            if kind == _GOOD:
                self.findings.add("good message refused", frames, str(reasons))
            return
        self.accepted[kind] += 1
        self._waiting.append((frames, verdict))
        if verdict.must:
            self.findings.add("accepted against the rules", frames, str(verdict.must))
            return
        self._rules.accepted(verdict.header)

    def _emit(self, events: FloatArray, messages: Sequence[Arrival], closed_s: float) -> None:
        """Compare what goes to the encoder with what the messages held."""
        del closed_s
        stop = 0
        for arrival, (frames, verdict) in zip(messages, self._waiting, strict=True):
            header, said = arrival.header, verdict.header
            start, stop = stop, stop + header.n
            same = (header.source, header.seq, header.n, header.t_ns) == tuple(
                said.get(key) for key in ("source", "seq", "n", "t_ns")
            )
            want = np.array(verdict.values, np.float64).astype(np.float32)
            if not same or not np.array_equal(events[start:stop].reshape(-1), want):
                self.findings.add("accepted with other content", frames)
        if stop != len(events):
            self.findings.add("events of no message")
        self._waiting = []

    def _close(self) -> None:
        self._intake.close_batch()
        if self._waiting:
            self.findings.add("accepted and lost")
            self._waiting = []

    def check_account(self) -> None:
        """Compare the consumer's account with what was fed."""
        metrics, fed = self.metrics, self.kinds.total()
        if metrics.n_messages + metrics.n_rejected + self.findings.counts.total() < fed:
            self.findings.add("messages neither accepted nor refused")
        if metrics.n_messages != self.accepted.total():
            self.findings.add("accepted messages miscounted")
        if {key: n for key, n in metrics.rejected.items() if n} != dict(self.refused):
            self.findings.add("refused messages miscounted")
        if self.accepted[_GOOD] != self.kinds[_GOOD]:
            self.findings.add("good messages missing")


class _Listener(SparseLog):
    """Hears every sentence that would be logged."""

    def __init__(self, findings: Findings) -> None:
        super().__init__()
        self._findings = findings

    def log(self, kind: str, text: str, level: int = 0) -> None:
        """Check that a sentence can be shown, whatever the message held."""
        del level
        if not text.isprintable() or len(text) > _LONGEST_SENTENCE:
            self._findings.add(f"log line that cannot be shown ({kind})", said=repr(text[:300]))
