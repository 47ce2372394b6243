"""Puts the consumer together from its options, and runs it."""

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import zmq

from engines.artifact import check_writable, versions
from engines.engine import Engine
from engines.events import N_FEATURES, N_OBJECTS
from engines.gpu.memory import memory_reader
from engines.reference_file import ReferenceArtifact, load_reference
from engines.windows import WindowSpec
from stream.account import Rules
from stream.alarm.keeper import AlarmFolder
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.assembly.embedder import run_embedder
from stream.assembly.engine import gathered_embeddings, open_serving_engine, test_device, wire_of
from stream.assembly.outputs import open_sinks
from stream.assembly.process import serve, stop_on_signals
from stream.assembly.roles import check_roles
from stream.console import announce, summarise
from stream.delivery.admission import Admission
from stream.delivery.consumer import ReliableDelivery
from stream.delivery.plain import PlainAdmission, SocketReceiver
from stream.exposition import registry_of
from stream.memory_guard import GuardedReceiver, MemoryGuard, default_limit_bytes, read_rss_bytes
from stream.metrics import Metrics
from stream.monitor import Monitor
from stream.priority import let_stream_pass
from stream.security.consumer import ConsumerSecurity
from stream.sequence import SequenceTracker
from stream.service import Consumer, Keeping, Limits
from stream.sliding import held_bytes, open_windows, panes_per_window
from stream.sparse_log import SparseLog
from stream.stages import DURATIONS, Stages
from stream.state.begin import begin_state, new_name
from stream.state.run import RunState
from stream.tester import Outputs
from stream.timings import Timings

__all__ = ["run_consumer"]


def run_consumer(options: argparse.Namespace) -> None:
    """Consume until a signal says stop, or with `--exit-on-end` until the sources have ended.

    Raises:
        ParameterError: if options do not go together.
    """
    check_roles(options)
    stopped = stop_on_signals()
    let_stream_pass()
    if options.role == "embed":
        run_embedder(options, stopped.is_set)
        return
    rules = Rules(
        FalseAlarmRate.parse(options.far),
        options.alarm_on,
        options.refractory,
        options.fdr,
        options.fdr_method,
        time.monotonic,
    )
    timings = _timings(options)
    metrics = Metrics(Stages(timings))
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        security = stack.enter_context(ConsumerSecurity(options, context))
        registry = registry_of(metrics)
        security.register(registry)
        page = serve(stack, options.http, registry, security)
        engine = open_serving_engine(options, metrics) if options.role == "all" else None
        reference = options.reference or options.engine.with_suffix(".ref")
        artifact = load_reference(
            reference,
            device=test_device(options.device),
            threads=options.test_threads,
        )
        engine = stack.enter_context(engine or gathered_embeddings(artifact, options.max_batch))
        artifact.check_engine(engine)
        _label(metrics, engine, artifact, rules.far)
        if options.device.startswith("cuda") or engine.runtime.startswith("TensorRT"):
            metrics.gpu_memory = memory_reader(options.device)
        n_panes = _n_panes(options, artifact)
        limit_bytes = _memory_limit(options, artifact)
        state = begin_state(options, artifact, rules, n_panes, metrics, stopped.is_set)
        line = _line(options, state, metrics)
        outputs = Outputs(
            open_sinks(options, security, metrics),
            AlarmFolder(options.alarms, NullUsed.of(artifact, reference))
            if options.alarms is not None
            else None,
        )
        monitor = Monitor(
            artifact,
            rules,
            n_relabellings=options.relabellings,
            n_panes=n_panes,
            run=new_name() if state is None else state.name,
        )
        consumer = Consumer(
            engine,
            monitor,
            open_windows(artifact.facts.window, n_panes),
            outputs,
            metrics,
            limits=Limits(
                options.max_batch, options.max_delay, options.max_waiting, tests=options.tests
            ),
            keeping=Keeping(state, line.admission, wire_of(engine, options.max_message_events)),
        )
        ended, receiver = False, None
        try:
            consumer.recover()
            # Not before: nobody would look after what peers fill it with.
            guard = security.open_receiver(options.endpoint, _pattern(options), limit_bytes)
            stack.callback(guard.close)
            receiver = _guarded(line, guard, state)
            announce(options, engine, artifact, rules.far, state)
            _spare_collector()
            page.show(partial(consumer.snapshot, artifact.facts, rules.far.text), consumer.faults)
            consumer.run(receiver, stopped.is_set, exit_on_end=options.exit_on_end)
            ended = True
            if timings is not None:
                timings.stop()
        finally:
            consumer.close(clean=ended, look=None if receiver is None else receiver.look)
            line.finish()
        summarise(metrics, consumer)
        if timings is not None:
            timings.save(**_outcome(metrics, engine))


def _spare_collector() -> None:
    """Keep the garbage collector from what is loaded and stays: it takes 0.2 s to go through it."""
    gc.collect()
    gc.freeze()


def _timings(options: argparse.Namespace) -> Timings | None:
    if options.timings is None:
        return None
    check_writable(options.timings)
    return Timings(options.timings, DURATIONS, options.timings_skip)


def _label(
    metrics: Metrics, engine: Engine, artifact: ReferenceArtifact, far: FalseAlarmRate
) -> None:
    """Let the metrics say what runs."""
    metrics.describe(artifact, far)
    metrics.build = {
        "version": versions()["nplm-stream"],
        "engine": engine.fingerprint,
        "runtime": engine.runtime,
        "reference_created": artifact.facts.created,
        "window": str(artifact.facts.window),
    }


@dataclass(frozen=True)
class _Line:
    """How messages come.

    Attributes:
        receiver: where from, once it has its socket.
        admission: which of them count.
        finish: to be called when everything is on the disk.
    """

    receiver: SocketReceiver | ReliableDelivery
    admission: Admission
    finish: Callable[[], None] = lambda: None


def _line(options: argparse.Namespace, state: RunState | None, metrics: Metrics) -> _Line:
    if options.reliable and state is not None:
        delivery = ReliableDelivery(state, metrics, SparseLog(), max_sources=options.max_sources)
        return _Line(delivery, delivery, delivery.finish)
    return _Line(SocketReceiver(), PlainAdmission(SequenceTracker(options.max_sources), state))


def _guarded(line: _Line, guard: MemoryGuard, state: RunState | None) -> GuardedReceiver:
    """Return where messages come from; the guard looks while the disk holds them up, too."""
    receiver = GuardedReceiver(line.receiver, guard)
    if state is not None:
        state.while_waiting(receiver.look)
    return receiver


def _pattern(options: argparse.Namespace) -> str:
    return "router" if options.reliable else options.pattern


def _memory_limit(options: argparse.Namespace, artifact: ReferenceArtifact) -> int:
    """Return the resident memory that this consumer may rightly need, and some more."""
    basis = artifact.reference.basis
    event_bytes = 4 * N_OBJECTS * N_FEATURES + 4 * basis.dim + 8 * basis.rank
    held = held_bytes(artifact.facts.window, options.max_waiting, event_bytes)
    return default_limit_bytes(read_rss_bytes(), held)


def _n_panes(options: argparse.Namespace, artifact: ReferenceArtifact) -> int:
    """Return how many steps a window holds, of the windows that the reference is calibrated for."""
    calibrated = artifact.facts.window
    if options.window is not None:
        rate_hz = options.rate or calibrated.n_expected / (calibrated.span_s or 1.0)
        artifact.check_window(WindowSpec.parse(options.window, rate_hz))
    artifact.reference.prepare()
    return panes_per_window(calibrated, options.slide) if options.slide else 1


def _outcome(metrics: Metrics, engine: Engine) -> dict[str, object]:
    """Return what a measurement wants to know beside the timings."""
    return {
        "engine": engine.runtime,
        "n_events": metrics.n_events,
        "n_messages": metrics.n_messages,
        "n_rejected": metrics.n_rejected,
        "n_missing": metrics.n_missing,
        "windows": {name: metrics.windows[name] for name in ("tested", "skipped")},
    }
