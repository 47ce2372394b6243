"""From finished chunks to one event file in the ADC2021 layout."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from engines.errors import ArtifactError, MismatchError
from engines.event_files import EventWriter
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray, IntArray
from training.simulation.plan import Plan
from training.simulation.processes import COMMON_SETTINGS, PROCESSES, SOFT_SETTINGS
from training.simulation.store import ChunkStore, read_chunk

__all__ = ["ProcessSummary", "holds", "write_output"]

_BLOCK = 4096


@dataclass(frozen=True)
class ProcessSummary:
    """What came of a process.

    Attributes:
        name: which.
        label: what its events carry in `process`.
        text: what happens in it.
        settings: Pythia's beside the common ones.
        decay_tries: how often the decays of an event were repeated at most; 0 for once.
        n_accepted: events in the file.
        n_generated: events that were generated for them.
        cross_section_mb: of what was generated, in millibarn.
        n_repeated: realisations that repeat an event's first response.
    """

    name: str
    label: int
    text: str
    settings: tuple[str, ...]
    decay_tries: int
    n_accepted: int
    n_generated: int
    cross_section_mb: float
    n_repeated: int


class _SimulationWriter(EventWriter):
    """An event file with K further responses to each event in `Realisations`."""

    def add_realisations(self, realisations: FloatArray) -> None:
        """Add (n, K, 19, 3) float32."""
        if "Realisations" not in self._file:
            self._dataset("Realisations", realisations.shape[1:], "float32")
        dataset = self._file["Realisations"]
        first = len(dataset)
        dataset.resize(first + len(realisations), axis=0)
        dataset[first:] = realisations


def holds(path: Path, plan: Plan) -> bool:
    """Whether the output is there already.

    Raises:
        MismatchError: if another file is there.
    """
    if not path.exists():
        return False
    expected = _origin(plan)
    try:
        with h5py.File(path) as file:
            found = {name: str(file.attrs.get(name)) for name in expected}
    except OSError:
        found = {}
    if found.get("request_id") != expected["request_id"]:
        other = "other events"
    elif any(found[name] != str(value) for name, value in expected.items()):
        other = "events of other versions"
    else:
        return True
    msg = (
        f"{path} is there already and holds {other} than this command makes; give another "
        "--output, or --fresh to replace it"
    )
    raise MismatchError(msg)


def write_output(path: Path, plan: Plan, store: ChunkStore) -> list[ProcessSummary]:
    """Write the file; it appears whole or not at all.

    Raises:
        ArtifactError: if it cannot be written, or a chunk is damaged.
    """
    paths: dict[str, list[Path]] = {name: [] for name, _ in plan.counts}
    for chunk in plan.chunks():
        if chunk.process is not None:
            paths[chunk.process.name].append(store.path(chunk.name))
    summaries = [_summarise(name, paths[name]) for name, _ in plan.counts]
    streams = [_Stream(paths[name], plan.resimulate) for name, _ in plan.counts]
    labels = np.array([summary.label for summary in summaries])
    try:
        with _SimulationWriter(path, attributes=_attributes(plan, summaries)) as writer:
            for order in _blocks(plan):
                particles, realisations = _gather(streams, order, plan.resimulate)
                writer.append(particles, labels[order])
                if plan.resimulate:
                    writer.add_realisations(realisations)
    except (OSError, RuntimeError) as exc:  # h5py raises either when the disk is full
        reason = str(exc).partition("\n")[0]
        msg = f"cannot write {path} ({reason}); make room and run the same command again"
        raise ArtifactError(msg) from exc
    return summaries


def _blocks(plan: Plan) -> Iterator[IntArray]:
    """Yield the process of each event, by its place in the plan, block by block."""
    counts = [n for _, n in plan.counts]
    order = np.repeat(np.arange(len(counts)), counts)
    if plan.shuffle:
        plan.order().shuffle(order)
    for first in range(0, len(order), _BLOCK):
        yield order[first : first + _BLOCK]


class _Stream:
    """The events of one process, read chunk by chunk."""

    def __init__(self, paths: Sequence[Path], n_realisations: int) -> None:
        self._paths = iter(paths)
        self._particles = np.zeros((0, N_OBJECTS, N_FEATURES), np.float32)
        self._realisations = np.zeros((0, n_realisations, N_OBJECTS, N_FEATURES), np.float32)

    def take(self, n: int) -> tuple[FloatArray, FloatArray]:
        """Return the next n events and their realisations."""
        particles, realisations = [self._particles], [self._realisations]
        while sum(map(len, particles)) < n:
            arrays = read_chunk(next(self._paths))
            particles.append(arrays["particles"])
            realisations.append(arrays["realisations"])
        first, second = np.concatenate(particles), np.concatenate(realisations)
        self._particles, self._realisations = first[n:], second[n:]
        return first[:n], second[:n]


def _gather(
    streams: Sequence[_Stream], order: IntArray, n_realisations: int
) -> tuple[FloatArray, FloatArray]:
    particles = np.zeros((len(order), N_OBJECTS, N_FEATURES), np.float32)
    realisations = np.zeros((len(order), n_realisations, N_OBJECTS, N_FEATURES), np.float32)
    for index, stream in enumerate(streams):
        here = np.flatnonzero(order == index)
        particles[here], realisations[here] = stream.take(len(here))
    return particles, realisations


def _summarise(name: str, paths: Sequence[Path]) -> ProcessSummary:
    chunks = [read_chunk(path) for path in paths]
    generated = np.array([int(chunk["n_generated"]) for chunk in chunks])
    sections = np.array([float(chunk["cross_section_mb"]) for chunk in chunks])
    process = PROCESSES[name]
    return ProcessSummary(
        name=name,
        label=process.label,
        text=process.text,
        settings=process.settings,
        decay_tries=process.decay_tries,
        n_accepted=sum(len(chunk["particles"]) for chunk in chunks),
        n_generated=int(generated.sum()),
        cross_section_mb=float(np.average(sections, weights=generated)),
        n_repeated=sum(int(chunk["n_repeated"]) for chunk in chunks),
    )


def _attributes(plan: Plan, summaries: Sequence[ProcessSummary]) -> dict[str, Any]:
    """Return where the events come from; no times, so that equal runs give equal files."""
    processes = {summary.name: asdict(summary) for summary in summaries}
    return _origin(plan) | {"processes": json.dumps(processes)}


def _origin(plan: Plan) -> dict[str, Any]:
    """Return the attributes that are known before anything is simulated."""
    settings = plan.settings()
    versions = settings["versions"]
    return {
        "generator": f"Pythia (pythia8mc {versions['pythia8mc']}), pp at 13 TeV",
        "generator_settings": json.dumps(COMMON_SETTINGS),
        "soft_settings": json.dumps(SOFT_SETTINGS),
        "detector": json.dumps(settings["detector"]),
        "versions": json.dumps(versions),
        "seed": plan.seed,
        "soft_events": plan.n_soft,
        "resimulate": plan.resimulate,
        "shuffled": plan.shuffle,
        # Of all that was asked for; the random streams are derived from it.
        "request_id": plan.request_id,
    }
