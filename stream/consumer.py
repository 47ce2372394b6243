"""Command: the main job. Events in over ZeroMQ, significance out."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, positive_float, positive_int, run_command

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from engines.engine import Engine
    from engines.reference_file import ReferenceArtifact
    from engines.windows import WindowSpec
    from stream.endpoints import Context
    from stream.metrics import Metrics
    from stream.page import Page
    from stream.results import Sink

__all__ = ["main"]

_LOG = logging.getLogger(__name__)

_DESCRIPTION = """\
Embeds the events that producers send, compares each window of embeddings with the reference, and
reports t, p, Z and alarms: a table here, JSON lines, a ZeroMQ PUB socket, Prometheus metrics and a
live page. SIGTERM or Ctrl-C processes what has arrived, tests the closed windows and ends."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "stream-consumer",
        _DESCRIPTION,
        "stream-consumer --engine d4.onnx --results results.jsonl --alarms alarms/",
    )
    add = parser.add_argument
    add("--engine", type=Path, required=True, help="the encoder, .onnx or .plan")
    add("--reference", type=Path, help="the .ref file (default: beside the engine)")
    add("--endpoint", default="tcp://127.0.0.1:5555", help="where events arrive")
    add(
        "--pattern",
        choices=("pull", "sub"),
        default="pull",
        help="pull: bind, nothing is dropped; sub: connect to a producer's PUB, may lose messages",
    )
    add("--window", help="10000 or 60s; must be what the reference was calibrated for (default)")
    add(
        "--slide",
        metavar="STEP",
        help="2500 or 15s: test a window each STEP, of the last --window; STEP divides it",
    )
    add("--rate", type=positive_float, metavar="HZ", help="expected rate of a time window")
    add("--far", default="1/month", help="false-alarm rate, NUMBER/hour|day|week|month|year")
    add(
        "--alarm-on",
        choices=("chi2", "gamma", "toys"),
        default="chi2",
        help="p that alarms: of the law fitted to the toys, or of the toys alone",
    )
    add(
        "--relabellings",
        type=_count,
        default=99,
        metavar="N",
        help="confirm each alarm by so many random relabellings of events; 0 for none",
    )
    add("--results", type=Path, metavar="FILE", help="append one JSON line a window")
    add("--alarms", type=Path, metavar="DIR", help="keep the windows that alarm")
    add("--publish", metavar="ENDPOINT", help="PUB socket for results, tcp://127.0.0.1:5556")
    add("--http", default="127.0.0.1:9108", help="metrics and live page; 'off' for none")
    add("--exit-on-end", action="store_true", help="end when every source has sent its end")
    add("--max-waiting", type=positive_int, default=16, help="closed windows that may wait")
    add("--max-batch", type=positive_int, default=4096, help="events embedded at once")
    add("--threads", type=positive_int, default=1, help="CPU threads of the encoder")
    add("--test-threads", type=positive_int, default=1, help="CPU threads of the test")
    add("--device", default="cpu", help="where the tests run: cpu or cuda")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        msg = f"must be a whole number, 0 or above; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _run(options: argparse.Namespace) -> None:
    import zmq
    from prometheus_client import CollectorRegistry

    from engines.engine import open_engine
    from engines.nplm import check_device
    from engines.reference_file import load_reference
    from stream.alarms import FalseAlarmRate
    from stream.console import announce, summarise
    from stream.endpoints import open_receiver
    from stream.metrics import Metrics
    from stream.monitor import Monitor
    from stream.service import Consumer, Limits
    from stream.sliding import open_windows, panes_per_window
    from stream.tester import Outputs

    stopped = _stop_on_signals()
    far = FalseAlarmRate.parse(options.far)
    check_device(options.device)
    metrics = Metrics(CollectorRegistry())
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        page = _serve(stack, options.http, metrics.registry)
        engine = stack.enter_context(open_engine(options.engine, threads=options.threads))
        artifact = load_reference(
            options.reference or options.engine.with_suffix(".ref"),
            device=options.device,
            threads=options.test_threads,
        )
        artifact.check_engine(engine)
        spec = _window(options, artifact.facts.window)
        artifact.check_window(spec)
        artifact.reference.prepare()
        n_panes = panes_per_window(spec, options.slide) if options.slide else 1
        socket = stack.enter_context(open_receiver(context, options.endpoint, options.pattern))
        run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        outputs = Outputs(_sinks(options, context), options.alarms)
        _label(metrics, engine, artifact)
        announce(options, engine, artifact, far)
        consumer = Consumer(
            engine,
            Monitor(
                artifact,
                far,
                alarm_on=options.alarm_on,
                n_relabellings=options.relabellings,
                n_panes=n_panes,
                run=run,
            ),
            open_windows(spec, n_panes),
            outputs,
            metrics,
            n_expected=spec.n_expected,
            limits=Limits(options.max_batch, options.max_waiting),
        )
        page.snapshot = partial(consumer.snapshot, artifact.facts, far.text)
        try:
            consumer.run(socket, stopped.is_set, exit_on_end=options.exit_on_end)
        finally:
            consumer.close()
        summarise(consumer)


def _stop_on_signals() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _serve(stack: ExitStack, address: str, registry: "CollectorRegistry") -> "Page":
    """Serve HTTP from the start, so that /readyz can say that something is still missing."""
    from stream.page import Page, parse_address

    page = Page(registry)
    if address != "off":
        server = page.serve(*parse_address(address))
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
    return page


def _window(options: argparse.Namespace, calibrated: "WindowSpec") -> "WindowSpec":
    from engines.windows import WindowSpec

    if options.window is None:
        return calibrated
    rate_hz = options.rate or calibrated.n_expected / (calibrated.span_s or 1.0)
    return WindowSpec.parse(options.window, rate_hz)


def _label(metrics: "Metrics", engine: "Engine", artifact: "ReferenceArtifact") -> None:
    """Let the metrics say what runs."""
    from engines.artifact import versions

    metrics.open_scales(scale for scale in artifact.nulls if scale > 1)
    metrics.build.info(
        {
            "version": versions()["nplm-stream"],
            "engine": engine.fingerprint,
            "reference_created": artifact.facts.created,
            "window": str(artifact.facts.window),
        }
    )


def _sinks(options: argparse.Namespace, context: "Context") -> "list[Sink]":
    from engines.errors import ArtifactError
    from stream.endpoints import open_publisher
    from stream.results import JsonLines, Publisher, Table

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
    sinks.append(Table(sys.stdout))
    return sinks


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
