"""Runs `train-encoder` for the engines that are missing, each as a process of its own."""

import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from bench.physics_study.jobs import EngineJob

__all__ = ["Trained", "Trainings"]

_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Trained:
    """How one training ended.

    Attributes:
        job: the engine.
        error: empty, or why there is none.
        seconds: it took.
        skipped: whether the engine was there already.
    """

    job: EngineJob
    error: str = ""
    seconds: float = 0.0
    skipped: bool = False


@dataclass
class Trainings:
    """Trains engines; a training that fails costs no other one.

    Attributes:
        folder: the study's.
        lock: descriptor that every training inherits, so that it holds the study's lock.
        processes: trainings at a time.
    """

    folder: Path
    lock: int
    processes: int = 1
    _running: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def run(self, jobs: Sequence[EngineJob]) -> Generator[Trained, None, None]:
        """Yield each job as its engine is there, those that need no training first.

        However this ends, no training is left running.
        """
        ready = [job for job in jobs if job.path(self.folder).is_file()]
        missing = [job for job in jobs if job not in ready]
        with ThreadPoolExecutor(self.processes) as pool:
            futures = [pool.submit(self._train, job) for job in missing]
            try:
                yield from (Trained(job, skipped=True) for job in ready)
                for future in as_completed(futures):
                    yield future.result()
            finally:
                self._stop()
                for future in futures:
                    future.cancel()

    def _train(self, job: EngineJob) -> Trained:
        started = time.monotonic()
        log = job.path(self.folder).with_suffix(".log")
        with log.open("ab") as output:
            with self._guard:
                if self._stopped.is_set():
                    return Trained(job, "was not started")
                process = subprocess.Popen(  # noqa: S603 - our own command
                    job.command(self.folder),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self.lock,),
                )
                self._running.add(process)
            code = process.wait()
        with self._guard:
            self._running.discard(process)
        seconds = time.monotonic() - started
        if code == 0 and job.path(self.folder).is_file():
            return Trained(job, seconds=seconds)
        return Trained(job, f"{_last_line(log)} (exit code {code}; all of it in {log})", seconds)

    def _stop(self) -> None:
        with self._guard:
            self._stopped.set()
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
