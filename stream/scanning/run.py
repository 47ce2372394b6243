"""Puts a scan together from its options, and runs it."""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from engines.artifact import SampleFacts, check_writable, versions
from engines.command import ended_by_signal
from engines.engine import Engine, open_engine
from engines.errors import ArtifactError, MismatchError, ParameterError
from engines.nplm import check_device
from engines.null_plot import check_picture
from engines.progress import Progress
from engines.reference_file import ReferenceArtifact, load_reference
from engines.unseen import refuse_repeated_events, refuse_training_events
from stream.account import Rules
from stream.alarm.record import NullUsed
from stream.alarms import FalseAlarmRate
from stream.scanning.journal import Line, ScanJournal
from stream.scanning.plot import draw_scan
from stream.scanning.resample import Resampling, check_drawn, free_events, scan_resampled
from stream.scanning.source import StoredWindows, described, refuse_calibration_events
from stream.scanning.table import Resampled, Scanned
from stream.scanning.windows import ScanSettings, scan_windows

__all__ = ["run_scan"]

_LOG = logging.getLogger(__name__)
_GLOBAL_P, _FAR = 0.01, "1/month"


def run_scan(options: argparse.Namespace) -> None:
    """Scan, or go on with a scan; print the table and draw the picture."""
    _check_options(options)
    results, picture = _outputs(options)
    check_device(options.device)
    path = options.reference or options.engine.with_suffix(".ref")
    with ExitStack() as stack:
        stack.enter_context(ended_by_signal())
        engine = stack.enter_context(
            open_engine(options.engine, device=options.device, threads=options.threads)
        )
        artifact = load_reference(path, device=options.device, threads=options.threads)
        artifact.check_engine(engine)
        source = stack.enter_context(StoredWindows(options.events, _window_size(artifact)))
        refuse_calibration_events(source.samples, engine, artifact.facts)
        how = _resampling(options, engine, artifact, source)
        inputs = _inputs(options, engine, artifact, source)
        journal = stack.enter_context(ScanJournal(results, inputs, sorted(artifact.nulls)))
        rules, rule = _rules(options, source.n_windows)
        settings = ScanSettings(
            rules=rules,
            spacing_s=options.window_spacing or 1.0,
            has_clock=options.window_spacing is not None,
            n_relabellings=options.relabellings,
            run=f"scan-{_digest(inputs)}",
            null=NullUsed.of(artifact, path),
            alarms=options.alarms,
        )
        try:
            if how is not None:
                check_drawn(journal, how)
            _scan(source, engine, artifact, settings, journal)
            again = None if how is None else _resample(source, engine, artifact, how, journal)
        except KeyboardInterrupt:
            _LOG.info("%s", _kept(journal, source, how))
            raise
        scanned = Scanned(tuple(journal.windows), source.n_left_over, rule, again)
    draw_scan(scanned.lines, artifact.nulls[1].nulls[0], again, picture)
    if options.json:
        sys.stdout.write(json.dumps(scanned.record(), allow_nan=False) + "\n")
    else:
        sys.stdout.write(f"{scanned.text()}written     {results} and {picture}\n")


def _check_options(options: argparse.Namespace) -> None:
    if options.window_spacing is None and options.far is not None:
        msg = "--far must come with --window-spacing: a file has no clock; give the time"
        raise ParameterError(msg)
    if options.window_spacing is not None and options.global_p is not None:
        msg = "--global-p must come without --window-spacing; use --far with it"
        raise ParameterError(msg)
    if bool(options.resample_reference) != bool(options.reference_events):
        msg = (
            "--resample-reference and --reference-events must come together; got one; give the "
            "background to draw references from, such as what calibrate-reference was given"
        )
        raise ParameterError(msg)


def _outputs(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the files of results and picture; both can be written."""
    results: Path = options.results or Path(f"{options.events[0].path.stem}.scan.jsonl")
    picture: Path = options.output or results.with_suffix(".png")
    check_picture(picture)
    for path in (results, picture):
        check_writable(path)
    if options.alarms is not None:
        try:
            options.alarms.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"cannot keep alarms in {options.alarms} ({exc}); choose another folder"
            raise ArtifactError(msg) from exc
    return results, picture


def _window_size(artifact: ReferenceArtifact) -> int:
    window = artifact.facts.window
    if window.mode == "time":
        msg = (
            "the reference must be for windows of a count of events, since stored events have no "
            f"times; got one for {window}; calibrate one with --window EVENTS"
        )
        raise MismatchError(msg)
    return round(window.n_expected)


def _rules(options: argparse.Namespace, n_windows: int) -> tuple[Rules, str]:
    """Return when a window alarms, and the same in words."""
    if options.window_spacing is not None:
        far = FalseAlarmRate.parse(options.far or _FAR)
        rule = f"{far.text} on the {options.alarm_on} p, windows {options.window_spacing:g} s apart"
        return Rules(far, options.alarm_on), rule
    # Windows count one unit of time each: a rate of P a file.
    p = options.global_p or _GLOBAL_P
    rule = f"p of any false alarm in these events {p:g} (Bonferroni), on the {options.alarm_on} p"
    far = FalseAlarmRate(p / n_windows, rule)
    if far.threshold_p(1.0) < p / n_windows:
        rule += f"; no window alarms above p = {far.threshold_p(1.0):g}"
    return Rules(far, options.alarm_on), rule


def _inputs(
    options: argparse.Namespace, engine: Engine, artifact: ReferenceArtifact, source: StoredWindows
) -> Line:
    """Return all that a result depends on."""
    return {
        "engine": engine.fingerprint,
        "precision": engine.precision,
        "reference": artifact.fingerprint,
        "events": _content(source.samples),
        "global-p": options.global_p or _GLOBAL_P,
        "window-spacing": options.window_spacing,
        "far": options.far or _FAR,
        "alarm-on": options.alarm_on,
        "relabellings": options.relabellings,
        "alarms": options.alarms is not None,
        "versions": versions("torch", "numpy"),
    }


def _content(samples: Iterable[SampleFacts]) -> list[tuple[str, int, int]]:
    return [(sample.content_id, sample.start, sample.stop) for sample in samples]


def _digest(record: Line) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def _resampling(
    options: argparse.Namespace, engine: Engine, artifact: ReferenceArtifact, source: StoredWindows
) -> Resampling | None:
    """Return how references are drawn anew, if they are; their events must be other than these.

    Raises:
        MismatchError: if the encoder was trained on the background, or it is to be scanned.
        SampleSizeError: if it is too small.
    """
    if not options.resample_reference:
        return None
    samples = [described(events) for events in options.reference_events]
    refuse_training_events(engine.facts, samples)
    refuse_repeated_events((*source.samples, *samples))
    toys, seed = options.resample_toys, options.seed
    return Resampling(
        sources=tuple(options.reference_events),
        n_references=options.resample_reference,
        n_toys=toys,
        seed=seed,
        alarm_on=options.alarm_on,
        free=free_events(artifact.facts, samples),
        key=_digest({"events": _content(samples), "toys": toys, "seed": seed}),
    )


def _scan(
    source: StoredWindows,
    engine: Engine,
    artifact: ReferenceArtifact,
    settings: ScanSettings,
    journal: ScanJournal,
) -> None:
    n_done = len(journal.windows)
    if n_done:
        _LOG.info("continuing: %d of %d windows are done", n_done, source.n_windows)
    shown = Progress(source.n_windows - n_done, "windows")
    with closing(shown):
        for lines in scan_windows(source, engine, artifact, settings, journal):
            shown.advance(1, f"Z {lines[0]['z_alarm']:.2f}{' ALARM' if lines[0]['alarm'] else ''}")


def _resample(
    source: StoredWindows,
    engine: Engine,
    artifact: ReferenceArtifact,
    how: Resampling,
    journal: ScanJournal,
) -> Resampled:
    n_done, n_all = len(journal.resampled), how.n_references * source.n_windows
    if n_done < n_all:
        shown = Progress(n_all - n_done, f"windows against {how.n_references} references")
        with closing(shown):
            for line in scan_resampled(source, engine, artifact, how, journal):
                shown.advance(1, f"reference {line['resampling']}, Z {line['z_alarm']:.2f}")
    p = np.array([line["p_alarm"] for line in journal.resampled[:n_all]])
    by_reference = p.reshape(how.n_references, source.n_windows).tolist()
    n_free = int(how.free.sum())
    return Resampled(tuple(map(tuple, by_reference)), artifact.facts.n_ref, n_free, how.n_toys)


def _kept(journal: ScanJournal, source: StoredWindows, how: Resampling | None) -> str:
    done = f"{len(journal.windows)} of {source.n_windows} windows"
    if how is not None:
        n_tests = how.n_references * source.n_windows
        done += f" and {len(journal.resampled)} of {n_tests} tests of references drawn anew"
    return f"{done} are kept in {journal.path}; run the same command again to go on"
