"""An engine that fails ends the process, which goes on after a restart: no message is to blame."""

from pathlib import Path

import numpy as np
import pytest

from engines.engine import embed_surely
from engines.errors import EngineError, EngineFailedError
from engines.types import AnyArray, FloatArray
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.message import encode_message
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.service import Consumer, Keeping
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.tester import Outputs
from stream.tumbling import CountWindows
from tests.support import LinearEngine, gaussians, small_artifact

NOW_NS = 1_800_000_000 * 10**9


class Moody(LinearEngine):
    """Works until it is told not to."""

    def __init__(self) -> None:
        super().__init__(refuse=self._fails)
        self.broken, self.n_fits = False, 0

    def _fails(self, particles: FloatArray) -> AnyArray:
        self.n_fits -= 1
        return np.asarray(self.broken or self.n_fits >= 0 or particles[:, 0, 0] == 666.0)


def frames(seq: int) -> list[bytes]:
    particles = np.zeros((20, 19, 3), np.float32)
    particles[:, 0, 0] = 50.0
    particles[:, 1:5, 1] = gaussians(20, np.random.default_rng(seq))
    return encode_message("daq", seq, NOW_NS + seq, particles)


def consumer_of(engine: LinearEngine, folder: Path) -> tuple[Consumer, RunState]:
    metrics = Metrics()
    state = RunState(folder, {}, metrics, SparseLog(), name="r")
    monitor = Monitor(small_artifact(), Rules(FalseAlarmRate.parse("1/hour")), run="r")
    consumer = Consumer(
        engine,
        monitor,
        CountWindows(200),
        Outputs([]),
        metrics,
        keeping=Keeping(state),
        now_ns=lambda: NOW_NS,
    )
    return consumer, state


def test_one_bad_event_is_told_from_an_engine_that_fails() -> None:
    engine, out = Moody(), np.empty((3, 4), np.float32)
    good = np.ones((3, 19, 3), np.float32)
    bad = good.copy()
    bad[1, 0, 0] = 666.0
    with pytest.raises(EngineError, match="cannot embed such an event"):
        embed_surely(engine, bad, out)
    engine.broken = True
    with pytest.raises(EngineFailedError, match="embeds nothing any more: the encoder cannot"):
        embed_surely(engine, good, out)
    engine.broken, engine.n_fits = False, 1
    embed_surely(engine, good, out)
    assert (out == 1.0).all()


def test_messages_are_not_refused_for_an_engine_that_fails_for_a_moment(tmp_path: Path) -> None:
    """Memory of a GPU that others use may be short for one call and there for the next."""
    engine = Moody()
    consumer, _ = consumer_of(engine, tmp_path)
    for n_fits in (1, 2):  # the batch, then its first message alone too
        engine.n_fits = n_fits
        consumer.take([frames(2 * n_fits + k) for k in range(2)])
    assert consumer.intake._metrics.n_rejected == 0
    assert consumer.n_unclosed == 4 * 20
    consumer.close()


def test_messages_that_a_failed_engine_took_are_embedded_after_the_restart(tmp_path: Path) -> None:
    engine = Moody()
    consumer, _ = consumer_of(engine, tmp_path)
    consumer.take([frames(seq) for seq in range(3)])
    engine.broken = True
    with pytest.raises(EngineFailedError):
        consumer.take([frames(seq) for seq in range(3, 6)])
    assert consumer.intake._metrics.n_rejected == 0
    consumer.close(clean=False)
    again, _ = consumer_of(engine, tmp_path)
    with pytest.raises(EngineFailedError):
        again.recover()
    again.close(clean=False)
    engine.broken = False
    last, state = consumer_of(engine, tmp_path)
    last.recover()
    assert last.n_unclosed == 6 * 20
    assert state.sources == {"daq": 6}
    last.close()
