"""The learned density of a window that alarmed: its fit, made again from what was kept of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.errors import MismatchError
from engines.reference_file import load_reference
from engines.types import Float64Array, FloatArray
from stream.alarm.contents import AlarmContents

__all__ = ["LearnedDensity", "learn_density"]

#: e^f of more says nothing any more, and is still finite.
_LARGEST_F = 50.0


@dataclass(frozen=True)
class LearnedDensity:
    """The reference's events, and what the fit makes of each.

    Attributes:
        embeddings: (n_ref, d).
        quantities: (n_ref, 5) `QUANTITIES`; None where the reference keeps none.
        f: (n_ref,) log density ratio, window over reference, of the kernel width that decided.
        weight: w = N(R) / n_ref, of a reference event.
        t: of that width, fitted again.
    """

    embeddings: FloatArray
    quantities: FloatArray | None
    f: Float64Array
    weight: float
    t: float

    @property
    def weights(self) -> Float64Array:
        """Weight w e^f of each reference event, (n_ref,): the learned density of the data."""
        return self.weight * np.exp(np.minimum(self.f, _LARGEST_F))


def learn_density(alarm: AlarmContents, reference: Path, *, threads: int = 2) -> LearnedDensity:
    """Fit a window against its reference again.

    Args:
        alarm: what was kept of it.
        reference: the `.ref` file that it was tested with.
        threads: CPU threads.

    Raises:
        ArtifactError: if the file is missing, damaged, or another than the alarm was tested with.
    """
    artifact = load_reference(reference, threads=threads)
    if artifact.fingerprint != alarm.null.fingerprint:
        msg = (
            f"the alarm was tested with the reference of fingerprint {alarm.null.fingerprint}; got "
            f"{reference} of fingerprint {artifact.fingerprint}; name that one with --reference"
        )
        raise MismatchError(msg)
    test = artifact.reference.test(alarm.embeddings)
    return LearnedDensity(
        embeddings=artifact.reference.embeddings,
        quantities=artifact.quantities,
        f=artifact.reference.log_ratios(test)[alarm.width],
        weight=artifact.reference.weight,
        t=float(test.t[alarm.width]),
    )
