"""What an artefact says about itself: which encoder, trained on what, when, by which versions.

An encoder's fingerprint is the SHA-256 of its ONNX graph. It names the function from kinematics to
embedding, so it survives a change of metadata and travels with everything made from the graph.
"""

import datetime
import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from engines.errors import ArtifactError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.first_line import first_line
from engines.typed_facts import typed

if TYPE_CHECKING:
    import onnx

__all__ = [
    "EngineFacts",
    "SampleFacts",
    "check_writable",
    "fingerprint",
    "load_onnx",
    "read_facts",
    "utc_now",
    "versions",
    "write_facts",
]

_METADATA_KEY = "nplm_stream"
#: Without it nobody could tell which events the encoder has seen.
_REQUIRED = "trained_on"


def utc_now() -> str:
    """Return the present time, ISO 8601 in UTC to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions(*distributions: str) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: importlib.metadata.version(name) for name in ("nplm-stream", *distributions)}


def check_writable(path: Path) -> None:
    """Refuse an output that could not be written, before the work that would be lost.

    Raises:
        ArtifactError: if it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        msg = f"cannot write {path}: it is a folder; name a file in it"
        raise ArtifactError(msg)
    try:
        probe = path.with_name(f".{path.name}.part")
        probe.touch()
        probe.unlink(missing_ok=True)  # processes of one training probe together
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        msg = f"cannot write {path} ({reason}); choose a folder that exists and is writable"
        raise ArtifactError(msg) from exc


@dataclass(frozen=True)
class SampleFacts:
    """Which events of which file were used; `content_id` names the file by its content."""

    name: str
    content_id: str
    start: int
    stop: int

    @classmethod
    def of(cls, source: EventRange) -> Self:
        """Describe a range of a file."""
        with EventFile(source.path) as file:
            stop = len(file) if source.stop is None else source.stop
            return cls(source.path.name, file.content_id, source.start, stop)

    def overlap(self, other: Self) -> int:
        """Return how many events the two have in common."""
        if self.content_id != other.content_id:
            return 0
        return max(0, min(self.stop, other.stop) - max(self.start, other.start))


@dataclass(frozen=True)
class EngineFacts:
    """Provenance of an encoder; empty for an ONNX file that came from elsewhere.

    `reserved` are the parts of the training files that training never read, `trained_marks` a
    sample of the events that it did read (`event_marks`); an encoder of an earlier version has
    neither.
    """

    arch: str = "unknown"
    loss: str = "unknown"
    dim: int = 0
    trained_on: tuple[SampleFacts, ...] = ()
    reserved: tuple[SampleFacts, ...] = ()
    trained_marks: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    def untrained_part(self, source: EventRange) -> EventRange:
        """Return the reserved part of a file given whole, where there is one, else the source.

        The reserved events of the training files are what the NPLM test is free to use: they are
        the one part of those files that no training has seen.
        """
        if not self.reserved or source.start > 0 or source.stop is not None:
            return source
        whole = SampleFacts.of(source)
        for sample in self.reserved:
            if whole.overlap(sample):
                return EventRange(source.path, sample.start, sample.stop)
        return source


def load_onnx(path: str | Path) -> "onnx.ModelProto":
    """Return the model of an ONNX file.

    Raises:
        ArtifactError: if the file is missing, truncated or not ONNX, or its graph reads other
            files, may not end, or needs memory without measure.
    """
    import onnx
    from google.protobuf.message import DecodeError

    from engines.onnx_check import check_graph

    if not Path(path).is_file():
        msg = f"engine {path} does not exist; make one: train-encoder --events bkg.h5 -o {path}"
        raise ArtifactError(msg)
    try:
        model = onnx.load_model(str(path), load_external_data=False)
        check_graph(model, path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError, MemoryError) as exc:
        if isinstance(exc, ArtifactError):
            raise
        msg = f"engine {path} is not a complete ONNX file ({first_line(exc)}); export it again"
        raise ArtifactError(msg) from exc
    return model


def fingerprint(model: "onnx.ModelProto") -> str:
    """Return the SHA-256 of the model's graph, hexadecimal."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def write_facts(model: "onnx.ModelProto", facts: EngineFacts) -> None:
    """Store the facts in the model's metadata; the fingerprint does not change."""
    import onnx

    onnx.helper.set_model_props(model, {_METADATA_KEY: json.dumps(asdict(facts))})


def read_facts(model: "onnx.ModelProto") -> EngineFacts:
    """Return the facts stored in the model, or empty ones for a foreign model.

    Raises:
        ArtifactError: if the stored facts are not those of this version.
    """
    value = next((prop.value for prop in model.metadata_props if prop.key == _METADATA_KEY), None)
    if value is None:
        return EngineFacts()
    try:
        stored = json.loads(value)
        if _REQUIRED not in stored:
            raise KeyError(_REQUIRED)  # noqa: TRY301 - one sentence for all
        return typed(EngineFacts, stored)
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        msg = (
            f"the engine's metadata {_METADATA_KEY!r} is damaged ({first_line(exc)}); export again"
        )
        raise ArtifactError(msg) from exc
