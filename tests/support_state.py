"""Runs that are kept on disk, and what a kill would leave of them."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.reference_file import ReferenceArtifact
from engines.types import AnyArray, FloatArray
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.message import encode_message
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.results import JsonLines
from stream.service import Consumer, Keeping, Limits
from stream.sliding import open_windows
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import StateStore
from stream.tester import Outputs
from tests.support import LinearEngine, gaussians

__all__ = ["NOW_NS", "Camera", "Kept", "events", "feed", "keeping", "lines", "message", "never"]

NOW_NS = 1_800_000_000 * 10**9
INPUTS = {"window": "200"}
#: What may differ between two runs of the same stream.
_TIMES = ("test_s", "relabel_s")


def never() -> bool:
    return False


def events(n: int, seed: int) -> FloatArray:
    """Return (n, 19, 3) events whose embeddings by `LinearEngine` are the null's Gaussians."""
    particles = np.zeros((n, 19, 3), np.float32)
    particles[:, 1:5, 1] = gaussians(n, np.random.default_rng(seed))
    return particles


def message(source: str, seq: int, particles: FloatArray, passed_s: float = 0.0) -> list[bytes]:
    t_ns = NOW_NS + round(1e9 * passed_s)
    return encode_message(source, seq, t_ns, particles, end=not len(particles))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the results without what differs from run to run; fail at a torn line."""
    text = (folder / "r.jsonl").read_text()
    assert not text or text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    return [{name: one[name] for name in one if name not in _TIMES} for one in found]


@dataclass
class Kept:
    """A consumer whose run is kept."""

    consumer: Consumer
    metrics: Metrics
    state: RunState
    folder: Path


@contextmanager
def keeping(
    folder: Path,
    artifact: ReferenceArtifact,
    *,
    n_panes: int = 1,
    max_waiting: int = 1000,
    max_batch: int = 100,
    refuse: Callable[[FloatArray], AnyArray] | None = None,
    clean: bool = True,
) -> Iterator[Kept]:
    """Open the run that a folder keeps, or begin one; recover; close at the end."""
    metrics = Metrics()
    state = RunState(folder / "state", INPUTS, metrics, SparseLog(), name="r", stopped=never)
    rules = Rules(FalseAlarmRate.parse("1/hour"), refractory_s=30.0, fdr=0.1)
    metrics.describe(artifact, rules.far)
    consumer = Consumer(
        LinearEngine(refuse=refuse),
        Monitor(artifact, rules, n_panes=n_panes, run=state.name),
        open_windows(artifact.facts.window, n_panes),
        Outputs([JsonLines(folder / "r.jsonl")]),
        metrics,
        limits=Limits(max_batch=max_batch, max_waiting=max_waiting),
        keeping=Keeping(state),
        now_ns=lambda: NOW_NS,
    )
    try:
        consumer.recover()
        yield Kept(consumer, metrics, state, folder)
    finally:
        consumer.close(clean=clean)


@dataclass
class Camera:
    """Copies a run's folder before and after writes of the state: what a kill there would leave.

    SQLite's files do not change meanwhile, as only the thread that takes the picture writes them.
    """

    folder: Path
    pictures: Path
    n: int = 0
    held: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        original = StateStore.write

        def write(store: StateStore, *words: Any, **options: Any) -> None:  # noqa: ANN401
            self._take()
            original(store, *words, **options)
            self._take()

        patch.setattr(StateStore, "write", write)

    def _take(self) -> None:
        with self.held:
            shutil.copytree(self.folder, self.pictures / f"{self.n:04}")
            self.n += 1

    def bring_back(self, number: int) -> None:
        """Put the folder in the state of a picture."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.pictures / f"{number:04}", self.folder)


def feed(kept: Kept, messages: Sequence[tuple[str, int, list[bytes]]]) -> None:
    """Send what the run does not have, one message at a time."""
    for source, seq, frames in messages:
        if seq >= kept.state.sources.get(source, 0):
            kept.consumer.take([frames])
