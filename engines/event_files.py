"""HDF5 event files, as the ADC2021 challenge ships them.

Dataset `Particles` of shape (n, 19, 4) with a class column, or (n, 19, 3); an optional integer
label per event in `process` or `background_ID`.

Source: Govorkova et al., doi:10.1038/s41597-022-01187-8.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from engines.errors import ArtifactError, EventError
from engines.events import (
    N_FEATURES,
    N_OBJECTS,
    OBJECT_CLASSES,
    EventRange,
    check_events,
    check_labels,
)
from engines.hdf5 import hdf5_errors
from engines.hdf5_storage import find_object
from engines.types import AnyArray, FloatArray, IntArray

__all__ = [
    "LABEL_DATASETS",
    "EventFile",
    "EventWriter",
    "read_events",
    "read_labels",
    "write_events",
]

LABEL_DATASETS = ("process", "background_ID")
_SLICE = 65_536
_CONTENT_ID_EVENTS = 1024


class EventFile:
    """An HDF5 event file, read in slices so that its size does not matter.

    Args:
        path: the file.

    Raises:
        ArtifactError: if the file is missing, truncated, not HDF5, or holds no `Particles`.
        EventError: if `Particles` has another shape than (n, 19, 3 or 4).
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file and check its layout."""
        self.path = Path(path)
        with hdf5_errors(self.path, "is not a complete HDF5 file"):
            if not self.path.is_file():
                msg = f"event file {self.path} does not exist; check the path"
                raise ArtifactError(msg)
            self._file = h5py.File(self.path, "r")
        try:
            with hdf5_errors(self.path):
                self._particles = self._find_particles()
                self._n_events = int(self._particles.shape[0])
                self._labels = self._find_labels()
        except Exception:
            self._close()
            raise

    def _find_particles(self) -> h5py.Dataset:
        particles = find_object(self._file, "Particles", self.path)
        if not isinstance(particles, h5py.Dataset):
            msg = f"event file {self.path} must hold a dataset 'Particles'; got {list(self._file)}"
            raise ArtifactError(msg)
        shape = particles.shape
        if shape is None or len(shape) != 3 or shape[1] != N_OBJECTS or shape[2] not in (3, 4):
            msg = f"'Particles' in {self.path} must have shape (n, 19, 3 or 4); got {shape}"
            raise EventError(msg)
        if particles.dtype.kind not in "fiu":
            msg = f"'Particles' in {self.path} must hold numbers; got {particles.dtype}"
            raise EventError(msg)
        return particles

    def _find_labels(self) -> h5py.Dataset | None:
        found = ((name, find_object(self._file, name, self.path)) for name in LABEL_DATASETS)
        name, labels = next(((name, item) for name, item in found if item is not None), ("", None))
        if labels is None:
            return None
        n = len(self)
        if not isinstance(labels, h5py.Dataset):
            got = "a group"
        elif labels.shape not in ((n,), (n, 1)) or labels.dtype.kind not in "fiu":
            got = f"shape {labels.shape} of {labels.dtype}"
        else:
            return labels
        msg = (
            f"{name!r} in {self.path} must hold one integer for each of {n} events; got {got}; "
            "write the labels again, or leave them out"
        )
        raise EventError(msg)

    def _close(self) -> None:
        with hdf5_errors(self.path):
            self._file.close()

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the file."""
        self._close()

    def __len__(self) -> int:
        """Return the number of events."""
        return self._n_events

    @property
    def has_labels(self) -> bool:
        """Whether events carry an integer label (`process` or `background_ID`)."""
        return self._labels is not None

    @property
    def content_id(self) -> str:
        """SHA-256 of the shape and of the first and last 1024 events: names a file's content."""
        digest = hashlib.sha256(str((len(self), N_OBJECTS)).encode())
        for start in (0, max(0, len(self) - _CONTENT_ID_EVENTS)):
            block = self._raw(start, min(start + _CONTENT_ID_EVENTS, len(self)))
            digest.update(np.ascontiguousarray(block).tobytes())
        return digest.hexdigest()

    def read(self, start: int = 0, stop: int | None = None) -> FloatArray:
        """Return events start to stop.

        Returns:
            Particles, (stop - start, 19, 3) float32, pT in GeV.

        Raises:
            EventError: on a non-finite value or a negative pT.
            ArtifactError: if the stored bytes are damaged.
        """
        particles = self._raw(start, self._stop(start, stop))
        check_events(particles, start, self.path)
        return particles

    def slices(
        self, start: int = 0, stop: int | None = None, size: int = _SLICE
    ) -> Iterator[FloatArray]:
        """Yield consecutive blocks of at most `size` events, (n, 19, 3) float32."""
        end = self._stop(start, stop)
        for first in range(start, end, size):
            yield self.read(first, min(first + size, end))

    def labels(self, start: int = 0, stop: int | None = None) -> IntArray | None:
        """Return the labels of events start to stop, (n,) int64, or None if there are none.

        Raises:
            EventError: on a label that is not a whole number.
            ArtifactError: if the stored bytes are damaged.
        """
        if self._labels is None:
            return None
        end = self._stop(start, stop)
        with hdf5_errors(self.path, f"is damaged in the labels of events {start} to {end}"):
            block = np.asarray(self._labels[start:end]).reshape(-1)
        return check_labels(block, start, self.path)

    def _stop(self, start: int, stop: int | None) -> int:
        end = len(self) if stop is None else stop
        if end > len(self) or start > end:
            msg = f"{self.path} holds {len(self)} events; {start} to {end} were asked for"
            raise EventError(msg)
        return end

    def _raw(self, start: int, stop: int) -> FloatArray:
        with hdf5_errors(self.path, f"is damaged between events {start} and {stop}"):
            block = self._particles[start:stop, :, :N_FEATURES]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused later
            return np.ascontiguousarray(block, dtype=np.float32)


class EventWriter:
    """Writes an ADC2021 event file block by block; the file appears whole or not at all.

    Args:
        path: the file to write.
        with_classes: add the challenge's class column, giving (n, 19, 4).
        dtype: how particles are stored: float16, float32 or float64.
        attributes: provenance to store as HDF5 attributes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        with_classes: bool = True,
        dtype: str = "float32",
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Create the temporary file beside `path`."""
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.part")
        self._columns = N_FEATURES + int(with_classes)
        if self.path.is_dir():
            msg = f"cannot write {self.path}: it is a folder; name a file in it"
            raise ArtifactError(msg)
        try:
            self._file = h5py.File(self._temporary, "w")
        except OSError as exc:
            msg = f"cannot write {self.path} ({exc}); choose a folder that exists and is writable"
            raise ArtifactError(msg) from exc
        self._file.attrs.update(attributes or {})
        self._particles = self._dataset("Particles", (N_OBJECTS, self._columns), dtype)
        self._process: h5py.Dataset | None = None

    def _dataset(self, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
        return self._file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(4096, *shape),
            compression="gzip",
            compression_opts=9,
            shuffle=True,
        )

    def __enter__(self) -> Self:
        """Return the open writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Publish the file, or remove what was written if an error passed through."""
        self._file.close()
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)

    def append(self, particles: FloatArray, labels: AnyArray | None = None) -> None:
        """Add events, (n, 19, 3), with their integer labels, (n,), if the file has labels.

        Raises:
            EventError: if the events are invalid, or labels do not match them.
        """
        check_events(particles, len(self._particles))
        if self._particles.dtype == np.float16:  # which ends at 65504 GeV
            with np.errstate(over="ignore"):
                check_events(particles.astype(np.float16), len(self._particles))
        if len(self._particles) == 0 and labels is not None and self._process is None:
            self._process = self._dataset("process", (), "int64")
        if (labels is None) != (self._process is None) or (
            labels is not None and labels.shape != particles.shape[:1]
        ):
            msg = "labels must be given for every event or for none; got a block that differs"
            raise EventError(msg)
        first, last = len(self._particles), len(self._particles) + len(particles)
        self._particles.resize(last, axis=0)
        self._particles[first:last, :, :N_FEATURES] = particles
        if self._columns > N_FEATURES:
            present = particles[:, :, 0] > 0
            self._particles[first:last, :, N_FEATURES] = np.where(present, OBJECT_CLASSES, 0)
        if self._process is not None:
            self._process.resize(last, axis=0)
            self._process[first:last] = labels


def write_events(
    path: str | Path,
    particles: FloatArray,
    labels: AnyArray | None = None,
    *,
    with_classes: bool = True,
    dtype: str = "float32",
    attributes: dict[str, Any] | None = None,
) -> None:
    """Write events, (n, 19, 3), and optional labels, (n,), as one ADC2021 file."""
    options = {"with_classes": with_classes, "dtype": dtype, "attributes": attributes}
    with EventWriter(path, **options) as writer:  # type: ignore[arg-type]
        writer.append(particles, labels)


def read_events(source: EventRange | str | Path) -> FloatArray:
    """Return the events of a file or range, (n, 19, 3) float32."""
    source = source if isinstance(source, EventRange) else EventRange.parse(str(source))
    with EventFile(source.path) as file:
        return file.read(source.start, source.stop)


def read_labels(source: EventRange | str | Path) -> IntArray | None:
    """Return the labels of a file or range, (n,) int64, or None if the file has none."""
    source = source if isinstance(source, EventRange) else EventRange.parse(str(source))
    with EventFile(source.path) as file:
        return file.labels(source.start, source.stop)
