"""Command: what an engine or a reference says about itself."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, run_command
from engines.errors import ArtifactError, EngineUnavailableError, MissingPackageError

if TYPE_CHECKING:
    from engines.artifact import EngineFacts
    from engines.plans.plan_file import PlanFacts

__all__ = ["describe_onnx", "describe_plan", "main"]

_DESCRIPTION = """\
Prints the facts that travel with an encoder (.onnx), a compiled one (.plan) or a reference (.ref):
fingerprint, dimensions, precision, versions, what it was trained on and when, and whether this
machine can run it."""


def _parser() -> CommandParser:
    parser = CommandParser("inspect-engine", _DESCRIPTION, "inspect-engine d4.plan")
    parser.add_argument("file", type=Path, metavar="FILE", help=".onnx, .plan or .ref")
    return parser


def _run(options: argparse.Namespace) -> None:
    path: Path = options.file
    kinds = {".onnx": _onnx, ".plan": _plan, ".ref": _reference}
    if path.suffix not in kinds:
        msg = f"the file must end in .onnx, .plan or .ref; got {path}"
        raise ArtifactError(msg)
    text = kinds[path.suffix](path)  # refuses a missing file
    size_mb = path.stat().st_size / 1e6
    sys.stdout.write(_lines([("file", f"{path} ({size_mb:.1f} MB)")]) + text)


def _onnx(path: Path) -> str:
    return describe_onnx(path)


def _plan(path: Path) -> str:
    from engines.plans.plan_file import read_plan

    facts, _ = read_plan(path)
    return describe_plan(facts) + _lines([("runs here", _runs_here(facts, path))])


def _reference(path: Path) -> str:
    from engines.inspect_reference import describe
    from engines.reference_file import load_reference

    return describe(load_reference(path))


def describe_onnx(path: Path) -> str:
    """Return the facts of an encoder, one `label  text` a line.

    Args:
        path: the ONNX file.

    Raises:
        ArtifactError: if it is missing, damaged or no encoder.
    """
    from collections import Counter
    from math import prod

    from engines.artifact import load_onnx
    from engines.onnx_engine import OnnxEngine

    model = load_onnx(path)
    counts = Counter(node.op_type for node in model.graph.node)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == tensor.FLOAT]
    with OnnxEngine(path) as engine:
        lines = [
            ("fingerprint", engine.fingerprint),
            ("maps", f"particles (n, 19, 3) to embeddings (n, {engine.dim}), float32"),
            ("precision", "fp32"),
            ("operators", f"{counts.total()}: {_counted(counts.most_common())}"),
            ("parameters", f"{sum(prod(tensor.dims) for tensor in weights)}"),
            ("opset", ", ".join(f"{o.domain or 'onnx'} {o.version}" for o in model.opset_import)),
            *_encoder(engine.facts),
            ("runs here", f"yes, by {engine.runtime}"),
        ]
    return _lines(lines)


def describe_plan(facts: "PlanFacts") -> str:
    """Return the facts of a plan, one `label  text` a line."""
    batches = f"1 to {facts.max_batch}, fastest at {facts.opt_batch}"
    return _lines(
        [
            ("fingerprint", f"{facts.fingerprint}, of {facts.onnx}"),
            ("maps", f"particles (n, 19, 3) to embeddings (n, {facts.dim}), float32"),
            ("precision", facts.precision),
            ("compiled", f"{facts.created} by {facts.flavour} {facts.version} on {facts.system}"),
            ("for GPUs", f"of compute capability {', '.join(facts.compute_capabilities)}"),
            ("batches", batches),
            *_comparison(facts),
            ("versions", _named(facts.versions)),
            *_encoder(facts.engine),
        ]
    )


def _comparison(facts: "PlanFacts") -> Iterator[tuple[str, str]]:
    found = facts.differences
    if not found:
        return
    events = found["events"]
    yield "compared", f"{found['computed_by']} with {found['compared_with']}"
    yield "", f"on {events['name']} events {events['start']} to {events['stop']}"
    largest, rms, bound = found["largest"], found["rms"], found["bound"]
    yield (
        "embeddings",
        f"off by at most {largest:.2g} of their spread (bound {bound:g}), rms {rms:.2g}",
    )
    if not found["z"]:
        yield "Z", "not compared: there was no reference"
        return
    yield "Z", f"with {found['reference']}, windows of {found['window']}:"
    for w in found["z"]:
        yield (
            "",
            (
                f"{w['window']}: t {w['t']:.1f}, off by {w['dt']:+.3f} of the null's spread; "
                f"Z {w['z']:.2f}, off by {w['dz']:+.3f}"
            ),
        )


def _encoder(facts: "EngineFacts") -> Iterator[tuple[str, str]]:
    """Yield what the encoder's training left behind."""
    yield "encoder", f"{facts.arch}, loss {facts.loss}"
    for title, samples in (("trained on", facts.trained_on), ("reserved", facts.reserved)):
        for sample in samples:
            yield title, f"{sample.name} events {sample.start} to {sample.stop}"
    if facts.options:
        yield "options", _named(facts.options)
    if facts.metrics:
        yield "metrics", ", ".join(f"{name} {value:.4g}" for name, value in facts.metrics.items())
    if facts.created:
        yield "trained", f"{facts.created} by {_named(facts.versions)}"


def _runs_here(facts: "PlanFacts", path: Path) -> str:
    from engines.plans.plan_file import check_runnable
    from engines.plans.tensorrt_api import gpu_capability, load_tensorrt

    try:
        api = load_tensorrt(facts.flavour)
        check_runnable(facts, api.flavour, api.version, gpu_capability(), path)
    except (MissingPackageError, EngineUnavailableError) as exc:
        return f"no: {exc}"
    return f"yes, by {api.name}"


def _named(values: "dict[str, object] | dict[str, str]") -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts)


def _lines(lines: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{label:<13}{text}\n" for label, text in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
