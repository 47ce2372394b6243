"""Toys on a real Dask cluster of two worker processes: the bits of a serial run."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engines.errors import EndpointError, ParameterError, WorkerError
from engines.nplm import draw_toys
from engines.reference_toys import ReferenceToys
from engines.toy_journal import ToyJournal
from engines.toy_runs import SerialRunner, open_runner, run_toys
from engines.types import Float64Array
from tests.support import gaussians, small_reference, window_spec
from tests.support_toys import N_TOYS, SumJob, pool_toys, run_all

if TYPE_CHECKING:
    from distributed import LocalCluster

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator["LocalCluster"]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as started:
        yield started


@pytest.fixture(scope="module")
def expected() -> Float64Array:
    return run_all(SumJob(), SerialRunner())


def left_behind(cluster: "LocalCluster") -> list[str]:
    plugins = cluster.scheduler.worker_plugins if cluster.scheduler is not None else ()
    return [name for name in plugins if name.startswith("nplm-stream")]


def test_cluster_gives_the_bits_of_a_serial_run_again_and_again(
    cluster: "LocalCluster", tmp_path: Path, expected: Float64Array
) -> None:
    runner = open_runner(scheduler=cluster.scheduler_address)
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        np.testing.assert_array_equal(run_all(SumJob(folder=folder), runner), expected)
        # A worker that prepared the same job twice would have failed.
        assert 1 <= len(list(folder.iterdir())) <= 2
    assert left_behind(cluster) == []


def test_toys_of_a_reference_have_the_same_t_here_in_processes_and_on_the_cluster(
    cluster: "LocalCluster",
) -> None:
    """The real job: two widths, and windows merged by tens, in batches of several toys."""
    rng = np.random.default_rng(0)
    reference = small_reference(rng, sigma_quantiles=(0.3, 0.9))
    pool, spec = gaussians(6000, rng), window_spec("count", 200)
    for scale in (1, 10):
        toys = list(draw_toys(spec, len(pool), 12, rng, scale=scale))
        here, processes, on_cluster = (
            run_toys(
                ReferenceToys(reference, pool, scale=scale),
                toys,
                batch_size=5,
                n_toys=12,
                runner=runner,
                journal=ToyJournal.open(None, ""),
            )
            for runner in (
                SerialRunner(),
                open_runner(2),
                open_runner(scheduler=cluster.scheduler_address),
            )
        )
        assert here.shape == (12, 2)
        np.testing.assert_array_equal(processes, here)
        np.testing.assert_array_equal(on_cluster, here)


def test_killed_worker_is_made_good_by_the_others(
    cluster: "LocalCluster", tmp_path: Path, expected: Float64Array
) -> None:
    runner = open_runner(scheduler=cluster.scheduler_address)
    t = run_all(SumJob("kill", at=9, folder=tmp_path), runner)
    np.testing.assert_array_equal(t, expected)
    assert (tmp_path / "killed").exists()


def test_batch_that_kills_its_workers_is_one_sentence_and_the_next_run_continues(
    cluster: "LocalCluster",
    tmp_path: Path,
    expected: Float64Array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    runner = open_runner(scheduler=cluster.scheduler_address)
    job = SumJob("kill", at=13, folder=tmp_path)
    with ToyJournal.open(tmp_path / "t", "key") as journal:
        with pytest.raises(WorkerError, match=r"give them more; \d+ of 23 toys are kept in"):
            run_all(job, runner, journal)
        np.testing.assert_array_equal(run_all(job, SerialRunner(), journal), expected)


def test_lost_scheduler_is_one_sentence_and_keeps_what_is_done() -> None:
    from engines.toy_dask import DaskRunner

    journal = ToyJournal.open(None, "")
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as lost:
        runner = DaskRunner(lost.scheduler_address, timeout_s=1.0)
        with pytest.raises(WorkerError, match=r"cluster tcp://\S+ was lost; \d+ of 23 toys"):
            run_toys(
                SumJob(),
                iter(pool_toys()),
                batch_size=1,
                n_toys=N_TOYS,
                runner=runner,
                journal=journal,
                progress=lambda _: lost.close(),
            )
    assert 1 <= journal.n_toys < N_TOYS


def test_error_of_the_job_arrives_as_it_was_raised(cluster: "LocalCluster") -> None:
    with pytest.raises(ParameterError, match=r"^toy 9 is not to be run$"):
        run_all(SumJob("refuse", at=9), open_runner(scheduler=cluster.scheduler_address))
    assert left_behind(cluster) == []


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "here", "http://127.0.0.1:1"])
def test_absent_scheduler_is_one_sentence(address: str) -> None:
    from engines.toy_dask import DaskRunner

    with pytest.raises(EndpointError, match=f"no Dask scheduler answers at {address}; start one"):
        DaskRunner(address, timeout_s=0.2).check()


def test_server_of_another_kind_is_one_sentence() -> None:
    from engines.toy_dask import DaskRunner

    with socket.create_server(("127.0.0.1", 0)) as silent:
        runner = DaskRunner(f"tcp://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(EndpointError, match="no Dask scheduler answers"):
            run_all(SumJob(), runner)


def test_cluster_without_workers_is_one_sentence() -> None:
    from engines.toy_dask import DaskRunner

    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", protocol="tcp"
        ) as empty,
        pytest.raises(EndpointError, match="has no workers; start some: dask worker tcp"),
    ):
        run_all(SumJob(), DaskRunner(empty.scheduler_address, timeout_s=0.5))
