"""Runs the chunks of a simulation in processes of their own and keeps what is finished."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engines.errors import ArtifactError, WorkerError
from engines.progress import Progress
from engines.toy_processes import ProcessRunner
from engines.toy_runs import ToyBatch
from engines.types import Float64Array, IntArray
from training.simulation.chunk import simulate_chunk
from training.simulation.detector import Detector
from training.simulation.generator import soft_events
from training.simulation.particles import EventBlock
from training.simulation.plan import Chunk, Plan
from training.simulation.store import ChunkStore, read_chunk, write_chunk

__all__ = ["ChunkJob", "kept", "run_chunks"]


@dataclass
class ChunkJob:
    """What a worker does with the number of a chunk; the contract of `ToyJob`.

    Attributes:
        plan: the simulation.
        chunks: all of one kind.
        paths: where each goes.
        pool: files of the soft events; none while these are made.
        quiet: send what libraries print to stdout, such as FastJet's banner, to nowhere.
    """

    plan: Plan
    chunks: Sequence[Chunk]
    paths: Sequence[Path]
    pool: Sequence[Path] = ()
    quiet: bool = True
    _detector: Detector | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Read the pool."""
        if self._detector is None and self.pool:
            if self.quiet:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._detector = Detector(self.plan.detector, _read_pool(self.pool))

    def run(self, toys: list[IntArray]) -> Float64Array:
        """Simulate chunks given by their numbers; return how many events each holds, (k,)."""
        numbers = [int(number) for block in toys for number in block]
        for number in numbers:
            self._simulate(self.chunks[number], self.paths[number])
        return np.array([self.chunks[number].n_events for number in numbers], np.float64)

    def _simulate(self, chunk: Chunk, path: Path) -> None:
        if self._detector is None:
            soft = soft_events(chunk.n_events, chunk.seeds[0])
            p4 = soft.p4.astype(np.float32)
            write_chunk(path, {"pdg": soft.pdg, "p4": p4, "offsets": soft.offsets})
            return
        done = simulate_chunk(chunk, self._detector, self.plan.resimulate)
        write_chunk(path, {name: np.asarray(value) for name, value in vars(done).items()})


def run_chunks(plan: Plan, store: ChunkStore, n_workers: int) -> None:
    """Simulate every chunk that the store does not hold.

    Raises:
        WorkerError: if a worker is killed; says what is kept.
        ArtifactError: if a chunk cannot be written; says what is kept.
    """
    pool, chunks = plan.pool_chunks(), sorted(plan.chunks(), key=_pace)
    pool_paths = [store.path(chunk.name) for chunk in pool]
    progress = Progress(sum(chunk.n_events for chunk in [*pool, *chunks]), "simulated")
    try:
        for stage, pool_of in ((pool, ()), (chunks, tuple(pool_paths))):
            job = ChunkJob(plan, stage, [store.path(chunk.name) for chunk in stage], pool_of)
            _run_stage(job, store, n_workers, progress.advance)
    except (WorkerError, ArtifactError) as exc:
        msg = f"{exc}; {kept(plan, store)}"
        raise type(exc)(msg) from exc
    finally:
        progress.close()


def _run_stage(
    job: ChunkJob, store: ChunkStore, n_workers: int, advance: Callable[[int, str], None]
) -> None:
    missing = []
    for number, chunk in enumerate(job.chunks):
        if store.has(chunk.name):
            advance(chunk.n_events, chunk.name)
        else:
            missing.append(ToyBatch(number, number, [np.array([number])]))
    with closing(ProcessRunner(n_workers).run(job, missing)) as results:
        for number, _ in results:
            advance(job.chunks[number].n_events, job.chunks[number].name)


def _pace(chunk: Chunk) -> int:
    """Return what sorts slow processes to the front: no worker then waits long for the last."""
    return 0 if chunk.process is None else chunk.process.chunk_events


def kept(plan: Plan, store: ChunkStore) -> str:
    """Say what a simulation that ends here leaves."""
    chunks = [*plan.pool_chunks(), *plan.chunks()]
    done = sum(store.has(chunk.name) for chunk in chunks)
    return (
        f"{done} of {len(chunks)} chunks are kept in {store.folder}; "
        "run the same command again to continue"
    )


def _read_pool(paths: Sequence[Path]) -> EventBlock:
    parts = [read_chunk(path) for path in paths]
    counts = [np.diff(part["offsets"]) for part in parts]
    return EventBlock(
        np.concatenate([part["pdg"] for part in parts]),
        np.concatenate([part["p4"] for part in parts]).astype(np.float64),
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
    )
