"""Windows of stored events through the consumer's monitor, one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engines.engine import Engine
from engines.errors import MismatchError
from engines.reference_file import ReferenceArtifact
from engines.types import Float64Array
from stream.account import Rules
from stream.alarm.record import NullUsed, write_alarm
from stream.block import Block
from stream.features import PendingFeatures
from stream.monitor import Monitor
from stream.scanning.journal import Line, ScanJournal
from stream.scanning.replay import ReplayedReference
from stream.scanning.source import StoredWindows
from stream.window import ClosedWindow
from stream.window_result import WindowResult

if TYPE_CHECKING:
    from engines.nplm import CachedReference

__all__ = ["ScanSettings", "scan_windows"]

_NS = 1e9
#: Of no meaning in a file, or different each time it is scanned.
_DURATIONS = ("test_s", "relabel_s")
_TIMES = ("t_start_ns", "t_end_ns", "spacing_s", "inverse_far_s")


@dataclass(frozen=True)
class ScanSettings:
    """How windows are tested.

    Attributes:
        rules: when a window alarms.
        spacing_s: from one window to the next.
        has_clock: whether that is a time, or only a unit in which each window counts alike.
        n_relabellings: of each alarm; 0 for none.
        run: name of the scan, the same when it goes on.
        null: what windows are judged by, for the records of alarms.
        alarms: folder for windows that alarm.
    """

    rules: Rules
    spacing_s: float
    has_clock: bool
    n_relabellings: int
    run: str
    null: NullUsed
    alarms: Path | None = None


def scan_windows(
    source: StoredWindows,
    engine: Engine,
    artifact: ReferenceArtifact,
    settings: ScanSettings,
    journal: ScanJournal,
) -> Iterator[Sequence[Line]]:
    """Test every window that the journal does not hold; yield the lines of each, once kept.

    Args:
        source: the windows.
        engine: the encoder.
        artifact: the calibrated reference.
        settings: how windows are tested.
        journal: holds the results so far, and takes the others.

    Raises:
        ArtifactError: if a result or an alarm cannot be kept, or the events are damaged.
        MismatchError: if the journal's results do not follow from their own t.
    """
    n_done = len(journal.windows)
    recorded = [line["t_by_width"] for group in journal.windows for line in group]
    reference = ReplayedReference(artifact.reference, recorded)
    monitor = Monitor(
        replace(artifact, reference=cast("CachedReference", reference)),
        settings.rules,
        n_relabellings=settings.n_relabellings,
        run=settings.run,
    )
    # Longer scales that are under way need the sums of their windows.
    first_needed = n_done - max(n_done % scale for scale in artifact.nulls)
    for index in range(n_done):
        window = (
            _window(source, engine, monitor, settings, index)
            if index >= first_needed
            else ClosedWindow(index, *_bounds_ns(settings, index), ())
        )
        _replay(monitor, window, journal)
    for index in range(n_done, source.n_windows):
        window = _window(source, engine, monitor, settings, index)
        result, f = monitor.examine(window)
        lines = [_line(result, settings)]
        if result.alarm:
            _keep(settings, window, f, result)
        lines += [_line(merged, settings) for merged in monitor.merge(window)]
        journal.append(lines)
        yield lines


def _replay(monitor: Monitor, window: ClosedWindow, journal: ScanJournal) -> None:
    """Account for a window that is done; what is decided must be what was."""
    again = [monitor.examine(window, confirm=False)[0], *monitor.merge(window)]
    for result, line in zip(again, journal.windows[window.index], strict=True):
        if (result.p_alarm, result.alarm) != (line["p_alarm"], line["alarm"]):
            msg = (
                f"the results in {journal.path} must follow from their t; those of window "
                f"{window.index} do not; remove the file to scan anew"
            )
            raise MismatchError(msg)


def _window(
    source: StoredWindows, engine: Engine, monitor: Monitor, settings: ScanSettings, index: int
) -> ClosedWindow:
    start_ns, end_ns = _bounds_ns(settings, index)
    blocks = [
        Block(
            source=source.samples[number].name,
            seq=number,
            t_ns=start_ns,
            particles=particles,
            embeddings=embeddings,
            features=PendingFeatures.of(monitor.features(embeddings)),
            first=first,
        )
        for number, first, particles, embeddings in source.embed(engine, index)
    ]
    return ClosedWindow(index, start_ns, end_ns, tuple(blocks))


def _bounds_ns(settings: ScanSettings, index: int) -> tuple[int, int]:
    """Return the production time of a window, counted from 0: a file has no clock."""
    spacing_ns = round(settings.spacing_s * _NS)
    return index * spacing_ns, (index + 1) * spacing_ns


def _line(result: WindowResult, settings: ScanSettings) -> Line:
    record = result.record()
    hidden: Sequence[str] = () if settings.has_clock else _TIMES
    return {
        name: None if name in hidden else value
        for name, value in record.items()
        if name not in _DURATIONS
    }


def _keep(
    settings: ScanSettings, window: ClosedWindow, f: Float64Array, result: WindowResult
) -> None:
    """Keep a window that alarmed, if alarms are kept."""
    if settings.alarms is not None:
        write_alarm(settings.alarms, window, f, result, settings.null)
