"""Runs a study: trains the engines that are missing, makes the measurements that are missing."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from bench.physics_study.config import Study
from bench.physics_study.embedded import Embedded
from bench.physics_study.jobs import EngineJob
from bench.physics_study.pieces import missing_pieces, pieces_of
from bench.physics_study.store import Store
from bench.physics_study.trainings import Trained, Trainings
from engines.command import ended_by_signal
from engines.errors import ArtifactError, NplmStreamError, TrainingError
from engines.progress import Progress

__all__ = ["finish", "run_jobs"]


def run_jobs(
    study: Study, jobs: Sequence[EngineJob], *, processes: int = 1, threads: int = 1
) -> list[str]:
    """Do what is missing; killed and called again, it goes on where it was.

    Engines are measured as they come, while the next are trained.

    Args:
        study: the study.
        jobs: the engines wanted.
        processes: trainings at a time.
        threads: of the measurements.

    Returns:
        What failed, a line each.
    """
    store, failed = Store(study.folder), []
    with store.locked() as lock, ended_by_signal():
        trainings = Trainings(store.folder, lock, processes)
        shown = Progress(sum(1 + len(pieces_of(study, job)) for job in jobs), "study")
        with closing(trainings.run(jobs)) as ended:
            for trained in ended:
                shown.advance(1, str(trained.job))
                if trained.error:
                    failed.append(_say(f"FAILED to train {trained.job}: {trained.error}"))
                    shown.advance(len(pieces_of(study, trained.job)))
                else:
                    failed += _measure(study, trained, store, threads, shown)
        shown.close()
    return failed


def finish(failed: Sequence[str], report: Callable[[], None]) -> None:
    """Report what there is, then end with an error if anything failed.

    Raises:
        TrainingError: saying how much failed, and what first.
        ArtifactError: if nothing failed and there is still nothing to report.
    """
    try:
        report()
    except ArtifactError:
        if not failed:  # else why it failed is what counts
            raise
    if failed:
        msg = f"{len(failed)} parts of the study failed, the rest is kept; first: {failed[0]}"
        raise TrainingError(msg)


def _measure(
    study: Study, trained: Trained, store: Store, threads: int, shown: Progress
) -> list[str]:
    job, failed = trained.job, []
    if not trained.skipped:
        _say(f"trained {job} in {trained.seconds:.0f} s")
    pieces = pieces_of(study, job)
    missing = missing_pieces(study, job, store)
    shown.advance(len(pieces) - len(missing), str(job))
    embedded = Embedded(job, store, threads)
    for piece in missing:
        started = time.monotonic()
        try:
            piece.make(embedded)
            _say(f"measured {piece.kind} of {job} in {time.monotonic() - started:.1f} s")
        except NplmStreamError as exc:
            failed.append(_say(f"FAILED to measure {piece.kind} of {job}: {exc}"))
        shown.advance(1, str(job))
    return failed


def _say(line: str) -> str:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return line
