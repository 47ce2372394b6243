"""An alarm whose webhook may not have heard of it is told again by the next start."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.reference_file import ReferenceArtifact
from stream.account import Rules
from stream.alarms import FalseAlarmRate
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.notify import Webhook
from stream.service import Consumer, Keeping
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.tester import Outputs
from stream.tumbling import CountWindows
from tests.support import LinearEngine, small_artifact
from tests.support_state import NOW_NS, events, message
from tests.support_webhook import Receiver, receiving

N_WINDOW = 200


@pytest.fixture(scope="module")
def artifact() -> ReferenceArtifact:
    return small_artifact()


@contextmanager
def consuming(
    folder: Path, artifact: ReferenceArtifact, webhook: Receiver, *, clean: bool = True
) -> Iterator[Consumer]:
    metrics = Metrics()
    state = RunState(folder, {}, metrics, SparseLog(), name="r")
    consumer = Consumer(
        LinearEngine(),
        Monitor(artifact, Rules(FalseAlarmRate.parse("1/hour")), run=state.name),
        CountWindows(N_WINDOW),
        Outputs([Webhook(webhook.url, Counter(), SparseLog())]),
        metrics,
        keeping=Keeping(state),
        now_ns=lambda: NOW_NS,
    )
    consumer.recover()
    yield consumer
    consumer.close(clean=clean)


@pytest.mark.parametrize(
    ("answers", "clean", "n_told"), [(True, True, 1), (True, False, 2), (False, True, 2)]
)
def test_alarm_that_may_not_have_arrived_is_told_again(
    tmp_path: Path,
    artifact: ReferenceArtifact,
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,
    clean: bool,
    n_told: int,
) -> None:
    """Killed, or stopped in order while the webhook hung; not after it had answered."""
    monkeypatch.setattr("stream.notify._LAST_WAIT_S", 5.0 if answers else 0.2)
    signal = np.split(events(N_WINDOW, 0) + np.float32(2.0), 4)
    with receiving() as webhook:
        if not answers:
            webhook.may_answer.clear()
        with consuming(tmp_path, artifact, webhook, clean=clean) as consumer:
            consumer.take([message("a", k, part, k / 4 - 1) for k, part in enumerate(signal)])
        webhook.may_answer.set()
        monkeypatch.setattr("stream.notify._LAST_WAIT_S", 5.0)
        for _ in range(2):
            with consuming(tmp_path, artifact, webhook):
                pass
        assert [body["id"] for body in webhook.bodies] == ["r/1/0"] * n_told
