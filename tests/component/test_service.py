"""The consumer's work on real messages, windows and a real reference; the encoder is a stand-in."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import msgpack
import numpy as np
import pytest

from engines.event_files import EventFile
from engines.nplm import Features, z_score
from engines.reference_file import ReferenceArtifact
from engines.types import FloatArray
from stream.account import Rules
from stream.alarm.keeper import AlarmFolder
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.delivery.plain import SocketReceiver
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.exposition import registry_of
from stream.header import Frame
from stream.message import encode_message
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.sender import Sender
from stream.service import NOTHING_KEPT, Consumer, Keeping, Limits
from stream.sliding import open_windows
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import StateStore
from stream.tester import Outputs
from stream.tumbling import CountWindows, TimeWindows
from stream.window import Windows
from stream.window_result import WindowResult
from tests.support import LinearEngine, gaussians, small_artifact, window_spec

Track: TypeAlias = Callable[[Socket], Socket]

NOW_NS = 1_800_000_000 * 10**9
N_WINDOW = 200
PER_MESSAGE = 20
CURSED_GEV = 666.0


@pytest.fixture(scope="module")
def artifact() -> ReferenceArtifact:
    return small_artifact()


@dataclass
class Recorder:
    """Keeps results; may fail as a full disk does."""

    results: list[WindowResult] = field(default_factory=list)
    fails: bool = False
    closed: bool = False

    def write(self, result: WindowResult) -> None:
        if self.fails:
            msg = "no space left on device"
            raise OSError(msg)
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


@dataclass
class Setup:
    consumer: Consumer
    metrics: Metrics
    recorder: Recorder
    alarms: Path

    def count(self, name: str, **labels: str) -> float:
        found = registry_of(self.metrics).get_sample_value(f"nplm_stream_{name}_total", labels)
        assert found is not None, name
        return found

    def sample(self, name: str, **labels: str) -> float:
        found = registry_of(self.metrics).get_sample_value(f"nplm_stream_{name}", labels)
        assert found is not None, name
        return found

    def refused(self, reason: str) -> float:
        return self.count("rejected_messages", reason=reason)

    def tested_ids(self) -> list[tuple[str, int, int, int, int]]:
        spans = [span for result in self.recorder.results for span in result.spans]
        return [(s.source, s.first_seq, s.first_event, s.last_seq, s.stop_event) for s in spans]


def cursed(particles: FloatArray) -> FloatArray:
    return np.asarray(particles[:, 0, 0] == CURSED_GEV, dtype=np.float32)


@contextmanager
def opened(
    artifact: ReferenceArtifact,
    folder: Path,
    windows: Windows,
    *,
    n_relabellings: int = 0,
    n_panes: int = 1,
    limits: Limits | None = None,
    keeping: Keeping | None = None,
) -> Iterator[Setup]:
    rules = Rules(FalseAlarmRate.parse("1/hour"))
    metrics, recorder = Metrics(), Recorder()
    consumer = Consumer(
        LinearEngine(refuse=cursed),
        Monitor(artifact, rules, n_relabellings=n_relabellings, n_panes=n_panes, run="r"),
        windows,
        Outputs([recorder], AlarmFolder(folder / "alarms", NullUsed.of(artifact, Path("d4.ref")))),
        metrics,
        limits=limits or Limits(max_waiting=100),
        now_ns=lambda: NOW_NS,
        keeping=keeping or NOTHING_KEPT,
    )
    yield Setup(consumer, metrics, recorder, folder / "alarms")
    consumer.close()


@pytest.fixture
def setup(artifact: ReferenceArtifact, tmp_path: Path) -> Iterator[Setup]:
    with opened(artifact, tmp_path, CountWindows(N_WINDOW)) as made:
        yield made


def particles_of(embeddings: FloatArray) -> FloatArray:
    particles = np.zeros((len(embeddings), 19, 3), np.float32)
    particles[:, 0, 0], particles[:, 1:5, 0] = 50.0, 20.0
    particles[:, 1:5, 1] = embeddings
    return particles


def good(seq: int, n: int = PER_MESSAGE, source: str = "detector") -> list[bytes]:
    embeddings = gaussians(n, np.random.default_rng(seq))
    t_ns = NOW_NS - 10**10 + seq * 10**6
    return encode_message(source, seq, t_ns, particles_of(embeddings))


def changed(frames: list[bytes], **fields: object) -> list[bytes]:
    return [msgpack.packb({**msgpack.unpackb(frames[0]), **fields}), frames[1]]


def with_value(frames: list[bytes], value: float) -> list[bytes]:
    payload = np.frombuffer(frames[1], np.float32).copy()
    payload[100] = value
    return [frames[0], payload.tobytes()]


BAD: dict[str, tuple[str, Callable[[int], list[bytes]]]] = {
    "garbage": ("header-format", lambda _: [b"\xc1garbage", b"x"]),
    "one frame": ("frames", lambda _: [b"hello"]),
    "three frames": ("frames", lambda seq: [*good(seq), b""]),
    "no frames": ("frames", lambda _: []),
    "version": ("version", lambda seq: changed(good(seq), v=2)),
    "short payload": ("payload-size", lambda seq: [good(seq)[0], good(seq)[1][:-1]]),
    "huge size": ("too-many-events", lambda seq: changed(good(seq), n=10**9, shape=[10**9, 19, 3])),
    "huge header": ("header-size", lambda _: [b"\x00" * 5000, b""]),
    "dtype": ("dtype", lambda seq: changed(good(seq), dtype="<f8")),
    "object dtype": ("dtype", lambda seq: changed(good(seq), dtype="O")),
    "nan": ("non-finite", lambda seq: with_value(good(seq), np.nan)),
    "infinity": ("non-finite", lambda seq: with_value(good(seq), np.inf)),
    "negative pt": ("negative-pt", lambda seq: [
        good(seq)[0], np.full((PER_MESSAGE, 19, 3), -1, np.float32).tobytes()]),
    "shape": ("shape", lambda seq: changed(good(seq), shape=[PER_MESSAGE, 3, 19])),
    "type": ("wrong-type", lambda seq: changed(good(seq), seq="1")),
    "clock behind": ("clock", lambda seq: changed(good(seq), t_ns=0)),
    "leap": ("leap", lambda _: changed(good(0), seq=2**64 - 1)),
    "clock ahead": ("clock", lambda seq: changed(good(seq), t_ns=NOW_NS + 61 * 10**9)),
    "repeated": ("repeated", lambda _: good(0)),
    "encoder": ("embedding", lambda seq: encode_message(
        "detector", seq, NOW_NS, np.full((1, 19, 3), CURSED_GEV, np.float32))),
}  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
@pytest.mark.parametrize("name", BAD)
def test_bad_message_is_counted_and_the_stream_goes_on(
    setup: Setup, name: str, together: bool
) -> None:
    reason, make = BAD[name]
    received = [*map(good, range(10)), make(10), *map(good, range(11, 25))]
    for batch in [received] if together else [[frames] for frames in received]:
        setup.consumer.take(batch)
    setup.consumer.close()
    assert setup.refused(reason) == 1
    assert setup.metrics.n_rejected == 1
    assert setup.metrics.n_events == setup.count("events") == 24 * PER_MESSAGE
    assert setup.metrics.windows["tested"] == setup.count("windows", outcome="tested") == 2
    assert setup.consumer.n_unclosed == 80
    # Message 10 is in neither window; the second goes on after it.
    assert setup.tested_ids() == [("detector", 0, 0, 9, 20), ("detector", 11, 0, 20, 20)]
    assert all(result.n_events == N_WINDOW for result in setup.recorder.results)


def test_all_that_is_bad_at_once(setup: Setup) -> None:
    setup.consumer.take([good(0)])
    for _, make in BAD.values():
        setup.consumer.take([make(1)])
    assert setup.metrics.n_rejected == len(BAD)
    assert setup.metrics.n_events == PER_MESSAGE
    total = sum(setup.refused(reason) for reason in {reason for reason, _ in BAD.values()})
    assert total == len(BAD)


def test_missing_messages_are_counted(setup: Setup) -> None:
    setup.consumer.take([good(seq) for seq in (3, 4, 8)])
    setup.consumer.take([good(9), good(7, source="other"), good(12)])
    assert setup.metrics.n_missing == setup.count("missing_messages") == 5
    assert setup.metrics.n_messages == setup.count("messages") == 6
    assert setup.metrics.n_events == 6 * PER_MESSAGE


def test_windows_hold_the_embeddings_as_they_came(
    setup: Setup, artifact: ReferenceArtifact
) -> None:
    setup.consumer.take([good(seq) for seq in range(20)])
    setup.consumer.close()
    stream = np.concatenate([gaussians(20, np.random.default_rng(seq)) for seq in range(20)])
    wanted = [
        float(artifact.reference.test(stream[first : first + N_WINDOW]).t[0]) for first in (0, 200)
    ]
    assert [result.t for result in setup.recorder.results] == wanted


def test_features_are_computed_once_a_micro_batch(setup: Setup) -> None:
    for first in (0, 5, 10):
        setup.consumer.take([good(seq) for seq in range(first, first + 5)])
    setup.consumer.close()
    seen = registry_of(setup.metrics).get_sample_value("nplm_stream_features_seconds_count")
    assert seen in (2, 3)  # the batch of the open window may still have waited
    assert setup.metrics.windows["tested"] == 1


def test_features_that_fail_cost_their_windows_and_no_more(
    setup: Setup, artifact: ReferenceArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    def compute(embeddings: FloatArray) -> Features:
        if len(embeddings) == 5 * PER_MESSAGE:
            msg = "no features for this batch"
            raise ArithmeticError(msg)
        return artifact.reference.features(embeddings)

    setup.consumer._featuriser._compute = compute
    setup.consumer.take([good(seq) for seq in range(5)])
    for seq in range(5, 30):
        setup.consumer.take([good(seq)])
    setup.consumer.close()
    assert setup.count("windows", outcome="failed") == 1
    assert setup.count("windows", outcome="tested") == 2
    assert [result.window for result in setup.recorder.results] == [1, 2]
    assert "the test of window 0 failed" in caplog.text
    assert "no features for this batch" in caplog.text


def test_windows_slide_over_the_stream(artifact: ReferenceArtifact, tmp_path: Path) -> None:
    windows = open_windows(artifact.facts.window, 4)
    with opened(artifact, tmp_path, windows, n_panes=4) as setup:
        setup.consumer.take([good(seq) for seq in range(16)])
        setup.consumer.close()
    stream = np.concatenate([gaussians(20, np.random.default_rng(seq)) for seq in range(16)])
    firsts = (0, 50, 100)
    wanted = [artifact.reference.test(stream[i : i + N_WINDOW]).t[0] for i in firsts]
    results = setup.recorder.results
    assert [result.t for result in results] == pytest.approx(wanted, abs=1e-3)
    assert {result.overlap for result in results} == {0.75}
    assert setup.consumer.n_unclosed == 20


def test_longer_scales_are_told_to_every_output(tmp_path: Path) -> None:
    artifact = small_artifact(scales=(2, 3))
    with opened(artifact, tmp_path, CountWindows(N_WINDOW)) as setup:
        setup.metrics.describe(artifact, FalseAlarmRate.parse("1/hour"))
        setup.consumer.take([good(seq) for seq in range(60)])
        setup.consumer.close()
    found = [(result.scale, result.window) for result in setup.recorder.results]
    assert setup.sample("queue_length", queue="tests") == 0
    assert found == [(1, 0), (1, 1), (2, 0), (1, 2), (3, 0), (1, 3), (2, 1), (1, 4), (1, 5),
                     (2, 2), (3, 1)]  # fmt: skip
    assert setup.metrics.windows["tested"] == 6
    assert setup.count("merged_windows", scale="2") == 3
    assert setup.count("broken_runs", scale="3") == 0
    stream = np.concatenate([gaussians(20, np.random.default_rng(seq)) for seq in range(60)])
    sums = artifact.reference.sums([artifact.reference.features(stream[:600])])
    (three, *_) = [result for result in setup.recorder.results if result.scale == 3]
    wanted = artifact.reference.test_sums(sums[None], scale=3)[0]
    assert three.t == pytest.approx(wanted[0], abs=1e-3)
    shown = setup.consumer.snapshot(artifact.facts, "1/hour")
    assert isinstance(shown["windows"], list)
    assert isinstance(shown["merged"], list)
    assert len(shown["windows"]) == 6
    assert [line["scale"] for line in shown["merged"]] == [2, 3]


def test_encoder_that_fails_on_one_message_refuses_that_one(setup: Setup) -> None:
    cursed = np.full((2, 19, 3), CURSED_GEV, np.float32)
    batch = [good(0), encode_message("detector", 1, NOW_NS, cursed), good(2)]
    setup.consumer.take(batch)
    assert setup.refused("embedding") == setup.metrics.n_rejected == 1
    assert setup.metrics.n_events == 2 * PER_MESSAGE


def test_fill_and_latency_are_shown(setup: Setup) -> None:
    setup.consumer.take([good(0), good(1)])
    sample = registry_of(setup.metrics).get_sample_value
    assert sample("nplm_stream_window_fill_events") == 40
    assert sample("nplm_stream_window_fill_ratio") == pytest.approx(0.2)
    assert sample("nplm_stream_event_latency_seconds_count") == 2
    assert sample("nplm_stream_event_latency_seconds_sum") == pytest.approx(20 - 0.001, abs=0.1)
    assert sample("nplm_stream_embedding_seconds_count") == 1


def signal(seq: int) -> list[bytes]:
    embeddings = gaussians(PER_MESSAGE, np.random.default_rng(seq)) + 2.0
    return encode_message("detector", seq, NOW_NS - 10**10 + seq * 10**8, particles_of(embeddings))


def test_alarm_is_kept_with_its_events(setup: Setup) -> None:
    setup.consumer.take([signal(seq) for seq in range(10)])
    setup.consumer.close()
    assert setup.metrics.scales[1].n_alarms == setup.count("alarms", scale="1") == 1
    (path,) = setup.alarms.iterdir()
    with EventFile(path) as events:
        assert len(events) == N_WINDOW


def test_alarm_is_confirmed_by_relabelling(artifact: ReferenceArtifact, tmp_path: Path) -> None:
    with opened(artifact, tmp_path, CountWindows(N_WINDOW), n_relabellings=19) as setup:
        setup.consumer.take([signal(seq) for seq in range(10)])
        setup.consumer.close()
    (result,) = setup.recorder.results
    assert (result.alarm, result.p_relabelled, result.n_relabellings) == (True, 0.05, 19)
    shown = registry_of(setup.metrics).get_sample_value("nplm_stream_alarm_relabelled_p_value")
    assert shown == 0.05


def test_backlog_and_stop_leave_alarms_unconfirmed(
    artifact: ReferenceArtifact, tmp_path: Path, context: Context, track: Track
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    for setting in ("backlog", "stop"):
        with opened(artifact, tmp_path, CountWindows(N_WINDOW), n_relabellings=19) as setup:
            if setting == "backlog":
                setup.consumer._limits = Limits(max_waiting=-2)  # as if too many waited
            else:
                setup.consumer.run(SocketReceiver(pull), lambda: True)
            setup.consumer.take([signal(seq) for seq in range(10)])
            setup.consumer.close()
        (result,) = setup.recorder.results
        assert (result.alarm, result.n_relabellings) == (True, 0), setting


def test_full_disk_does_not_end_the_stream(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.recorder.fails = True
    setup.alarms.write_text("a file where the folder should be")
    setup.consumer.take([signal(seq) for seq in range(20)])
    setup.consumer.close()
    assert setup.metrics.windows["tested"] == 2
    assert setup.count("windows", outcome="failed") == 0
    assert "alarm not kept" in caplog.text
    assert "result not written to Recorder" in caplog.text
    assert setup.recorder.closed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_that_end_are_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> NoReturn:
        raise SystemExit

    consumer = setup.consumer
    assert consumer.faults() == []
    monkeypatch.setattr(consumer.tester, "examine", leave)
    consumer.take([good(seq) for seq in range(N_WINDOW // PER_MESSAGE)])
    consumer._runner._thread.join(20.0)
    assert consumer.faults() == ["the test of windows"]
    consumer._featuriser._compute = leave
    consumer.take([good(50)])
    consumer._featuriser._thread.join(20.0)
    assert consumer.faults() == ["the test of windows", "the features of events"]
    consumer.close()
    assert consumer.faults() == []  # they are to end


def test_snapshot_is_what_the_page_shows(setup: Setup, artifact: ReferenceArtifact) -> None:
    setup.consumer.take([good(seq) for seq in range(15)])
    setup.consumer.close()
    shown = setup.consumer.snapshot(artifact.facts, "1/hour")
    assert (shown["events"], shown["fill"], shown["far"]) == (300, 0.5, "1/hour")
    assert shown["calibrated_on"] == artifact.facts.calibration()
    (window,) = setup.consumer.tester.recent
    assert isinstance(shown["windows"], list)
    assert shown["windows"][0]["threshold_z"] == z_score(window.threshold_p)
    assert shown["merged"] == []


def test_run_takes_what_comes_until_every_source_has_ended(
    setup: Setup, context: Context, track: Track, tmp_path: Path
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    endpoint = bound_endpoint(pull)
    senders = [
        Sender(track(open_sender(context, endpoint)), endpoint, name, timeout_s=20) for name in "ab"
    ]
    rng = np.random.default_rng(0)
    for _, sender in itertools.product(range(15), senders):
        sender.send(particles_of(gaussians(PER_MESSAGE, rng)))
    for sender in senders:
        sender.send_end()
    setup.consumer.intake._now_ns = time.time_ns  # the senders stamp the real time
    setup.consumer.run(SocketReceiver(pull), lambda: False, exit_on_end=True)
    setup.consumer.close()
    assert setup.metrics.n_events == 600
    assert setup.metrics.n_rejected == setup.metrics.n_missing == 0
    assert setup.metrics.windows["tested"] + setup.metrics.windows["skipped"] == 3


def test_stop_still_takes_what_has_arrived(
    setup: Setup, context: Context, track: Track, tmp_path: Path
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    push = track(open_sender(context, bound_endpoint(pull)))
    for seq in range(12):
        push.send_multipart(good(seq))
    assert pull.poll(20_000)
    setup.consumer.run(SocketReceiver(pull), lambda: True)
    setup.consumer.close()
    assert setup.metrics.n_events > 0
    assert setup.metrics.n_missing == 0


def test_messages_are_on_the_disk_before_the_last_windows_are_tested(
    artifact: ReferenceArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may take a minute at the end, and producers wait to be told."""
    state = RunState(tmp_path / "state", {}, Metrics(), SparseLog(), name="r")
    write = StateStore.write

    def write_slowly(store: StateStore, *words: Any, **names: Any) -> None:  # noqa: ANN401
        time.sleep(0.2)
        write(store, *words, **names)

    monkeypatch.setattr(StateStore, "write", write_slowly)
    left: list[list[Frame]] = [[*good(seq)] for seq in range(3)]

    class Few:
        def receive(self, wait_ms: int) -> list[Frame] | None:
            time.sleep(0 if left else wait_ms / 1e3)
            return left.pop(0) if left else None

    windows = CountWindows(N_WINDOW)
    with opened(artifact, tmp_path, windows, keeping=Keeping(state)) as setup:
        setup.consumer.run(Few(), lambda: not left)
        assert setup.metrics.n_messages == 3
        assert state.n_bytes == 0
        assert state.durable() == {"detector": 3}


def test_trouble_is_logged_once_a_minute_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    ticks = iter((0.0, 1.0, 59.0, 59.0, 60.0))
    sparse = SparseLog(clock=lambda: next(ticks))
    with caplog.at_level(logging.WARNING):
        for kind in ("nan", "nan", "nan", "other", "nan"):
            sparse.log(kind, "a message")
    assert [record.getMessage() for record in caplog.records] == [
        "nan: a message",
        "other: a message",
        "nan: a message (and 2 more since the last such line)",
    ]


@pytest.mark.parametrize(("n", "warned"), [(5, False), (50, True)])
def test_messages_too_large_for_time_windows_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n: int, warned: bool
) -> None:
    by_time = small_artifact(window_spec("time", N_WINDOW), n_toys=9)
    with opened(by_time, tmp_path, TimeWindows(10**9)) as setup:
        setup.consumer.take([good(seq, n) for seq in range(3)])
    assert ("Poisson only if messages are of at most about 7" in caplog.text) == warned
    assert caplog.text.count("large message") <= 1


def test_windows_that_a_flood_fills_are_cut_and_do_not_alarm(tmp_path: Path) -> None:
    by_time = small_artifact(window_spec("time", N_WINDOW), n_toys=9)

    def sent(seq: int, passed_s: float) -> list[bytes]:
        return changed(good(seq), t_ns=NOW_NS - 10**10 + round(passed_s * 1e9))

    flood = [sent(seq, 0.001 * seq) for seq in range(150)]
    calm = [sent(seq, 1.1 + (seq - 150) / 10) for seq in range(150, 175)]
    with opened(by_time, tmp_path, open_windows(by_time.facts.window)) as setup:
        for frames in (*flood, *calm):
            setup.consumer.take([frames])
        setup.consumer.close()
    full, rest, *others = setup.recorder.results
    assert (full.n_events, full.complete, full.alarm) == (10 * N_WINDOW, False, False)
    assert (rest.n_events, rest.complete, rest.alarm) == (5 * N_WINDOW, False, False)
    assert all(one.complete for one in others)
    assert [one.trials for one in (full, rest, *others)][-1] == len(others)
    assert setup.metrics.n_rejected == 0


def test_micro_batch_closes_when_it_is_full(artifact: ReferenceArtifact, tmp_path: Path) -> None:
    limits = Limits(max_batch=3 * PER_MESSAGE, max_waiting=100)
    with opened(artifact, tmp_path, CountWindows(N_WINDOW), limits=limits) as setup:
        setup.consumer.take([good(seq) for seq in range(8)])
        setup.consumer.close()
    assert setup.sample("embedding_seconds_count") == 3
    assert setup.metrics.n_events == 8 * PER_MESSAGE


def test_micro_batch_closes_at_its_deadline(
    artifact: ReferenceArtifact, tmp_path: Path, context: Context, track: Track
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    push = track(open_sender(context, bound_endpoint(pull)))
    limits = Limits(max_delay_s=0.2)
    with opened(artifact, tmp_path, CountWindows(N_WINDOW), limits=limits) as setup:
        push.send_multipart(good(0))
        assert pull.poll(20_000)
        started = time.perf_counter()
        setup.consumer.intake.gather(SocketReceiver(pull), limits.max_delay_s)
        waited_s = time.perf_counter() - started
        setup.consumer.close()
    assert waited_s >= 0.19
    assert setup.metrics.n_events == PER_MESSAGE
    assert setup.sample("stage_seconds_sum", stage="wait") == pytest.approx(waited_s, abs=0.02)


def test_messages_that_wait_are_taken_together(
    artifact: ReferenceArtifact, tmp_path: Path, context: Context, track: Track
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    push = track(open_sender(context, bound_endpoint(pull)))
    with opened(artifact, tmp_path, CountWindows(N_WINDOW)) as setup:
        for seq in range(6):
            push.send_multipart(good(seq))
        assert pull.poll(20_000)
        setup.consumer.intake.gather(SocketReceiver(pull), 1.0)
        setup.consumer.close()
    assert setup.metrics.n_events == 6 * PER_MESSAGE
    assert setup.sample("embedding_seconds_count") == 1


def test_memory_comes_back_when_windows_let_go(setup: Setup) -> None:
    for first in range(0, 6000, 30):
        setup.consumer.take([good(seq) for seq in range(first, first + 30)])
        while setup.consumer._runner.n_waiting > 1:
            time.sleep(0.001)
    setup.consumer.close()
    memory = setup.consumer.intake._batch._memory
    assert setup.metrics.n_events == 6000 * PER_MESSAGE
    assert memory.n_slabs <= 4  # 15 slabs' worth of events have passed


def test_without_tests_events_are_embedded_and_forgotten(
    artifact: ReferenceArtifact, tmp_path: Path
) -> None:
    limits = Limits(tests=False)
    with opened(artifact, tmp_path, CountWindows(N_WINDOW), limits=limits) as setup:
        setup.consumer.take([good(seq) for seq in range(30)])
        setup.consumer.close()
    assert setup.metrics.n_events == 30 * PER_MESSAGE
    assert setup.metrics.windows["tested"] == setup.consumer.n_unclosed == 0


@pytest.mark.parametrize("delay_s", [0.0005, 0.002, 0.0073])
def test_deadline_is_kept_below_a_millisecond_too(
    artifact: ReferenceArtifact, tmp_path: Path, context: Context, track: Track, delay_s: float
) -> None:
    pull = track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))
    push = track(open_sender(context, bound_endpoint(pull)))
    waited_s = []
    with opened(artifact, tmp_path, CountWindows(N_WINDOW)) as setup:
        for seq in range(8):
            push.send_multipart(good(seq))
            assert pull.poll(20_000)
            started = time.perf_counter()
            assert setup.consumer.intake.gather(SocketReceiver(pull), delay_s)
            waited_s.append(time.perf_counter() - started)
        setup.consumer.close()
    assert min(waited_s) >= delay_s
    assert setup.metrics.n_events == 8 * PER_MESSAGE
