"""Runs batches of toys on a Dask cluster; the only file that imports Dask."""

import asyncio
import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Lock
from typing import Any, cast

import dask
import numpy as np
import numpy.typing as npt
from distributed import (
    Client,
    Future,
    KilledWorker,
    Security,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError, connect

from engines.errors import EndpointError, MismatchError, WorkerError
from engines.toy_runs import Results, ToyBatch, ToyJob
from engines.types import Float64Array

__all__ = ["DaskRunner"]

#: Half the bytes of the indices on their way to a worker.
_SmallIndices = npt.NDArray[np.uint32]


class DaskRunner:
    """Computes batches on the workers of a cluster, which have this package installed.

    Workers may come and go: a batch whose worker is lost runs again on another, and a worker that
    comes late is given the job too.

    Args:
        address: of the scheduler, such as tcp://host:8786.
        timeout_s: how long to wait for the scheduler, and for a first worker.
    """

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        """Connect to nothing yet."""
        self.address = address
        self.timeout_s = timeout_s

    def check(self) -> None:
        """Find out whether the cluster is there.

        Raises:
            EndpointError: if there is no scheduler at the address, or it has no workers.
        """
        with _connected(self.address, self.timeout_s):
            pass

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        """Yield the result of every batch as it is finished.

        Raises:
            EndpointError: if there is no scheduler at the address, or it has no workers.
            MismatchError: if the workers lack this package, or have another version of it.
            WorkerError: if the cluster is lost, or a batch kills every worker it is given to.
        """
        with _connected(self.address, self.timeout_s) as client:
            try:
                with _held(client, job) as name:
                    yield from _compute(client, name, iter(batches))
            except KilledWorker as exc:
                msg = (
                    f"a batch of toys ended every worker of {self.address} that it was given to; "
                    "if their memory ran out, give them more"
                )
                raise WorkerError(msg) from exc
            except (CancelledError, CommClosedError, ClosedClientError) as exc:
                msg = f"the connection to the Dask cluster {self.address} was lost"
                raise WorkerError(msg) from exc


@contextmanager
def _connected(address: str, timeout_s: float) -> Iterator[Client]:
    try:
        # A client that finds nothing would complain once more when it is collected.
        asyncio.run(_greet(address, timeout_s))
        client = Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError) as exc:
        msg = f"no Dask scheduler answers at {address}; start one with: dask scheduler"
        raise EndpointError(msg) from exc
    with client:
        try:
            client.wait_for_workers(1, timeout=timeout_s)
        except TimeoutError as exc:
            msg = f"the Dask scheduler {address} has no workers; start some: dask worker {address}"
            raise EndpointError(msg) from exc
        yield client


async def _greet(address: str, timeout_s: float) -> None:
    """Shake hands, in bounded time even with a server that is no scheduler and says nothing."""
    options = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout_s, **options), timeout_s)
    await comm.close()


@contextmanager
def _held(client: Client, job: ToyJob) -> Iterator[str]:
    """Give the job to all workers, those that come later too; yield the name they hold it by."""
    payload = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
    # Named by its content: what a calibration that was killed left behind is used again.
    name = f"nplm-stream-toys-{hashlib.sha256(payload).hexdigest()[:16]}"
    try:
        client.register_plugin(_HeldJob(payload), name)
    except (ImportError, AttributeError) as exc:
        msg = f"the Dask workers must have this version of nplm-stream installed; got: {exc}"
        raise MismatchError(msg) from exc
    try:
        yield name
    finally:
        # Tidying up that fails must neither cost the result nor hide the error before it.
        with contextlib.suppress(Exception):
            _ask(client, lambda: client.unregister_worker_plugin(name))


def _compute(client: Client, name: str, waiting: Iterator[ToyBatch]) -> Results:
    """Keep every thread of every worker busy with one batch more than it runs."""
    completed = as_completed(loop=client.loop)
    indices: dict[Future[Float64Array], int] = {}
    more = True
    while True:
        room = 2 * sum(_ask(client, client.nthreads).values()) - len(indices)
        while more and room > 0:
            batch = next(waiting, None)
            more = batch is not None
            if batch is not None:
                future = _submit(client, name, batch)
                indices[future] = batch.index
                completed.add(future)
                room -= 1
        if not indices:
            return
        future = next(completed)
        yield indices.pop(future), future.result()


def _ask(client: Client, question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the scheduler's answer; losing it shows in one of several ways, here in one."""
    try:
        if client.status == "running":
            return question()
    except (OSError, AttributeError) as exc:
        raise ClosedClientError from exc
    raise ClosedClientError


def _submit(client: Client, name: str, batch: ToyBatch) -> "Future[Float64Array]":
    toys = [toy.astype(np.uint32) for toy in batch.toys]
    # Indices that one task needs once are no mistake, however many.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        return client.submit(_run_batch, name, toys, pure=False)


def _run_batch(name: str, toys: list[_SmallIndices]) -> Float64Array:
    held = get_worker().plugins.get(name)
    if held is None:
        msg = "another calibration with the same events and settings has ended on this cluster"
        raise WorkerError(msg)
    return cast("_HeldJob", held).run(toys)


class _HeldJob(WorkerPlugin):
    """The job in a worker: read and prepared once, by the first batch, for all its threads."""

    idempotent = True

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def setup(self, worker: Worker) -> None:  # noqa: ARG002
        self._lock = Lock()
        self._job: ToyJob | None = None

    def run(self, toys: list[_SmallIndices]) -> Float64Array:
        with self._lock:
            # Not in `setup`, where the worker would be deaf to its scheduler meanwhile.
            if self._job is None:
                self._job = pickle.loads(self._payload)  # noqa: S301 - made by DaskRunner
            self._job.prepare()
        return self._job.run([toy.astype(np.int64) for toy in toys])
