"""What a physicist looks at first in an event: leading pT, MET and how many objects there are.

Kept beside a reference and an alarm, so that the window can be compared with the background in
quantities that mean something; the test itself never sees them.
"""

from dataclasses import dataclass

import numpy as np

from engines.types import FloatArray

__all__ = ["QUANTITIES", "Quantity", "event_quantities"]

_MET, _ELECTRONS, _MUONS, _JETS = 0, slice(1, 5), slice(5, 9), slice(9, 19)
_OBJECTS = slice(1, 19)


@dataclass(frozen=True)
class Quantity:
    """One number of an event.

    Attributes:
        name: a word for files and JSON.
        label: for people.
        unit: `GeV`, or empty for a count.
    """

    name: str
    label: str
    unit: str = ""

    @property
    def is_count(self) -> bool:
        """Whether it is a whole number of objects."""
        return not self.unit

    @property
    def title(self) -> str:
        """The label with its unit, as on an axis."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


#: The columns of `event_quantities`.
QUANTITIES = (
    Quantity("lead_pt", "leading pT", "GeV"),
    Quantity("met", "MET", "GeV"),
    Quantity("n_electrons", "electrons"),
    Quantity("n_muons", "muons"),
    Quantity("n_jets", "jets"),
)


def event_quantities(particles: FloatArray) -> FloatArray:
    """Return the `QUANTITIES` of events, (n, 5) float32.

    The leading pT is the largest of electrons, muons and jets; it is 0 where there is none.

    Args:
        particles: (n, 19, 3), pT in GeV; an object is there if its pT is above zero.

    >>> event = np.zeros((1, 19, 3), np.float32)
    >>> event[0, [0, 5, 9, 10], 0] = 30.0, 25.0, 70.0, 40.0
    >>> event_quantities(event).tolist()
    [[70.0, 30.0, 0.0, 1.0, 2.0]]
    """
    pt = particles[:, :, 0]
    counts = [(pt[:, slots] > 0).sum(axis=1) for slots in (_ELECTRONS, _MUONS, _JETS)]
    columns = [pt[:, _OBJECTS].max(axis=1), pt[:, _MET], *counts]
    return np.stack(columns, axis=1).astype(np.float32)
