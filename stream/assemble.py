"""Puts the consumer together from its options, and runs it."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import zmq
from prometheus_client import CollectorRegistry

from engines.artifact import check_writable, versions
from engines.engine import Engine, open_engine
from engines.errors import (
    ArtifactError,
    EngineUnavailableError,
    MismatchError,
    MissingPackageError,
    ParameterError,
)
from engines.gpu.memory import memory_reader
from engines.nplm import check_device
from engines.plans.plan_file import PlanFacts, read_plan_facts
from engines.reference_file import ReferenceArtifact, load_reference
from engines.windows import WindowSpec
from stream.account import Rules
from stream.alarm.keeper import AlarmFolder
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.console import announce, summarise
from stream.endpoints import Context, open_publisher, open_receiver
from stream.exposition import registry_of
from stream.metrics import Metrics, Queue
from stream.monitor import Monitor
from stream.notify import Webhook
from stream.page import Page, parse_address
from stream.priority import let_stream_pass
from stream.results import JsonLines, Publisher, Sink, Table
from stream.service import Consumer, Limits
from stream.sliding import open_windows, panes_per_window
from stream.sparse_log import SparseLog
from stream.stages import DURATIONS, Stages
from stream.tester import Outputs
from stream.timings import Timings

__all__ = ["run_consumer"]

_LOG = logging.getLogger(__name__)


def run_consumer(options: argparse.Namespace) -> None:
    """Consume until a signal says stop, or with `--exit-on-end` until the sources have ended."""
    stopped = _stop_on_signals()
    let_stream_pass()
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
        page = _serve(stack, options.http, registry_of(metrics))
        engine = stack.enter_context(_open_engine(options, metrics))
        reference = options.reference or options.engine.with_suffix(".ref")
        artifact = load_reference(
            reference,
            device=_test_device(options.device),
            threads=options.test_threads,
        )
        artifact.check_engine(engine)
        _label(metrics, engine, artifact, rules.far)
        if options.device.startswith("cuda") or engine.runtime.startswith("TensorRT"):
            metrics.gpu_memory = memory_reader(options.device)
        null = NullUsed.of(artifact, reference)
        consumer = _consumer(options, engine, artifact, rules, null, metrics, context)
        socket = stack.enter_context(open_receiver(context, options.endpoint, options.pattern))
        announce(options, engine, artifact, rules.far)
        page.snapshot = partial(consumer.snapshot, artifact.facts, rules.far.text)
        try:
            consumer.run(socket, stopped.is_set, exit_on_end=options.exit_on_end)
            if timings is not None:
                timings.stop()
        finally:
            consumer.close()
        summarise(metrics, consumer.n_unclosed)
        if timings is not None:
            timings.save(**_outcome(metrics, engine))


def _stop_on_signals() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _timings(options: argparse.Namespace) -> Timings | None:
    if options.timings is None:
        return None
    check_writable(options.timings)
    return Timings(options.timings, DURATIONS, options.timings_skip)


def _serve(stack: ExitStack, address: str, registry: CollectorRegistry) -> Page:
    """Serve HTTP from the start, so that /readyz can say that something is still missing."""
    page = Page(registry)
    if address != "off":
        server = page.serve(*parse_address(address))
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
    return page


def _open_engine(options: argparse.Namespace, metrics: Metrics) -> Engine:
    """Open the engine; with `--fallback` the ONNX file beside it where this machine cannot run it.

    Raises:
        EngineUnavailableError: if it cannot run, and there is nothing to fall back to.
        MissingPackageError: likewise.
        MismatchError: if the ONNX file is another encoder than the plan's.
    """
    threads, max_batch = options.threads, options.max_batch
    try:
        return open_engine(
            options.engine, device=options.device, threads=threads, max_batch=max_batch
        )
    except (EngineUnavailableError, MissingPackageError) as exc:
        if not options.fallback or options.engine.suffix != ".plan":
            raise
        plan = read_plan_facts(options.engine)
        other = options.engine.with_name(Path(plan.onnx).name)
        if not other.is_file():
            raise
        engine = open_engine(other, threads=threads, max_batch=max_batch)
        _check_same(engine, plan, other)
        metrics.fallback = True
        _LOG.warning("%s; falling back to %s on %s", exc, other, engine.runtime)
        return engine


def _check_same(engine: Engine, plan: PlanFacts, path: Path) -> None:
    if engine.fingerprint != plan.fingerprint:
        msg = (
            f"{path} must be the encoder that the plan was made from, {plan.fingerprint}; it is "
            f"{engine.fingerprint}; copy the right one beside the plan"
        )
        raise MismatchError(msg)


def _test_device(wanted: str) -> str:
    """Return where windows are tested: on the CPU where torch finds no GPU but the engine runs."""
    try:
        check_device(wanted)
    except ParameterError as exc:
        if not wanted.startswith("cuda"):
            raise
        _LOG.warning("windows are tested on the CPU: %s", exc)
        return "cpu"
    return wanted


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


def _consumer(
    options: argparse.Namespace,
    engine: Engine,
    artifact: ReferenceArtifact,
    rules: Rules,
    null: NullUsed,
    metrics: Metrics,
    context: Context,
) -> Consumer:
    spec = _window(options, artifact.facts.window)
    artifact.check_window(spec)
    artifact.reference.prepare()
    n_panes = panes_per_window(spec, options.slide) if options.slide else 1
    monitor = Monitor(
        artifact,
        rules,
        n_relabellings=options.relabellings,
        n_panes=n_panes,
        run=f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}",
    )
    return Consumer(
        engine,
        monitor,
        open_windows(spec, n_panes),
        Outputs(
            _sinks(options, context, metrics),
            AlarmFolder(options.alarms, null) if options.alarms is not None else None,
        ),
        metrics,
        n_expected=spec.n_expected,
        limits=Limits(
            options.max_batch, options.max_delay, options.max_waiting, tests=options.tests
        ),
    )


def _window(options: argparse.Namespace, calibrated: WindowSpec) -> WindowSpec:
    if options.window is None:
        return calibrated
    rate_hz = options.rate or calibrated.n_expected / (calibrated.span_s or 1.0)
    return WindowSpec.parse(options.window, rate_hz)


def _sinks(options: argparse.Namespace, context: Context, metrics: Metrics) -> list[Sink]:
    if options.alarms is not None:
        try:
            options.alarms.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"cannot keep alarms in {options.alarms} ({exc}); choose another folder"
            raise ArtifactError(msg) from exc
    sinks: list[Sink] = []
    if options.results is not None:
        sinks.append(JsonLines(options.results))
    if options.publish is not None:
        sinks.append(Publisher(open_publisher(context, options.publish)))
    if options.notify is not None:
        webhook = Webhook(options.notify, metrics.notifications, SparseLog())
        metrics.queues["notifications"] = Queue(lambda: webhook.n_waiting, webhook.capacity)
        sinks.append(webhook)
    sinks.append(Table(sys.stdout))
    return sinks


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
