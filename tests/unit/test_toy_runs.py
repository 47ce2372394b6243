"""Toys in batches: whatever order they finish in, and however often they are interrupted."""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from engines.errors import MissingPackageError, ParameterError, SampleSizeError, WorkerError
from engines.toy_journal import ToyJournal
from engines.toy_processes import ProcessRunner
from engines.toy_runs import (
    Results,
    SerialRunner,
    ToyBatch,
    ToyJob,
    cut_batches,
    open_runner,
    run_toys,
)
from engines.types import Float64Array
from tests.support_toys import BATCH_SIZE, N_TOYS, SumJob, pool_toys, run_all


@pytest.fixture(scope="module")
def expected() -> Float64Array:
    job = SumJob()
    job.prepare()
    return np.concatenate([job.run([toy]) for toy in pool_toys()])


class BackwardRunner(SerialRunner):
    """Finishes the last batch first."""

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        yield from SerialRunner().run(job, reversed(list(batches)))


class LostRunner(SerialRunner):
    """Finishes two batches and is lost."""

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        results = SerialRunner().run(job, batches)
        yield next(results)
        yield next(results)
        msg = "worker process 7 was killed by SIGKILL"
        raise WorkerError(msg)


def test_batches_hold_every_toy_once_and_draw_no_more_than_asked() -> None:
    source = iter(pool_toys())
    batches = cut_batches(source, 4)
    assert next(batches).toys[3][0] == 3
    assert next(source)[0] == 4
    rest = list(batches)
    assert [(batch.index, batch.first, len(batch.toys)) for batch in rest] == [
        (1, 4, 4), (2, 8, 4), (3, 12, 4), (4, 16, 4), (5, 20, 2)
    ]  # fmt: skip


def test_t_comes_in_the_order_of_the_toys(expected: Float64Array) -> None:
    np.testing.assert_array_equal(run_all(SumJob(), SerialRunner()), expected)
    np.testing.assert_array_equal(run_all(SumJob(), BackwardRunner()), expected)


def test_interrupted_run_continues(
    tmp_path: Path, expected: Float64Array, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "d4.ref.toys"
    with (
        caplog.at_level(logging.INFO),
        ToyJournal.open(path, "key") as journal,
        pytest.raises(KeyboardInterrupt),
    ):
        run_all(SumJob("interrupt", at=13), SerialRunner(), journal)
    assert f"12 of 23 toys are kept in {path}; run the same command again" in caplog.text
    finished: list[int] = []
    with ToyJournal.open(path, "key") as journal:
        t = run_toys(
            SumJob("refuse", at=11),
            iter(pool_toys()),
            batch_size=BATCH_SIZE,
            n_toys=N_TOYS,
            runner=SerialRunner(),
            journal=journal,
            progress=finished.append,
        )
    np.testing.assert_array_equal(t, expected)
    assert finished == [4, 4, 3]


def test_finished_run_computes_and_prepares_nothing_again(
    tmp_path: Path, expected: Float64Array
) -> None:
    journal = ToyJournal.open(None, "")
    run_all(SumJob(), SerialRunner(), journal)
    np.testing.assert_array_equal(
        run_all(SumJob(folder=tmp_path), SerialRunner(), journal), expected
    )
    assert list(tmp_path.iterdir()) == []


def test_more_toys_continue_from_fewer(expected: Float64Array) -> None:
    journal = ToyJournal.open(None, "")
    run_all(SumJob(), SerialRunner(), journal, pool_toys(10))
    job = SumJob("refuse", at=7)
    np.testing.assert_array_equal(run_all(job, SerialRunner(), journal), expected)


def test_lost_worker_is_one_sentence_with_what_is_kept(tmp_path: Path) -> None:
    journal = ToyJournal.open(tmp_path / "t", "key")
    with journal, pytest.raises(WorkerError, match=r"SIGKILL; 8 of 23 toys are kept in .*; run"):
        run_all(SumJob(), LostRunner(), journal)
    with pytest.raises(WorkerError, match=r"SIGKILL; 8 of 23 toys were done$"):
        run_all(SumJob(), LostRunner())


def test_too_few_toys_are_refused() -> None:
    with pytest.raises(SampleSizeError, match="at most the toys drawn, 5; got 6"):
        run_toys(
            SumJob(),
            pool_toys(5),
            batch_size=4,
            n_toys=6,
            runner=SerialRunner(),
            journal=ToyJournal.open(None, ""),
        )


def test_t_that_is_not_finite_is_refused_and_not_kept() -> None:
    journal = ToyJournal.open(None, "")
    with pytest.raises(ParameterError, match=r"finite; got \[nan, nan\] for toy 8; raise --lam"):
        run_all(SumJob("nan", at=8), SerialRunner(), journal)
    assert journal.n_toys == 8


def test_runner_is_chosen_by_what_is_asked_for() -> None:
    assert isinstance(open_runner(), SerialRunner)
    several = open_runner(3)
    assert isinstance(several, ProcessRunner)
    assert several.n_workers == 3
    with pytest.raises(ParameterError, match="n_workers must be at least 1; got 0"):
        ProcessRunner(0)


def test_missing_dask_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "engines.toy_dask", raising=False)
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(
        MissingPackageError, match=r"package dask; .* pip install 'nplm-stream\[dask\]'"
    ):
        open_runner(scheduler="tcp://127.0.0.1:8786")
