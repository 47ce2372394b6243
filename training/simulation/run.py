"""A simulation from its plan to its file."""

from pathlib import Path

from engines.artifact import check_writable
from engines.errors import ArtifactError
from training.simulation.jobs import run_chunks
from training.simulation.output import ProcessSummary, write_output
from training.simulation.plan import Plan
from training.simulation.store import ChunkStore

__all__ = ["simulate"]


def simulate(
    plan: Plan, output: Path, n_workers: int = 1, *, fresh: bool = False
) -> list[ProcessSummary]:
    """Simulate, continuing what an earlier run of the same plan left.

    Args:
        plan: what.
        output: the event file.
        n_workers: processes; the result does not depend on it.
        fresh: drop what an earlier run left.

    Raises:
        ArtifactError: if something cannot be written; finished chunks stay.
        WorkerError: if a process is lost; finished chunks stay.
    """
    if output.suffix not in (".h5", ".hdf5"):
        msg = f"output must end in .h5 or .hdf5; got {output}; name such a file"
        raise ArtifactError(msg)
    check_writable(output)
    with ChunkStore(output, plan.settings(), fresh=fresh) as store:
        run_chunks(plan, store, n_workers)
        summaries = write_output(output, plan, store)
        store.discard()
    return summaries
