"""How fast engines embed by themselves, beside what arithmetic and memory of the machine allow."""

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.flops import flops_per_event
from bench.limits import Limits
from bench.spread import spread
from engines.artifact import fingerprint, load_onnx
from engines.engine import Engine, open_engine
from engines.errors import ArtifactError, EngineUnavailableError, ParameterError
from engines.event_files import read_events
from engines.events import N_FEATURES, N_OBJECTS
from engines.nplm import check_device
from engines.plans.precision import PRECISIONS
from engines.progress import Progress
from engines.samples import sample_path

__all__ = ["EngineRate", "Settings", "measure"]

#: Events that batches are cut from in turn.
_N_EVENTS = 16_384
_EVENT_BYTES = 4 * N_OBJECTS * N_FEATURES


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        engines: encoder files, .onnx or .plan.
        batches: events embedded at once.
        device: where an .onnx runs; a plan runs on the GPU.
        threads: CPU threads.
        seconds: at least, of one timing.
        repeat: timings of everything, taking turns.
    """

    engines: tuple[Path, ...]
    batches: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096)
    device: str = "cpu"
    threads: int = 1
    seconds: float = 0.2
    repeat: int = 7


class EngineRate:
    """Times an engine on real events in memory of its own.

    Args:
        engine: the engine.
        batch: events embedded at once.
        seconds: at least, of one timing.
    """

    def __init__(self, engine: Engine, batch: int, seconds: float) -> None:
        """Fill the memory, and embed a little so that everything is warm."""
        self._engine, self._batch, self._seconds = engine, batch, seconds
        particles = engine.input_buffer(max(batch, _N_EVENTS // batch * batch))
        events = read_events(sample_path("sm_unseen"))
        np.copyto(particles, np.resize(events, particles.shape))
        self._out = np.empty((batch, engine.dim), dtype=np.float32)
        firsts = range(0, len(particles), batch)
        self._batches = itertools.cycle([particles[first : first + batch] for first in firsts])
        for some in itertools.islice(self._batches, 3):
            engine.embed_into(some, self._out)

    def measure_hz(self) -> float:
        """Return the events a second of one timing."""
        started = time.perf_counter()
        seconds, n_done = 0.0, 0
        while seconds < self._seconds:
            self._engine.embed_into(next(self._batches), self._out)
            n_done += self._batch
            seconds = time.perf_counter() - started
        return n_done / seconds


def measure(settings: Settings) -> dict[str, Any]:
    """Time every engine at every batch size, and the machine, in turn; JSON-able.

    Returns:
        `peak_gflops` by precision and `bandwidth_gb_per_s`, the two limits; `engines`: what each
        needs per event, its events/s by batch size, and their share of each limit, as measured
        just before; `refused`: why an engine cannot run here; `load_before`: the system's load.

    Raises:
        ArtifactError: if a file is missing or damaged.
        ParameterError: if the device is none of this machine's, or two files share a name.
    """
    check_device(settings.device)
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        opened, refused = _open(settings, stack)
        timed = {
            (name, batch): EngineRate(engine, batch, settings.seconds)
            for name, engine in opened.items()
            for batch in settings.batches
        }
        limits = Limits(settings.device, settings.threads)
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in timed}
        progress = Progress(settings.repeat, "timings of everything")
        for _ in range(settings.repeat):
            limits.measure()
            for key, rate in timed.items():
                rates[key].append(rate.measure_hz())
            progress.advance()
        progress.close()
        engines = [
            _Facts.of(path, opened[path.name]).record(settings.batches, rates, limits)
            for path in settings.engines
            if path.name in opened
        ]
    facts = {"engines": engines, "refused": refused, "load_before": load_before}
    return {**limits.record(), **facts}


def _open(settings: Settings, stack: ExitStack) -> tuple[dict[str, Engine], dict[str, str]]:
    """Return the engines that run here, by file name, and why the others do not."""
    names = [path.name for path in settings.engines]
    if len(set(names)) < len(names):
        msg = f"engine files must have different names; got {names}; rename one"
        raise ParameterError(msg)
    opened: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    for path in settings.engines:
        try:
            engine = open_engine(
                path,
                device=settings.device,
                threads=settings.threads,
                max_batch=max(settings.batches),
            )
        except EngineUnavailableError as exc:
            refused[path.name] = str(exc)
        else:
            opened[path.name] = stack.enter_context(engine)
    return opened, refused


@dataclass(frozen=True)
class _Facts:
    """What an engine needs per event; the operations are None where its graph is not known."""

    name: str
    runtime: str
    fingerprint: str
    precision: str
    flops: int | None
    n_bytes: int

    @classmethod
    def of(cls, path: Path, engine: Engine) -> "_Facts":
        words = engine.runtime.replace(",", " ").split()
        precision = next((name for name in PRECISIONS if name in words), "fp32")
        n_bytes = _EVENT_BYTES + 4 * engine.dim
        return cls(
            path.name,
            engine.runtime,
            engine.fingerprint,
            precision,
            _flops(path.with_suffix(".onnx"), engine.fingerprint),
            n_bytes,
        )

    def record(
        self,
        batches: Sequence[int],
        rates: dict[tuple[str, int], list[float]],
        limits: Limits,
    ) -> dict[str, Any]:
        return {
            "engine": self.name,
            "runtime": self.runtime,
            "precision": self.precision,
            "fingerprint": self.fingerprint,
            "flops_per_event": self.flops,
            "bytes_per_event": self.n_bytes,
            "rates": [
                {"batch": batch, **self._shares(rates[self.name, batch], limits)}
                for batch in batches
            ],
        }

    def _shares(self, rates_hz: list[float], limits: Limits) -> dict[str, Any]:
        peaks = limits.flops.get(self.precision, limits.flops["fp32"])
        pairs = list(zip(rates_hz, peaks, limits.bandwidth, strict=True))
        share_of_peak = None
        if self.flops is not None:
            share_of_peak = spread([hz * self.flops / peak for hz, peak, _ in pairs])
        return {
            "events_hz": spread(rates_hz),
            "share_of_peak": share_of_peak,
            "share_of_bandwidth": spread([hz * self.n_bytes / width for hz, _, width in pairs]),
        }


def _flops(path: Path, wanted: str) -> int | None:
    """Return the operations of the graph that an engine came from, if it is beside it."""
    try:
        model = load_onnx(path)
        return flops_per_event(model) if fingerprint(model) == wanted else None
    except ArtifactError:
        return None
