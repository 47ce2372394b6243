"""Export: the trained encoder as an ONNX file that computes what torch computed."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from engines.artifact import EngineFacts, check_writable, write_facts
from engines.errors import ArtifactError, ParityError
from engines.events import N_FEATURES, N_OBJECTS
from engines.onnx_engine import OnnxEngine
from engines.types import FloatArray
from training.evaluate import embed_events

__all__ = ["PARITY_TOLERANCE", "Exported", "check_output_path", "export_encoder"]

PARITY_TOLERANCE = 1e-4
_OPSET = 18
_INPUT, _OUTPUT = "particles", "embeddings"
_ODD_BATCHES = (1, 2, 7, 33)
#: Events to compare on; more of them find nothing new.
_MOST_COMPARED = 5000


@dataclass(frozen=True)
class Exported:
    """What was written: the graph's fingerprint, and the largest difference from torch."""

    path: Path
    fingerprint: str
    parity: float


def check_output_path(path: Path) -> None:
    """Refuse, before any training, a path where no ONNX file can be written.

    Raises:
        ArtifactError: if the suffix is wrong, or the folder is missing or read-only.
    """
    if path.suffix != ".onnx":
        msg = f"the output must end in .onnx; got {path}"
        raise ArtifactError(msg)
    check_writable(path)


def export_encoder(
    encoder: nn.Module, path: Path, particles: FloatArray, facts: EngineFacts
) -> Exported:
    """Write the encoder as ONNX, preprocessing inside, if ONNX Runtime agrees with torch.

    The file appears whole or not at all.

    Args:
        encoder: raw kinematics, (n, 19, 3), to embeddings, (n, d).
        path: the `.onnx` file to write.
        particles: events to compare on, unseen in training, (n, 19, 3) float32.
        facts: provenance; the parity is added to its metrics.

    Raises:
        ParityError: if an embedding differs by more than 1e-4, or is not finite.
        ArtifactError: if the file cannot be written.
    """
    check_output_path(path)
    model = _to_onnx(encoder)
    temporary = path.with_name(f".{path.name}.part")
    try:
        onnx.save_model(model, str(temporary))
        parity, name = _measure_parity(encoder, temporary, particles)
        write_facts(model, replace(facts, metrics={**facts.metrics, "parity": parity}))
        onnx.save_model(model, str(temporary))
        temporary.replace(path)
    except OSError as exc:
        msg = f"cannot write {path} ({exc}); choose a folder that is writable and has space"
        raise ArtifactError(msg) from exc
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, name, parity)


def _to_onnx(encoder: nn.Module) -> onnx.ModelProto:
    """Return the encoder as a model with a dynamic batch axis, free of traces of this machine."""
    encoder.eval()
    example = torch.zeros(2, N_OBJECTS, N_FEATURES)
    with _quiet_exporter():
        program = torch.onnx.export(
            encoder,
            (example,),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            opset_version=_OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    if program is None:
        msg = "torch exported no program; report this with the versions of torch and onnxscript"
        raise ParityError(msg)
    model: onnx.ModelProto = program.model_proto
    return _without_traces(model)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes on each node it folds; the parity check judges its result."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's exporter uses what torch itself deprecates.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes (source paths, stack traces), which the fingerprint would cover."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    model.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model


def _measure_parity(encoder: nn.Module, path: Path, particles: FloatArray) -> tuple[float, str]:
    """Return the largest difference on the events, over several batch sizes, and the fingerprint.

    An event without any object is compared as well.
    """
    empty = np.zeros((1, N_OBJECTS, N_FEATURES), dtype=np.float32)
    batches = [particles[:size] for size in _ODD_BATCHES if size <= len(particles)]
    worst = 0.0
    with OnnxEngine(path) as engine:
        for batch in (*batches, particles[:_MOST_COMPARED], empty):
            difference = np.abs(engine.embed(batch) - embed_events(encoder, batch))
            worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
        name = engine.fingerprint
    if worst > PARITY_TOLERANCE:
        msg = (
            f"ONNX Runtime must agree with torch to {PARITY_TOLERANCE:g}; the exported encoder "
            f"differs by {worst:.3g}; nothing was written"
        )
        raise ParityError(msg)
    return worst, name
