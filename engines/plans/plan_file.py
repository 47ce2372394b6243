"""The `.plan` file: a compiled TensorRT engine behind what it says about itself.

    8 bytes   NPLMPLAN
    uint32    format, little-endian, as is the length
    uint32    length of the facts
    facts     JSON, UTF-8
    engine    as TensorRT serialised it, to the end

Facts come first, so that reading them takes no megabytes; they hold the SHA-256 of everything.
"""

import hashlib
import json
import os
import shlex
import struct
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engines.artifact import EngineFacts
from engines.errors import ArtifactError, EngineUnavailableError
from engines.first_line import first_line
from engines.plans.precision import Precision
from engines.typed_facts import typed

__all__ = ["PlanFacts", "check_runnable", "read_plan", "read_plan_facts", "write_plan"]

_MAGIC = b"NPLMPLAN"
_FORMAT = 1
#: What build-engine takes unless told otherwise.
_BEST_BATCH, _MOST_EVENTS = 256, 4096
_MAX_BATCH, _MAX_DIM = 2**24, 2**20
_HEADER = struct.Struct("<8sII")
#: TensorRT's own plans begin with ftrt, ptrt, or vtrt of tensorrt_rtx.
_RAW_MAGIC = b"trt"


@dataclass(frozen=True)
class PlanFacts:
    """Provenance of a plan.

    Attributes:
        fingerprint: SHA-256 of the ONNX graph that was compiled, as exported, before any casts.
        dim: embedding coordinates d.
        precision: fp32, tf32, fp16 or bf16.
        flavour, version: the package that compiled it, tensorrt or tensorrt_rtx; the only that can
            run it.
        compute_capabilities: of the GPUs it was compiled for, such as 8.9.
        min_batch, opt_batch, max_batch: the events computed at once.
        onnx: name of the file that was compiled.
        engine: provenance of the encoder.
        differences: how far embeddings and Z are from ONNX Runtime's, and how that was measured.
        versions, system, created: of what, where, when.
        engine_bytes: length of the serialised engine; `write_plan` sets it.
        checksum: SHA-256 of the other facts and the engine; likewise.
    """

    fingerprint: str
    dim: int
    precision: Precision
    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    min_batch: int
    opt_batch: int
    max_batch: int
    onnx: str
    engine: EngineFacts
    differences: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    system: str = ""
    created: str = ""
    engine_bytes: int = 0
    checksum: str = ""

    def rebuild(self, path: Path | None = None) -> str:
        """Return the command that builds the plan again.

        Args:
            path: where it stands, with its encoder beside it; None if that is not known.
        """
        onnx = Path(self.onnx).name
        output = path or Path(onnx).with_suffix(".plan")
        words = ["build-engine", str(output.with_name(onnx)), "-o", str(output)]
        for option, value, default in (
            ("--precision", self.precision, "fp32"),
            ("--opt-batch", self.opt_batch, _BEST_BATCH),
            ("--max-batch", self.max_batch, _MOST_EVENTS),
        ):
            words += [] if value == default else [option, str(value)]
        return shlex.join(words)


def write_plan(path: str | Path, facts: PlanFacts, engine: bytes) -> PlanFacts:
    """Write a plan, which appears whole or not at all; return the facts as written.

    Args:
        path: the file.
        facts: what the plan says about itself.
        engine: as TensorRT serialised it.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    path = Path(path)
    facts = replace(facts, engine_bytes=len(engine))
    facts = replace(facts, checksum=_checksum(facts, engine))
    text = json.dumps(asdict(facts)).encode()
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, _FORMAT, len(text)))
            file.write(text)
            file.write(engine)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        msg = f"cannot write the plan {path} ({exc.strerror}); choose a writable folder"
        raise ArtifactError(msg) from exc
    return facts


def read_plan(path: str | Path) -> tuple[PlanFacts, bytes]:
    """Return the facts and the serialised engine.

    Raises:
        ArtifactError: if the file is missing, truncated, altered, or of another kind or format.
    """
    path = Path(path)
    content = _read(path)
    facts, first = _parse(path, content)
    engine = content[first:]
    _check_length(path, facts, first, len(content))
    if _checksum(facts, engine) != facts.checksum:
        msg = f"{path} was altered since it was written: its checksum is wrong; {_again(path)}"
        raise ArtifactError(msg)
    return facts, engine


def read_plan_facts(path: str | Path) -> PlanFacts:
    """Return the facts alone. Raises as `read_plan` does, but for an altered engine."""
    path = Path(path)
    header = _read(path, _HEADER.size)
    length = _HEADER.unpack(header)[2] if header[:8] == _MAGIC and len(header) == 16 else 0
    # A damaged length may be of gigabytes.
    facts, first = _parse(path, _read(path, min(_HEADER.size + length, path.stat().st_size)))
    _check_length(path, facts, first, path.stat().st_size)
    return facts


def check_runnable(
    facts: PlanFacts,
    api_flavour: str,
    api_version: str,
    capability: str | None,
    path: Path | None = None,
) -> None:
    """Refuse a plan that the TensorRT or the GPU of a machine cannot run.

    Args:
        facts: of the plan.
        api_flavour: the TensorRT that is installed, tensorrt or tensorrt_rtx.
        api_version: its version.
        capability: compute capability of the GPU, such as 8.9; None where there is no GPU.
        path: of the plan.

    Raises:
        EngineUnavailableError: in one sentence, with both sides and the command that rebuilds.
    """
    built, name = f"{facts.flavour} {facts.version}", f" {path}" if path else ""
    if (api_flavour, api_version) != (facts.flavour, facts.version):
        msg = (
            f"the plan{name} must run with {built}, which built it; got {api_flavour} "
            f"{api_version}; build it again here: {facts.rebuild(path)}"
        )
        raise EngineUnavailableError(msg)
    if capability is None:
        msg = (
            f"the plan{name} must run on a GPU that CUDA can use; got none; run {facts.onnx} on "
            f"the CPU, or build it where there is a GPU: {facts.rebuild(path)}"
        )
        raise EngineUnavailableError(msg)
    if capability not in facts.compute_capabilities:
        msg = (
            f"the plan{name} must run on a GPU of compute capability "
            f"{' or '.join(facts.compute_capabilities)}, which {built} built it for; got "
            f"{capability}; build it again here: {facts.rebuild(path)}"
        )
        raise EngineUnavailableError(msg)


def _read(path: Path, size: int = -1) -> bytes:
    if not path.is_file():
        msg = f"plan {path} does not exist; make it with: {_command(path)}"
        raise ArtifactError(msg)
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as exc:
        msg = f"cannot read the plan {path} ({exc.strerror}); make it readable"
        raise ArtifactError(msg) from exc


def _parse(path: Path, content: bytes) -> tuple[PlanFacts, int]:
    """Return the facts and where the engine starts."""
    if content[1:4] == _RAW_MAGIC:
        msg = (
            f"{path} must be a plan of build-engine; got TensorRT's bare engine, as trtexec writes "
            f"it, which does not say what encoder it is; {_again(path)}"
        )
        raise ArtifactError(msg)
    if content[:8] != _MAGIC[: len(content)] or not content:
        msg = f"{path} must be a plan of build-engine; got another kind of file; {_again(path)}"
        raise ArtifactError(msg)
    if len(content) < _HEADER.size:
        raise _truncated(path, f"more than {_HEADER.size}", len(content))
    _, version, length = _HEADER.unpack_from(content)
    if version != _FORMAT:
        msg = f"{path} must have format {_FORMAT}; got format {version}; {_again(path)}"
        raise ArtifactError(msg)
    first = _HEADER.size + length
    if len(content) < first:
        raise _truncated(path, f"more than {first}", len(content))
    try:
        facts = typed(PlanFacts, json.loads(content[_HEADER.size : first]))
        _check_facts(facts)
    except (ValueError, TypeError, RecursionError) as exc:
        msg = f"the facts of {path} are damaged ({first_line(exc)}); {_again(path)}"
        raise ArtifactError(msg) from exc
    return facts, first


def _check_facts(facts: PlanFacts) -> None:
    """Refuse sizes that no plan has, and an encoder without a name.

    Raises:
        ValueError: in a few words.
    """
    if not 1 <= facts.min_batch <= facts.opt_batch <= facts.max_batch <= _MAX_BATCH:
        msg = "batches must rise from 1"
        raise ValueError(msg)
    if not 1 <= facts.dim <= _MAX_DIM or facts.engine_bytes < 0 or not Path(facts.onnx).name:
        msg = "dim, engine_bytes and onnx must be those of an encoder"
        raise ValueError(msg)


def _checksum(facts: PlanFacts, engine: bytes) -> str:
    digest = hashlib.sha256(json.dumps(asdict(replace(facts, checksum=""))).encode())
    digest.update(engine)
    return digest.hexdigest()


def _check_length(path: Path, facts: PlanFacts, first: int, size: int) -> None:
    if size < first + facts.engine_bytes:
        raise _truncated(path, f"{first + facts.engine_bytes}", size, facts.rebuild(path))


def _truncated(path: Path, expected: str, got: int, command: str = "") -> ArtifactError:
    return ArtifactError(
        f"{path} is truncated: it must hold {expected} bytes; got {got}; build it again: "
        f"{command or _command(path)}"
    )


def _command(path: Path) -> str:
    return f"build-engine {path.with_suffix('.onnx').name} -o {path.name}"


def _again(path: Path) -> str:
    return f"build it again: {_command(path)}"
