"""A study's folder: engines, embeddings and measurements, each written whole or not at all."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.physics_study.jobs import EngineJob, sample_facts, settings_key
from engines.errors import ArtifactError
from engines.events import EventRange
from engines.types import AnyArray, FloatArray

__all__ = ["Store"]

#: Part of the key of every measurement: raise it when what is measured changes.
_VERSION = 1


@dataclass(frozen=True)
class Store:
    """Where a study keeps what it has done.

    Attributes:
        folder: the study's folder.
    """

    folder: Path

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            ArtifactError: if they cannot be made.
        """
        try:
            for name in ("engines", "embeddings", "results", "tables", "figures"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"cannot write to the study's folder {self.folder} ({exc}); choose another"
            raise ArtifactError(msg) from exc

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder; yields a descriptor that trainings inherit, and so hold it too.

        Raises:
            ArtifactError: if another study, or a training left by one that was killed, holds it.
        """
        self.prepare()
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                msg = (
                    f"the study's folder {self.folder} is in use by another bench-physics, or by a "
                    "train-encoder that one left behind; wait for it or end it"
                )
                raise ArtifactError(msg) from exc
            yield file.fileno()

    def path_of(self, job: EngineJob, kind: str, settings: Any, suffix: str = ".json") -> Path:  # noqa: ANN401
        """Return the file of a measurement; its name changes with engine, kind and settings.

        Args:
            job: whose engine; it must be there.
            kind: what is measured.
            settings: how, JSON-able.
            suffix: of the file.
        """
        engine = hashlib.sha256(job.path(self.folder).read_bytes()).hexdigest()
        key = settings_key([_VERSION, engine, kind, settings])
        return self.folder / "results" / f"{job.name}.{kind}.{key}{suffix}"

    def embeddings(
        self, fingerprint: str, source: EventRange, embed: Callable[[], FloatArray]
    ) -> FloatArray:
        """Return the embeddings of a range, (n, d) float32, from the disk if they are there."""
        events = sample_facts(source)
        key = f"{fingerprint[:16]}-{events.content_id[:16]}-{events.start}-{events.stop}"
        path = self.folder / "embeddings" / f"{key}.npy"
        if path.is_file():
            found: FloatArray = np.load(path)
            return found
        embedded = embed()
        with _whole(path) as part, part.open("wb") as file:
            np.save(file, embedded)
        return embedded


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with _whole(path) as part:
        part.write_text(text)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    write_text(path, json.dumps(record, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: dict[str, AnyArray]) -> None:
    """Write arrays as one compressed .npz, whole or not at all."""
    with _whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a record, or None if there is none.

    Raises:
        ArtifactError: if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except ValueError as exc:
        msg = f"the measurement {path} is damaged ({exc}); remove it and run the study again"
        raise ArtifactError(msg) from exc
    return record


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as exc:
        msg = f"cannot write {path} ({exc}); make room, or choose another folder"
        raise ArtifactError(msg) from exc
    finally:
        part.unlink(missing_ok=True)
