"""Runs batches of toys in worker processes of this machine.

Processes and pipes rather than an executor: a worker here holds its job in a local variable, ends
at once when the calibration is interrupted, and does not outlive a calibration that was killed.
"""

import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from traceback import format_exception
from typing import Any

from engines.errors import ParameterError, WorkerError
from engines.toy_runs import Results, ToyBatch, ToyJob
from engines.types import Float64Array

__all__ = ["ProcessRunner"]


class ProcessRunner:
    """Computes batches in processes of their own, one batch at a time in each.

    Args:
        n_workers: processes; each holds the whole job, so memory grows with them.
    """

    def __init__(self, n_workers: int) -> None:
        """Start nothing yet."""
        if n_workers < 1:
            msg = f"n_workers must be at least 1; got {n_workers}"
            raise ParameterError(msg)
        self.n_workers = n_workers

    def check(self) -> None:
        """Nothing can be missing."""

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        """Yield the result of every batch as it is finished.

        Raises:
            WorkerError: if a worker is killed, by the kernel for want of memory for instance.
        """
        waiting = iter(batches)
        first = list(islice(waiting, self.n_workers))
        context = get_context("spawn")
        workers: list[_Worker] = []
        try:
            # A large message waits for its reader: all start before any is sent its job.
            workers.extend(_Worker(context) for _ in first)
            payload = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
            for worker in workers:
                worker.send(payload)
            for worker, batch in zip(workers, first, strict=True):
                worker.send_batch(batch)
            yield from _serve(workers, waiting)
        finally:
            for worker in workers:
                worker.stop()


def _serve(workers: list["_Worker"], waiting: Iterator[ToyBatch]) -> Results:
    busy = {worker.connection: worker for worker in workers}
    while busy:
        ready = set(wait(list(busy)))
        for worker in [busy.pop(connection) for connection in list(busy) if connection in ready]:
            result = worker.receive()
            batch = next(waiting, None)
            if batch is not None:
                worker.send_batch(batch)
                busy[worker.connection] = worker
            yield result


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, context: SpawnContext) -> None:
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        # With no other end left in this process, a killed worker reads as the end of the file.
        theirs.close()

    def send_batch(self, batch: ToyBatch) -> None:
        self.send(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL))

    def send(self, payload: bytes) -> None:
        try:
            self.connection.send_bytes(payload)
        except OSError as exc:
            raise self._lost() from exc

    def receive(self) -> tuple[int, Float64Array]:
        try:
            index, outcome = self.connection.recv()
        except (EOFError, OSError) as exc:
            raise self._lost() from exc
        if isinstance(outcome, Exception):
            raise outcome
        return index, outcome

    def stop(self) -> None:
        # It holds nothing that needs tidying up, and may be deep in a batch.
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _lost(self) -> WorkerError:
        self._process.join(timeout=5.0)
        code = self._process.exitcode
        how = f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        msg = f"worker process {self._process.pid} {how}; if memory ran out, use fewer workers"
        return WorkerError(msg)


def _work(connection: "Connection[Any, Any]") -> None:
    """Compute batches until the pipe closes; what a worker process does."""
    # An interrupt of the terminal reaches all its processes: the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        job = connection.recv()
        while True:
            batch = connection.recv()
            connection.send((batch.index, _outcome(job, batch)))


def _outcome(job: ToyJob, batch: ToyBatch) -> Float64Array | Exception:
    try:
        job.prepare()
        return job.run(batch.toys)
    except Exception as exc:  # noqa: BLE001 - raised again in the parent
        exc.add_note("".join(format_exception(exc)))
        return exc


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
