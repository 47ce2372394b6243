"""Damaged and devious HDF5 event files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bench.fuzzing.damage import damage
from engines.event_files import EventFile, write_events
from engines.samples import sample_path
from engines.types import FloatArray

__all__ = ["EventFiles"]

_N_EVENTS = 200
_TRICKS_SHARE = 0.2


class EventFiles:
    """Event files in three layouts, damaged; and whole ones that mean harm."""

    def prepare(self, folder: Path) -> None:
        """Write whole files: the challenge's layout, a contiguous one, and the newest format."""
        self._folder, self._path = folder, folder / "events.h5"
        with EventFile(sample_path("sm_cocktail")) as file:
            particles = file.read(0, _N_EVENTS)
        write_events(folder / "written.h5", particles, np.arange(_N_EVENTS))
        for name, options in (
            ("contiguous.h5", {}),
            ("chunked.h5", {"chunks": (16, 19, 3), "compression": "gzip", "shuffle": True}),
        ):
            self._write(folder / name, particles, options, "earliest")
            self._write(folder / f"latest_{name}", particles, options, "latest")
        self._wholes = [path.read_bytes() for path in sorted(folder.glob("*.h5"))]
        self._decoy = folder / "decoy.h5"
        self._decoy.write_bytes(self._wholes[0])
        (folder / "secret.bin").write_bytes(np.ones((20, 19, 3), np.float32).tobytes())

    def _write(self, path: Path, particles: FloatArray, options: Any, version: str) -> None:  # noqa: ANN401
        with h5py.File(path, "w", libver=version) as file:
            file.create_dataset("Particles", data=particles, **options)
            file.create_dataset("background_ID", data=np.arange(_N_EVENTS))

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged file or a devious one."""
        if rng.random() < _TRICKS_SHARE:
            name = str(rng.choice(list(_TRICKS)))
            self._path.unlink(missing_ok=True)
            with h5py.File(self._path, "w") as file:
                _TRICKS[name](file, self._folder, rng)
            return name, self._path
        name, content = damage(self._wholes[rng.integers(len(self._wholes))], rng)
        self._path.write_bytes(content)
        return name, self._path

    def open(self, path: Path) -> None:
        """Read everything that the commands read."""
        with EventFile(path) as file:
            for _ in file.slices():
                pass
            file.labels()
            file.content_id  # noqa: B018 - it reads


Trick = Callable[[h5py.File, Path, np.random.Generator], None]


def _events(n: int) -> FloatArray:
    return np.ones((n, 19, 3), np.float32)


def _external_link(file: h5py.File, folder: Path, _: np.random.Generator) -> None:
    file["Particles"] = h5py.ExternalLink(str(folder / "decoy.h5"), "/Particles")


def _external_labels(file: h5py.File, folder: Path, _: np.random.Generator) -> None:
    file["Particles"] = _events(200)
    file["process"] = h5py.ExternalLink(str(folder / "decoy.h5"), "/process")


def _link_to_device(file: h5py.File, _: Path, __: np.random.Generator) -> None:
    file["Particles"] = h5py.ExternalLink("/dev/zero", "/Particles")


def _external_storage(file: h5py.File, folder: Path, _: np.random.Generator) -> None:
    stored = [(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("Particles", shape=(20, 19, 3), dtype="f4", external=stored)


def _virtual(file: h5py.File, folder: Path, _: np.random.Generator) -> None:
    layout = h5py.VirtualLayout(shape=(200, 19, 3), dtype="f4")
    source = h5py.VirtualSource(folder / "decoy.h5", "Particles", shape=(200, 19, 3))
    layout[:] = source
    file.create_virtual_dataset("Particles", layout)


def _soft_loop(file: h5py.File, _: Path, __: np.random.Generator) -> None:
    file["Particles"] = h5py.SoftLink("/other")
    file["other"] = h5py.SoftLink("/Particles")


def _huge(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    n = int(10 ** rng.uniform(6, 17))
    file.create_dataset("Particles", shape=(n, 19, 3), dtype="f4", chunks=(4096, 19, 3))


def _huge_labels(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    n = int(10 ** rng.uniform(7, 17))
    file.create_dataset("Particles", shape=(n, 19, 3), dtype="f4", chunks=(64, 19, 3))
    file.create_dataset("process", shape=(n,), dtype="i8", chunks=(2**20,))


def _huge_chunk(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    n = int(rng.integers(10**5, 10**7))
    data = file.create_dataset(
        "Particles", shape=(n, 19, 3), dtype="f4", chunks=(n, 19, 3), compression="gzip"
    )
    data.id.write_direct_chunk((0, 0, 0), b"\x78\x9c" + bytes(100))


def _bomb(file: h5py.File, _: Path, __: np.random.Generator) -> None:
    data = file.create_dataset(
        "Particles", (50_000, 19, 3), "f4", chunks=(50_000, 19, 3), compression="gzip"
    )
    data[:] = 0


def _other_type(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    kinds = ["S8", "V16", "c8", "i1", "u8", "f2", ">f8", h5py.string_dtype(), h5py.ref_dtype]
    kind = kinds[rng.integers(len(kinds))]
    file.create_dataset("Particles", shape=(20, 19, int(rng.integers(2, 6))), dtype=kind)


def _other_shape(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    shapes = [(), (20,), (20, 19), (0, 19, 3), (20, 3, 19), (2, 2, 19, 3), (20, 19, 0)]
    file.create_dataset("Particles", shape=shapes[rng.integers(len(shapes))], dtype="f4")
    file.create_dataset("process", shape=(int(rng.integers(30)),), dtype="f4")


def _null_space(file: h5py.File, _: Path, __: np.random.Generator) -> None:
    file["Particles"] = h5py.Empty("f4")


def _wrong_kind(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        file.create_group("Particles")
    else:
        file["Particles"] = np.dtype("f4")
    file.create_group("process")


def _odd_values(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    values = _events(20).astype(np.float64)
    values[rng.integers(20), rng.integers(19), rng.integers(3)] = rng.choice(
        [np.nan, np.inf, -np.inf, -1.0, 1e300, 5e-324]
    )
    file["Particles"] = values
    file["process"] = rng.choice([0.5, np.nan, 1e300, 3.0], size=20)


def _missing_chunks(file: h5py.File, _: Path, rng: np.random.Generator) -> None:
    data = file.create_dataset("Particles", (64, 19, 3), "f4", chunks=(16, 19, 3), fillvalue=np.nan)
    data[: 16 * int(rng.integers(4))] = 1


_TRICKS: dict[str, Trick] = {
    "external link": _external_link,
    "external labels": _external_labels,
    "link to a device": _link_to_device,
    "external storage": _external_storage,
    "virtual dataset": _virtual,
    "loop of links": _soft_loop,
    "huge declared size": _huge,
    "huge labels": _huge_labels,
    "huge chunk": _huge_chunk,
    "much from little": _bomb,
    "another type": _other_type,
    "another shape": _other_shape,
    "null dataspace": _null_space,
    "another kind": _wrong_kind,
    "odd values": _odd_values,
    "missing chunks": _missing_chunks,
}
