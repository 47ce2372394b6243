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
from engines.types import AnyArray

__all__ = [
    "N_FEATURES",
    "N_OBJECTS",
    "OBJECT_CLASSES",
    "EventRange",
    "check_events",
]

N_OBJECTS = 19
N_FEATURES = 3
#: The class column of a full event: 1 MET, 2 electron, 3 muon, 4 jet (0 where absent).
OBJECT_CLASSES = np.array([1] + [2] * 4 + [3] * 4 + [4] * 10, dtype=np.float32)


def check_events(particles: AnyArray, first_index: int = 0) -> None:
    """Refuse particles that are not events.

    Args:
        particles: array of any float dtype, wanted (n, 19, 3) with finite values and pT >= 0.
        first_index: index of the first event in its file, for the error's text.

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
        msg = (
            f"events must be {rule}; event {first_index + int(np.argmax(bad))} is not "
            f"({int(bad.sum())} such in this slice); remove or repair them"
        )
        raise EventError(msg)


@dataclass(frozen=True)
class EventRange:
    """Events start to stop of a file; written `PATH` or `PATH@START:STOP`.

    >>> EventRange.parse("bkg.h5@1000:5000")
    EventRange(path=PosixPath('bkg.h5'), start=1000, stop=5000)
    """

    path: Path
    start: int = 0
    stop: int | None = None

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
