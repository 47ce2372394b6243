"""Toys and a job on them that costs nothing; it can be told to fail at one toy."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from engines.errors import ParameterError
from engines.toy_journal import ToyJournal
from engines.toy_runs import ToyRunner, open_runner, run_toys
from engines.types import Float64Array, IntArray

__all__ = ["BATCH_SIZE", "N_TOYS", "SumJob", "pool_toys", "run_all"]

N_POOL, N_TOYS, N_DATA, BATCH_SIZE = 500, 23, 40, 4

Trap: TypeAlias = Literal["", "interrupt", "kill", "nan", "refuse", "stall"]


def pool_toys(n_toys: int = N_TOYS) -> list[IntArray]:
    """Return toys whose first event is their number."""
    rng = np.random.default_rng(7)
    return [np.append(i, rng.permutation(N_POOL)[:N_DATA]) for i in range(n_toys)]


class SumJob:
    """Sums two float32 features over a toy, with every bit of the rounding that this makes.

    Args:
        trap: what happens at the toy `at`.
        at: number of that toy.
        folder: where each process that prepares leaves a file named by its id. With "kill", only
            the first process to come there is killed.
    """

    def __init__(self, trap: Trap = "", at: int = 0, folder: Path | None = None) -> None:
        self._trap, self._at, self._folder = trap, at, folder
        self._pool = np.random.default_rng(5).normal(size=N_POOL)
        self._features: Float64Array | None = None

    def prepare(self) -> None:
        if self._features is None:
            self._features = np.stack([np.sin(self._pool), np.exp(self._pool)], axis=1)
            if self._folder is not None:
                (self._folder / str(os.getpid())).touch(exist_ok=False)

    def run(self, toys: list[IntArray]) -> Float64Array:
        if any(toy[0] == self._at for toy in toys):
            self._spring()
        if self._features is None:
            msg = "a job must be prepared before it runs"
            raise ParameterError(msg)
        t = np.array([self._features[toy].sum(axis=0) for toy in toys])
        return np.where(self._trap == "nan" and any(toys[0] == self._at), np.nan, t)

    def _spring(self) -> None:
        if self._trap == "interrupt":
            raise KeyboardInterrupt
        if self._trap == "refuse":
            msg = f"toy {self._at} is not to be run"
            raise ParameterError(msg)
        if self._trap == "kill" and self._folder is not None:
            killed = self._folder / "killed"
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if self._trap == "stall":
            time.sleep(600)


def run_all(
    job: SumJob,
    runner: ToyRunner,
    journal: ToyJournal | None = None,
    toys: Sequence[IntArray] | None = None,
) -> Float64Array:
    """Run the toys, in memory unless a journal is given."""
    toys = pool_toys() if toys is None else toys
    journal = journal or ToyJournal.open(None, "")
    return run_toys(
        job, iter(toys), batch_size=BATCH_SIZE, n_toys=len(toys), runner=runner, journal=journal
    )


def _main(path: Path, n_workers: int, folder: Path) -> None:
    """Calibrate until toy 13 and stand still there; what a test starts to kill it."""
    with ToyJournal.open(path, "key") as journal:
        run_all(SumJob("stall", 13, folder), open_runner(n_workers), journal)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
