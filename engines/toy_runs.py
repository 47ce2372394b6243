"""The toys of a calibration, cut into batches and run here, in processes, or on a Dask cluster.

A batch is the unit of work. Its t depends on nothing but the job and its toys, so that whoever
computes it, and in whatever order, gives the same bits; a finished batch goes to the journal, from
which a calibration that was stopped continues.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import numpy as np

from engines.errors import (
    MissingPackageError,
    ParameterError,
    SampleSizeError,
    WorkerError,
)
from engines.toy_journal import ToyJournal
from engines.types import Float64Array, IntArray

__all__ = [
    "Results",
    "SerialRunner",
    "ToyBatch",
    "ToyJob",
    "ToyRunner",
    "cut_batches",
    "open_runner",
    "run_toys",
]

_LOG = logging.getLogger(__name__)

#: The index of each finished batch and its t, (n_toys, n_columns), in any order.
Results = Generator[tuple[int, Float64Array], None, None]


class ToyJob(Protocol):
    """What is done with each toy; picklable, and the same bits in every process."""

    def prepare(self) -> None:
        """Build once, in the process that runs the toys, what need not travel; idempotent."""

    def run(self, toys: list[IntArray]) -> Float64Array:
        """Return t, (n_toys, n_columns), of toys given by the pool indices of their events.

        A worker of several threads calls it in all of them at once, after `prepare`.
        """


@dataclass(frozen=True)
class ToyBatch:
    """Toys that are computed together.

    Attributes:
        index: 0, 1, 2 ... in the order of the toys.
        first: number of its first toy.
        toys: pool indices of each toy's events.
    """

    index: int
    first: int
    toys: list[IntArray]


class ToyRunner(Protocol):
    """Where the batches are computed."""

    def check(self) -> None:
        """Find out, before any long work, whether batches can be computed there."""

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        """Yield the result of every batch; draw batches only as there is room for them.

        Closing the generator ends the work.

        Raises:
            WorkerError: if whoever computes is lost for good.
        """


def cut_batches(toys: Iterable[IntArray], size: int) -> Iterator[ToyBatch]:
    """Yield batches of `size` toys, the last one of what is left.

    >>> [(batch.first, len(batch.toys)) for batch in cut_batches([np.arange(3)] * 5, 2)]
    [(0, 2), (2, 2), (4, 1)]
    """
    source = iter(toys)
    for index in count():
        batch = list(islice(source, size))
        if not batch:
            return
        yield ToyBatch(index, index * size, batch)


class SerialRunner:
    """Computes one batch after the other in this process."""

    def check(self) -> None:
        """Nothing can be missing."""

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        """Yield the result of every batch, in order."""
        for batch in batches:
            job.prepare()
            yield batch.index, job.run(batch.toys)


def open_runner(n_workers: int = 1, scheduler: str | None = None) -> ToyRunner:
    """Choose where to run.

    Args:
        n_workers: processes on this machine; with one, the toys run in this process.
        scheduler: address of a Dask scheduler, such as tcp://host:8786, to run there instead.

    Raises:
        MissingPackageError: if a scheduler is given and Dask is not installed.
    """
    if scheduler is not None:
        try:
            from engines.toy_dask import DaskRunner
        except ModuleNotFoundError as exc:
            msg = (
                f"--scheduler needs the package {exc.name}; install it with: "
                "pip install 'nplm-stream[dask]'"
            )
            raise MissingPackageError(msg) from exc
        return DaskRunner(scheduler)
    if n_workers > 1:
        from engines.toy_processes import ProcessRunner

        return ProcessRunner(n_workers)
    return SerialRunner()


def run_toys(
    job: ToyJob,
    toys: Iterable[IntArray],
    *,
    batch_size: int,
    n_toys: int,
    runner: ToyRunner,
    journal: ToyJournal,
    progress: Callable[[int], None] | None = None,
) -> Float64Array:
    """Return t of every toy, (n_toys, n_columns), in the order of the toys.

    Batches that the journal holds are not computed again; all toys are drawn all the same, so that
    a generator stands where it would have stood.

    Args:
        job: what is done with each toy.
        toys: pool indices of each toy's events, drawn as they are needed.
        batch_size: toys in a batch.
        n_toys: how many toys to take.
        runner: where the batches are computed.
        journal: what is done already, and where to keep what is finished.
        progress: called with the number of toys finished in this run since the last call.

    Raises:
        SampleSizeError: if there are fewer toys than n_toys.
        ParameterError: if t of a toy is not finite.
        WorkerError: if whoever computes is lost; says what is kept.
    """
    done: dict[int, Float64Array] = {}
    sizes: dict[int, int] = {}
    missing = _missing(cut_batches(islice(toys, n_toys), batch_size), journal, done, sizes)
    try:
        with closing(runner.run(job, missing)) as results:
            for index, t in results:
                first = index * batch_size
                _check(t, first, sizes[index])
                journal.append(first, t)
                done[index] = t
                if progress is not None:
                    progress(len(t))
    except WorkerError as exc:
        msg = f"{exc}; {_kept(n_toys, journal)}"
        raise WorkerError(msg) from exc
    except KeyboardInterrupt:
        _LOG.info("%s", _kept(n_toys, journal))
        raise
    values = [done[index] for index in sorted(done)]
    if sum(map(len, values)) != n_toys:
        msg = f"n_toys must be at most the toys drawn, {sum(map(len, values))}; got {n_toys}"
        raise SampleSizeError(msg)
    return np.concatenate(values)


def _missing(
    batches: Iterable[ToyBatch],
    journal: ToyJournal,
    done: dict[int, Float64Array],
    sizes: dict[int, int],
) -> Iterator[ToyBatch]:
    """Yield the batches to compute, noting their sizes; put those of the journal into `done`."""
    for batch in batches:
        t = journal.get(batch.first, len(batch.toys))
        if t is None:
            sizes[batch.index] = len(batch.toys)
            yield batch
        else:
            done[batch.index] = t


def _check(t: Float64Array, first: int, n_toys: int) -> None:
    if t.ndim != 2 or len(t) != n_toys:
        msg = f"t of a batch must have shape ({n_toys}, n_columns); got {t.shape}"
        raise ParameterError(msg)
    finite = np.isfinite(t).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        msg = f"t of a toy must be finite; got {t[bad].tolist()} for toy {first + bad}; raise --lam"
        raise ParameterError(msg)


def _kept(n_toys: int, journal: ToyJournal) -> str:
    done = f"{journal.n_toys} of {n_toys} toys"
    if journal.path is None:
        return f"{done} were done"
    return f"{done} are kept in {journal.path}; run the same command again to continue"
