"""Windows that alarm, and their records."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.reference_file import ReferenceArtifact, load_reference, save_reference
from engines.types import Float64Array, FloatArray
from stream.account import Rules
from stream.alarm.record import NullUsed, write_alarm
from stream.alarms import FalseAlarmRate
from stream.block import Block
from stream.features import PendingFeatures
from stream.monitor import Monitor
from stream.window import ClosedWindow
from stream.window_result import WindowResult

__all__ = ["Examined", "anomalous", "examine", "keep", "stored", "window_of"]


@dataclass(frozen=True)
class Examined:
    """A window, what was said of it, and f of its events."""

    window: ClosedWindow
    result: WindowResult
    f: Float64Array
    null: NullUsed


def stored(path: Path, artifact: ReferenceArtifact) -> ReferenceArtifact:
    """Write an artefact and return it as it is read, with its fingerprint."""
    save_reference(path, artifact)
    return load_reference(path)


def anomalous(n: int, rng: np.random.Generator, dim: int = 4) -> FloatArray:
    """Return embeddings of which a tenth lie far off."""
    events = rng.normal(size=(n, dim)).astype(np.float32)
    events[: n // 10] = 3.0
    return events


def window_of(
    artifact: ReferenceArtifact,
    embeddings: FloatArray,
    particles: FloatArray,
    *,
    index: int = 0,
    sources: tuple[str, ...] = ("det0", "det1"),
    t_start_ns: int = 1_700_000_000 * 10**9,
) -> ClosedWindow:
    """Return a window of as many messages as sources, message i of sequence number 10 + i."""
    parts = np.array_split(np.arange(len(embeddings)), len(sources))
    blocks = [
        Block(
            source,
            10 + number,
            t_start_ns + number,
            particles[part],
            embeddings[part],
            PendingFeatures.of(artifact.reference.features(embeddings[part])),
            first=5,
        )
        for number, (source, part) in enumerate(zip(sources, parts, strict=True))
    ]
    return ClosedWindow(index, t_start_ns, t_start_ns + 4 * 10**9, tuple(blocks))


def examine(
    artifact: ReferenceArtifact, window: ClosedWindow, path: Path, run: str = "r1"
) -> Examined:
    """Test a window."""
    monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")), run=run)
    result, f = monitor.examine(window)
    return Examined(window, result, f, NullUsed.of(artifact, path))


def keep(folder: Path, examined: Examined) -> Path:
    """Write its record."""
    return write_alarm(folder, examined.window, examined.f, examined.result, examined.null)
