"""A simulation from its plan to its file."""

import logging
from pathlib import Path

from engines.artifact import check_writable
from engines.errors import ArtifactError
from training.simulation.jobs import kept, run_chunks
from training.simulation.output import ProcessSummary, holds, write_output
from training.simulation.plan import Plan
from training.simulation.store import ChunkStore

__all__ = ["simulate"]

_LOG = logging.getLogger(__name__)


def simulate(
    plan: Plan, output: Path, n_workers: int = 1, *, fresh: bool = False
) -> list[ProcessSummary] | None:
    """Simulate, continuing what an earlier run of the same plan left.

    Args:
        plan: what.
        output: the event file.
        n_workers: processes; the result does not depend on it.
        fresh: drop what an earlier run left, its output as well.

    Returns:
        What came of each process, or None if the output was there already.

    Raises:
        MismatchError: if another file is in the output's place, or chunks of another simulation.
        ArtifactError: if something cannot be written; finished chunks stay.
        WorkerError: if a process is lost; finished chunks stay.
    """
    if output.suffix not in (".h5", ".hdf5"):
        msg = f"output must end in .h5 or .hdf5; got {output}; name such a file"
        raise ArtifactError(msg)
    check_writable(output)
    there = not fresh and holds(output, plan)
    with ChunkStore(output, plan.settings(), fresh=fresh) as store:
        summaries = None
        if not there:
            output.unlink(missing_ok=True)
            summaries = _simulate(plan, output, store, n_workers)
        store.discard()
    return summaries


def _simulate(plan: Plan, output: Path, store: ChunkStore, n_workers: int) -> list[ProcessSummary]:
    try:
        run_chunks(plan, store, n_workers)
        return write_output(output, plan, store)
    except KeyboardInterrupt:
        _LOG.info("%s", kept(plan, store))
        raise
