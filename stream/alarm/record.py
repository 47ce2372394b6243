"""The file of an alarm: an ADC2021 event file of its most anomalous events, and all it rests on.

Particles     (k, 19, 4)  the events of largest f, most anomalous first, with the class column
f             (k,)        f of those
rows, places  (k,) (k, 3) their rows in the window; number of the source, message, event
embeddings    (n, d)      of the whole window, as are
f_window      (n,)        f
quantities    (n, 5)      leading pT, MET, electrons, muons, jets
toys_t        (n_toys, n_widths) t of the toys of the null
about         JSON        the result line, the null's provenance, the sources
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from engines.errors import ArtifactError
from engines.event_quantities import QUANTITIES
from engines.events import N_FEATURES, N_OBJECTS, OBJECT_CLASSES
from engines.hdf5 import hdf5_errors
from engines.hdf5_storage import find_object
from engines.types import AnyArray, Float64Array
from stream.alarm.contents import AlarmContents, NullUsed
from stream.plain_text import file_word

if TYPE_CHECKING:
    from stream.window import ClosedWindow
    from stream.window_result import WindowResult

__all__ = ["AlarmContents", "NullUsed", "read_alarm", "write_alarm"]

_FORMAT = 1
#: Of the result line, what the reader needs, by kind.
_NUMBERS = (
    *("window", "n_events", "n_expected", "t_start_ns", "t_end_ns", "t", "sigma", "p", "z"),
    *("p_alarm", "z_alarm", "threshold_p", "inverse_far_s"),
)
_WORDS = ("run", "mode", "alarm_on", "engine", "relabelling")
_LISTS = ("sigmas", "t_by_width")
_ARRAYS = ("Particles", "rows", "places", "embeddings", "f_window", "quantities", "toys_t")


def write_alarm(
    folder: Path,
    window: "ClosedWindow",
    f: Float64Array,
    result: "WindowResult",
    null: NullUsed,
) -> Path:
    """Keep a window that alarmed; the file appears whole or not at all.

    Args:
        folder: where; made if missing.
        window: the window.
        f: (n_data,) log density ratio of each event, of the kernel width that decided.
        result: what was said of it.
        null: what it was judged by.

    Returns:
        The file's path.

    Raises:
        ArtifactError: if it cannot be written.
    """
    name = f"alarm-{file_word(result.run)}-{window.index:06d}.h5"
    path, partial = folder / name, folder / f".{name}.part"
    content = _packed(AlarmContents.of(window, f, result, null), f)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as exc:
        reason = exc.strerror or exc
        msg = f"cannot keep the alarm {path} ({reason}); check the folder and its free space"
        raise ArtifactError(msg) from exc
    return path


def _packed(alarm: AlarmContents, f: Float64Array) -> bytes:
    """Return the file's bytes: made in memory, so that a full disk is met by one plain write."""
    particles = np.zeros((len(alarm.particles), N_OBJECTS, N_FEATURES + 1), np.float32)
    particles[:, :, :N_FEATURES] = alarm.particles
    particles[:, :, N_FEATURES] = np.where(alarm.particles[:, :, 0] > 0, OBJECT_CLASSES, 0)
    arrays: dict[str, AnyArray] = {
        "Particles": particles,
        "rows": alarm.rows,
        "places": alarm.places,
        "embeddings": alarm.embeddings,
        "f_window": alarm.f,
        "quantities": alarm.quantities,
        "toys_t": alarm.null.t,
    }
    about = json.dumps(
        {
            "format": _FORMAT,
            "result": alarm.result,
            "null": alarm.null.facts(),
            "sources": alarm.sources,
            "quantities": [quantity.title for quantity in QUANTITIES],
        }
    )
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", shuffle=True)
        file["f"] = f[alarm.rows]
        file["about"] = about  # no attribute: those end at 64 kB, which many sources fill
        file.attrs["checksum"] = _checksum(about, arrays)
    return image.getvalue()


def read_alarm(path: Path) -> AlarmContents:
    """Return what an alarm's file holds.

    Raises:
        ArtifactError: if it is missing, damaged, altered, or no alarm record of this version.
    """
    if not path.is_file():
        msg = f"alarm record {path} does not exist; check the path"
        raise ArtifactError(msg)
    advice = "name a file that stream-consumer kept with --alarms"
    with hdf5_errors(path, "cannot be read", kind="alarm record", advice=advice):
        with h5py.File(path, "r") as file:
            names = (*_ARRAYS, "about")
            missing = [name for name in names if find_object(file, name, path) is None]
            if missing:
                msg = f"{path} is no alarm record of this version: it has no {missing[0]!r}"
                raise ArtifactError(msg)
            arrays = {name: np.asarray(file[name][()]) for name in _ARRAYS}
            text = str(file["about"].asstr()[()])
            checksum = str(file.attrs["checksum"])
        if checksum != _checksum(text, arrays):
            msg = f"alarm record {path} was altered since it was written: its checksum is wrong"
            raise ArtifactError(msg)
        about = json.loads(text)
        if about["format"] != _FORMAT:
            msg = f"{path} has format {about['format']!r}; this version reads {_FORMAT}"
            raise ArtifactError(msg)
        return _checked(about, arrays)


def _checked(about: dict[str, Any], arrays: dict[str, AnyArray]) -> AlarmContents:
    """Return the contents; what is inconsistent raises ValueError, TypeError or KeyError."""
    _check_result(about["result"])
    particles, embeddings = arrays["Particles"], arrays["embeddings"]
    n, k, toys = len(embeddings), len(arrays["rows"]), arrays["toys_t"]
    has_kinematics = len(particles) > 0
    shapes = {
        "Particles": (k * has_kinematics, N_OBJECTS, N_FEATURES + 1),
        "rows": (k,),
        "places": (k, 3),
        "embeddings": (n, *embeddings.shape[1:2]),
        "f_window": (n,),
        "quantities": (n * has_kinematics, len(QUANTITIES)),
        "toys_t": (len(toys), len(about["result"]["sigmas"])),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            msg = f"{name!r} must be finite and of shape {shape}; got {arrays[name].shape}"
            raise ValueError(msg)
    sources = {str(name): int(count) for name, count in about["sources"].items()}
    rows, places = arrays["rows"].astype(np.int64), arrays["places"]
    if not 0 < k <= n or rows.min() < 0 or rows.max() >= n or places[:, 0].max() >= len(sources):
        msg = f"{k} most anomalous events are not among the window's {n}"
        raise ValueError(msg)
    alarm = AlarmContents(
        result=about["result"],
        null=NullUsed(t=toys.astype(np.float64), **about["null"]),
        sources=sources,
        embeddings=embeddings.astype(np.float32),
        f=arrays["f_window"].astype(np.float32),
        quantities=arrays["quantities"].astype(np.float32),
        rows=rows,
        particles=particles[:, :, :N_FEATURES].astype(np.float32),
        places=places,
    )
    _ = alarm.width  # refuses a width that is not among the sigmas
    return alarm


def _check_result(result: dict[str, Any]) -> None:
    kinds = ((_NUMBERS, int | float), (_WORDS, str), (_LISTS, list))
    for names, kind in kinds:
        for name in names:
            if not isinstance(result[name], kind):
                msg = f"the result's {name!r} is of another type"
                raise TypeError(msg)


def _checksum(about: str, arrays: dict[str, AnyArray]) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
