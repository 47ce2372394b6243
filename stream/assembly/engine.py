"""The engine that serves, and where windows are tested."""

import argparse
import logging
from pathlib import Path

from engines.engine import Engine, open_engine
from engines.errors import (
    EngineUnavailableError,
    MismatchError,
    MissingPackageError,
    ParameterError,
)
from engines.nplm import check_device
from engines.plans.plan_file import PlanFacts, read_plan_facts
from engines.reference_file import ReferenceArtifact
from stream.metrics import Metrics
from stream.roles.forwarded import ForwardedEmbeddings
from stream.wire import EmbeddingWire, EventWire, Wire

__all__ = ["gathered_embeddings", "open_serving_engine", "test_device", "wire_of"]

_LOG = logging.getLogger(__name__)


def open_serving_engine(options: argparse.Namespace, metrics: Metrics) -> Engine:
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


def test_device(wanted: str) -> str:
    """Return where windows are tested: on the CPU where torch finds no GPU but the engine runs."""
    try:
        check_device(wanted)
    except ParameterError as exc:
        if not wanted.startswith("cuda"):
            raise
        _LOG.warning("windows are tested on the CPU: %s", exc)
        return "cpu"
    return wanted


def gathered_embeddings(artifact: ReferenceArtifact, max_batch: int) -> Engine:
    """Return what stands in an engine's place where embedders send embeddings."""
    facts = artifact.facts
    dim = artifact.reference.basis.dim
    return ForwardedEmbeddings(dim, facts.engine_fingerprint, facts.precision, max_batch)


def wire_of(engine: Engine, max_events: int) -> Wire:
    """Return what messages must hold for an engine, of so many events at most."""
    if isinstance(engine, ForwardedEmbeddings):
        return EmbeddingWire(engine.dim, engine.fingerprint, max_events)
    return EventWire(max_events)
