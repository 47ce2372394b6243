"""What is kept of a window that alarmed: enough to judge it years later, without the stream."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from engines.event_quantities import event_quantities
from engines.types import AnyArray, Float64Array, FloatArray, IntArray

if TYPE_CHECKING:
    from engines.reference_file import ReferenceArtifact
    from stream.window import ClosedWindow
    from stream.window_result import WindowResult

__all__ = ["N_ANOMALOUS", "AlarmContents", "NullUsed"]

#: Events of largest f whose kinematics are kept.
N_ANOMALOUS = 200


@dataclass(frozen=True)
class NullUsed:
    """The null that a window was judged by.

    Attributes:
        t: (n_toys, n_widths) float64, t of the toys.
        calibrated_on: one sentence, what the p-values rest on.
        reference: path of the `.ref` file.
        fingerprint: of that file.
        n_ref: events of its reference sample.
        created: when it was made.
    """

    t: Float64Array
    calibrated_on: str
    reference: str
    fingerprint: str
    n_ref: int
    created: str

    @classmethod
    def of(cls, artifact: "ReferenceArtifact", path: Path) -> Self:
        """Return the null of single windows of a reference that was read from `path`."""
        return cls(
            t=artifact.nulls[1].t,
            calibrated_on=artifact.facts.calibration(),
            reference=str(path.resolve()),
            fingerprint=artifact.fingerprint,
            n_ref=artifact.facts.n_ref,
            created=artifact.facts.created,
        )

    def facts(self) -> dict[str, object]:
        """Return all but the toys, as what JSON can hold."""
        return {name: value for name, value in vars(self).items() if name != "t"}


@dataclass(frozen=True)
class AlarmContents:
    """A window that alarmed.

    Attributes:
        result: its line of the results, a `WindowResult` as JSON holds it.
        null: what it was judged by.
        sources: events by source, by name.
        embeddings: (n_data, d) float32 of all its events.
        f: (n_data,) log density ratio of each, of the kernel width that decided.
        quantities: (n_data, 5) `QUANTITIES` of each; (0, 5) where only embeddings came.
        rows: (k,) which events have the largest f, most anomalous first.
        particles: (k, 19, 3) float32 of those; (0, 19, 3) where only embeddings came.
        places: (k, 3) uint64 where they came from: number of the source in `sources`, sequence
            number of the message, index in the message.
    """

    result: dict[str, Any]
    null: NullUsed
    sources: dict[str, int]
    embeddings: FloatArray
    f: FloatArray
    quantities: FloatArray
    rows: IntArray
    particles: FloatArray
    places: AnyArray

    @classmethod
    def of(
        cls, window: "ClosedWindow", f: Float64Array, result: "WindowResult", null: NullUsed
    ) -> Self:
        """Return what is kept of a window.

        Args:
            window: the window.
            f: (n_data,) log density ratio of each event, of the kernel width that decided.
            result: what was said of it.
            null: what it was judged by.
        """
        rows = np.argsort(-f, kind="stable")[:N_ANOMALOUS]
        particles = window.particles
        sources: dict[str, int] = {}
        for block in window.blocks:
            sources[block.source] = sources.get(block.source, 0) + len(block)
        return cls(
            result=result.record(),
            null=null,
            sources=sources,
            embeddings=window.embeddings,
            f=f.astype(np.float32),
            quantities=event_quantities(particles),
            rows=rows,
            particles=particles[rows] if len(particles) else particles,
            places=_places(window, rows, list(sources)),
        )

    @property
    def has_kinematics(self) -> bool:
        """Whether the events are known, or only where they came from and their embeddings."""
        return len(self.quantities) > 0

    @property
    def n_widths(self) -> int:
        """Kernel widths of the test."""
        return int(self.null.t.shape[1])

    @property
    def width(self) -> int:
        """Index of the kernel width that decided."""
        return [float(sigma) for sigma in self.result["sigmas"]].index(float(self.result["sigma"]))


def _places(window: "ClosedWindow", rows: IntArray, sources: list[str]) -> AnyArray:
    starts = np.cumsum([0, *map(len, window.blocks)])
    places = np.empty((len(rows), 3), np.uint64)
    for place, row in zip(places, rows.tolist(), strict=True):
        number = int(np.searchsorted(starts, row, side="right")) - 1
        block = window.blocks[number]
        place[:] = sources.index(block.source), block.seq, block.first + row - int(starts[number])
    return places
