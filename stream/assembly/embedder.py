"""Puts an embedder together from the consumer's options, and runs it."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import zmq

from engines.artifact import versions
from stream.assembly.engine import open_serving_engine, wire_of
from stream.assembly.process import serve
from stream.delivery.plain import PlainAdmission, SocketReceiver
from stream.exposition import registry_of
from stream.memory_guard import GuardedReceiver, default_limit_bytes, read_rss_bytes
from stream.metrics import Metrics
from stream.roles.embedder import Embedder
from stream.roles.forward import PushForward
from stream.roles.relay import Relay
from stream.security.consumer import ConsumerSecurity
from stream.sequence import SequenceTracker
from stream.service import Limits
from stream.sparse_log import SparseLog
from stream.stages import Stages

__all__ = ["run_embedder"]


def run_embedder(options: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    """Embed and send on until told to stop, or with `--exit-on-end` until the sources have ended.

    Args:
        options: of `stream-consumer --role embed`.
        stopped: whether to stop.
    """
    metrics = Metrics(Stages())
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        security = stack.enter_context(ConsumerSecurity(options, context))
        registry = registry_of(metrics)
        security.register(registry)
        page = serve(stack, options.http, registry, security)
        engine = stack.enter_context(open_serving_engine(options, metrics))
        metrics.build = {
            "version": versions()["nplm-stream"],
            "engine": engine.fingerprint,
            "runtime": engine.runtime,
        }
        limits = Limits(options.max_batch, options.max_delay)
        limit_bytes = default_limit_bytes(read_rss_bytes(), 0.0)
        pattern = "router" if options.reliable else options.pattern
        guard = security.open_receiver(options.endpoint, pattern, limit_bytes)
        stack.callback(guard.close)
        tester = stack.enter_context(
            security.open_forwarder(options.forward, "dealer" if options.reliable else "push")
        )
        wire = wire_of(engine, options.max_message_events)
        if options.reliable:
            relay = Relay(tester, engine.fingerprint, metrics, SparseLog())
            embedder = Embedder(engine, relay, relay, metrics, limits, wire)
            receiver = GuardedReceiver(relay, guard)
            relay.on_wait = receiver.look
            stack.callback(relay.finish)
        else:
            admission = PlainAdmission(SequenceTracker(options.max_sources))
            forward = PushForward(tester, engine.fingerprint, stopped)
            embedder = Embedder(engine, admission, forward, metrics, limits, wire)
            receiver = GuardedReceiver(SocketReceiver(), guard)
            forward.on_wait = receiver.look
        how = "reliable" if options.reliable else options.pattern
        sys.stdout.write(
            f"embedder    {options.engine} ({engine.dim} dimensions, "
            f"{engine.fingerprint[:16]}...)\n            {engine.runtime}\n"
            f"listening   on {options.endpoint} ({how}); http {options.http}\n"
            f"sends       embeddings to {options.forward}\n\n"
        )
        sys.stdout.flush()
        page.snapshot = partial(embedder.snapshot, options.forward)
        embedder.run(receiver, stopped, exit_on_end=options.exit_on_end)
        sys.stdout.write(
            f"\n{metrics.n_events} events in {metrics.n_messages} messages; "
            f"{metrics.n_rejected} messages refused, {metrics.n_missing} missing\n"
        )
