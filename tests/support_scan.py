"""Stored events whose embeddings are Gaussian, and what scans them."""

from pathlib import Path

import numpy as np

from engines.event_files import write_events
from engines.events import EventRange
from engines.reference_file import ReferenceArtifact
from engines.types import FloatArray
from stream.account import Rules
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.scanning.journal import ScanJournal
from stream.scanning.source import StoredWindows
from stream.scanning.windows import ScanSettings, scan_windows
from tests.support import LinearEngine, gaussians

__all__ = ["scan", "stored", "stored_gaussians"]


def stored(path: Path, embeddings: FloatArray) -> EventRange:
    """Write events that `LinearEngine` embeds as given, (n, 4)."""
    particles = np.zeros((len(embeddings), 19, 3), np.float32)
    particles[:, 0, 0] = np.arange(len(embeddings))
    particles[:, 1:5, 1] = embeddings
    write_events(path, particles, with_classes=False)
    return EventRange(path)


def stored_gaussians(path: Path, n: int, seed: int, shift: float = 0.0) -> EventRange:
    """Write n events of the null, shifted."""
    return stored(path, gaussians(n, np.random.default_rng(seed)) + np.float32(shift))


def scan(
    source: StoredWindows,
    artifact: ReferenceArtifact,
    results: Path,
    *,
    alarms: Path | None = None,
    spacing_s: float | None = None,
    stop_after: int | None = None,
) -> ScanJournal:
    """Scan with alarms at p <= 0.01, or go on; end after so many windows if told to."""
    settings = ScanSettings(
        rules=Rules(FalseAlarmRate(0.01 / (spacing_s or 1.0), "1 % of windows")),
        spacing_s=spacing_s or 1.0,
        has_clock=spacing_s is not None,
        n_relabellings=9,
        run="test",
        null=NullUsed.of(artifact, Path("small.ref")),
        alarms=alarms,
    )
    with ScanJournal(results, {"engine": "linear"}, sorted(artifact.nulls)) as journal:
        tested = scan_windows(source, LinearEngine(), artifact, settings, journal)
        for number, _ in enumerate(tested, 1):
            if number == stop_after:
                break
    return journal
