"""A reference that repeats the t of windows that are done, so that a scan goes on where it was.

A monitor given it decides of the recorded windows again, in their order: trials, spacings and
alarms that go on are then as if the scan had never ended. Only t is recorded; no fit is run.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from engines.nplm import Basis, CachedReference, Features, Relabelling, WindowTest
from engines.types import Float64Array, FloatArray

__all__ = ["ReplayedReference"]


class ReplayedReference:
    """Gives the recorded t as long as there are any, then tests.

    Args:
        reference: tests.
        recorded: t of each test that was done, (n_widths,), in the order of the tests.
    """

    def __init__(self, reference: CachedReference, recorded: Sequence[Sequence[float]]) -> None:
        """Stand before the first recorded test."""
        self._reference = reference
        self._recorded = deque(np.asarray(t, np.float64) for t in recorded)

    @property
    def basis(self) -> Basis:
        """The kernel widths."""
        return self._reference.basis

    def features(self, embeddings: FloatArray) -> Features:
        """Return psi of (n, d) embeddings."""
        return self._reference.features(embeddings)

    def test_features(self, pieces: Sequence[Features]) -> WindowTest:
        """Return the recorded test, without f, or test a window."""
        if self._recorded:
            t = self._recorded.popleft()
            return WindowTest(t, lambda: np.empty((len(t), 0)), 0.0, 0)
        return self._reference.test_features(pieces)

    def sums(self, pieces: Sequence[Features]) -> Float64Array:
        """Return the sum of psi over a window's events; zeros for a recorded one without them."""
        if not pieces:
            return np.zeros(self._reference.basis.rank)
        return self._reference.sums(pieces)

    def test_sums(self, sums: Float64Array, *, scale: int) -> Float64Array:
        """Return t of a merged window, (1, n_widths), recorded or tested."""
        if self._recorded:
            return self._recorded.popleft()[None]
        return self._reference.test_sums(sums, scale=scale)

    def relabel(
        self, pieces: Sequence[Features], *, n_relabellings: int, rng: np.random.Generator
    ) -> Relabelling:
        """Relabel a window's events and the reference's."""
        return self._reference.relabel(pieces, n_relabellings=n_relabellings, rng=rng)
