"""The measurements that a study wants of each engine; each is one file, made if it is missing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.physics_study.black_box import measure_boxes
from bench.physics_study.config import BlackBox, MapConfig, Study
from bench.physics_study.embedded import Embedded
from bench.physics_study.jobs import EngineJob, sample_facts
from bench.physics_study.maps import score_window
from bench.physics_study.measure import measure_windows
from bench.physics_study.store import Store, read_json, write_arrays, write_json
from engines.types import AnyArray

__all__ = ["Piece", "missing_pieces", "pieces_of", "read_piece"]


@dataclass(frozen=True)
class Piece:
    """One measurement of one engine.

    Attributes:
        job: the engine.
        kind: `accuracy`, `windows`, `boxes`, `map-SIGNAL` or `left-out`.
        settings: all that it depends on beside the engine, JSON-able.
        measure: does it: a record, or arrays where the suffix is `.npz`.
        suffix: of its file.
    """

    job: EngineJob
    kind: str
    settings: Any
    measure: Callable[[Embedded], dict[str, Any]]
    suffix: str = ".json"

    def path(self, store: Store) -> Path:
        """Return its file; the engine must be there."""
        return store.path_of(self.job, self.kind, self.settings, self.suffix)

    def make(self, embedded: Embedded) -> None:
        """Measure and write."""
        path, record = self.path(embedded.store), self.measure(embedded)
        if self.suffix == ".npz":
            write_arrays(path, record)
        else:
            write_json(path, {**_engine(embedded), "settings": self.settings, **record})


def _engine(embedded: Embedded) -> dict[str, Any]:
    job, facts = embedded.job, embedded.facts
    return {
        "encoder": job.encoder.name,
        "dim": job.dim or facts.dim,
        "seed": job.seed,
        "without": job.without,
        "engine": {"fingerprint": embedded.fingerprint, **asdict(facts)},
    }


def pieces_of(study: Study, job: EngineJob) -> list[Piece]:
    """Return what the study wants to know of an engine."""
    if job.without is not None:
        return [_left_out(study, job)]
    test, signals = study.test, study.data.signals
    settings: dict[str, Any] = {
        "test": asdict(test),
        "background": vars(sample_facts(study.data.test)),
        "signals": {name: vars(sample_facts(source)) for name, source in signals.items()},
    }
    pieces = [
        Piece(job, "accuracy", settings["background"], _accuracy),
        Piece(job, "windows", settings, partial(_windows, study=study)),
    ]
    box, maps = study.black_box, study.maps
    if box is not None and job.encoder.name in box.encoders:
        key = {**settings, "test": {**asdict(box), "encoders": None}}
        pieces.append(Piece(job, "boxes", key, partial(_boxes, box=box)))
    if maps is not None and job.encoder.name in maps.encoders and job.seed == job.encoder.seeds[0]:
        key = {**settings, "fraction": maps.fraction}
        for signal in maps.signals:
            measure = partial(_map, study=study, maps=maps, signal=signal)
            pieces.append(Piece(job, f"map-{signal}", key, measure, ".npz"))
    return pieces


def _left_out(study: Study, job: EngineJob) -> Piece:
    if study.selection is None:
        msg = f"{job} belongs to a selection"
        raise ValueError(msg)
    settings = {
        "test": asdict(study.selection.test),
        "background": vars(sample_facts(study.data.test)),
        "extra": [vars(sample_facts(source)) for source in study.data.extra],
        "label": study.data.processes[job.without or ""],
    }
    return Piece(job, "left-out", settings, partial(_measure_left_out, study=study))


def _accuracy(embedded: Embedded) -> dict[str, Any]:
    """Measure linear accuracy: a logistic regression on one half of the test background."""
    from training.evaluate import evaluate_linear

    labels = embedded.background_labels()
    if labels is None or len(np.unique(labels)) < 2:
        return {"accuracy": None}
    embeddings = embedded.background()
    classes, targets = np.unique(labels, return_inverse=True)
    half = len(targets) // 2
    found = evaluate_linear(
        embeddings[:half], targets[:half], embeddings[half:], targets[half:].astype(np.int64)
    )
    return {
        "accuracy": {
            "accuracy": found.accuracy,
            "error": found.error,
            "majority": found.majority,
            "recall": dict(zip(map(str, classes), found.recall, strict=True)),
        }
    }


def _windows(embedded: Embedded, *, study: Study) -> dict[str, Any]:
    signals = embedded.signals(study.data.signals)
    return measure_windows(embedded.background(), signals, study.test, embedded.threads)


def _boxes(embedded: Embedded, *, box: BlackBox) -> dict[str, Any]:
    signals = embedded.signals(box.signals)
    return measure_boxes(embedded.background(), signals, box, embedded.threads)


def _map(embedded: Embedded, *, study: Study, maps: MapConfig, signal: str) -> dict[str, AnyArray]:
    test = study.test
    return score_window(
        embedded.background(),
        embedded.signals([signal])[signal],
        window=test.window,
        fraction=maps.fraction,
        divided={"toys": test.toys, "n_ref": test.n_ref, "seed": test.seed},
        threads=embedded.threads,
    )


def _measure_left_out(embedded: Embedded, *, study: Study) -> dict[str, Any]:
    selection, process = study.selection, embedded.job.without or ""
    background, anomaly = embedded.without_process()
    config = selection.test if selection is not None else study.test
    return measure_windows(background, {process: anomaly}, config, embedded.threads)


def missing_pieces(study: Study, job: EngineJob, store: Store) -> list[Piece]:
    """Return the measurements of an engine that is there, which are not."""
    return [piece for piece in pieces_of(study, job) if not piece.path(store).is_file()]


def read_piece(piece: Piece, store: Store) -> dict[str, Any] | None:
    """Return a record, or None where engine or record is missing."""
    if not piece.job.path(store.folder).is_file():
        return None
    return read_json(piece.path(store))
