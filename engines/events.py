"""What an event is.

An event is 19 objects x (pT [GeV], eta, phi): slot 0 is MET, 1-4 electrons, 5-8 muons, 9-18 jets,
pT-ordered inside a kind, all-zero where absent: the layout of the ADC2021 challenge.

Source: Govorkova et al., doi:10.1038/s41597-022-01187-8.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from engines.errors import EventError, ParameterError
from engines.types import AnyArray, IntArray

__all__ = [
    "N_FEATURES",
    "N_OBJECTS",
    "OBJECT_CLASSES",
    "EventRange",
    "check_events",
    "check_labels",
]

N_OBJECTS = 19
N_FEATURES = 3
#: The class column of a full event: 1 MET, 2 electron, 3 muon, 4 jet (0 where absent).
OBJECT_CLASSES = np.array([1] + [2] * 4 + [3] * 4 + [4] * 10, dtype=np.float32)


def check_events(particles: AnyArray, first_index: int = 0, source: object = "") -> None:
    """Refuse particles that are not events.

    Args:
        particles: array of any float dtype, wanted (n, 19, 3) with finite values and pT >= 0.
        first_index: index of the first event in its file, for the error's text.
        source: the file, likewise.

    Raises:
        EventError: on a wrong shape or dtype, a non-finite value or a negative pT.

    >>> check_events(np.zeros((2, 19, 3), np.float32))
    """
    if particles.ndim != 3 or particles.shape[1:] != (N_OBJECTS, N_FEATURES):
        msg = (
            f"events must have shape (n, {N_OBJECTS}, {N_FEATURES}); got {particles.shape}; "
            "order the objects as MET, 4 electrons, 4 muons, 10 jets"
        )
        raise EventError(msg)
    if particles.dtype.kind != "f":
        msg = f"events must be floating point; got {particles.dtype}; convert to float32"
        raise EventError(msg)
    bad = ~np.isfinite(particles).all(axis=(1, 2))
    rule = "finite"
    if not bad.any():
        bad = (particles[:, :, 0] < 0).any(axis=1)
        rule = "of non-negative pT"
    if bad.any():
        event = _named(first_index + int(np.argmax(bad)), source)
        msg = (
            f"events must be {rule}; {event} is not ({int(bad.sum())} such in this slice); remove "
            "or repair them"
        )
        raise EventError(msg)


def _named(number: int, source: object) -> str:
    return f"event {number} of {source}" if source else f"event {number}"


def check_labels(labels: AnyArray, first_index: int = 0, source: object = "") -> IntArray:
    """Return labels, (n,) of integers or whole floats, as int64.

    Args:
        labels: one an event.
        first_index: index of the first event in its file, for the error's text.
        source: the file, likewise.

    Raises:
        EventError: on a label that is not a whole number of 64 bits.

    >>> check_labels(np.array([0.0, 3.0]))
    array([0, 3])
    """
    if labels.dtype.kind == "i":
        return labels.astype(np.int64)
    values = labels.astype(np.float64)
    bad = ~((np.abs(values) < 2.0**63) & (values == np.floor(values)))
    if bad.any():
        first = int(np.argmax(bad))
        msg = (
            f"labels must be whole numbers of 64 bits; {_named(first_index + first, source)} has "
            f"{labels[first]}; give each event the integer of its process"
        )
        raise EventError(msg)
    return labels.astype(np.int64)


@dataclass(frozen=True)
class EventRange:
    """Events start to stop of a file; written `PATH` or `PATH@START:STOP`.

    >>> EventRange.parse("bkg.h5@1000:5000")
    EventRange(path=PosixPath('bkg.h5'), start=1000, stop=5000)
    """

    path: Path
    start: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        """Return what `parse` reads.

        >>> str(EventRange(Path("bkg.h5"), 1000))
        'bkg.h5@1000:'
        """
        if self.start == 0 and self.stop is None:
            return str(self.path)
        return f"{self.path}@{self.start}:{'' if self.stop is None else self.stop}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH`, `PATH@START:`, `PATH@:STOP` or `PATH@START:STOP`.

        Raises:
            ParameterError: if the range is not two whole numbers in order.
        """
        name, at, span = text.rpartition("@")
        if not at or ":" not in span:
            return cls(Path(text))
        first, _, last = span.partition(":")
        digits = (first or "0").isdecimal() and (last or "1").isdecimal()
        if not digits or (first and last and int(last) <= int(first)):
            msg = f"an event range must be PATH@START:STOP with START < STOP; got {text!r}"
            raise ParameterError(msg)
        return cls(Path(name), int(first or 0), int(last) if last else None)
