"""The fits that compare data with a prepared reference, set up for the solver."""

from dataclasses import dataclass

import numpy as np
import torch

from engines.nplm.basis import Basis
from engines.nplm.losses import Loss, curvature_at_zero
from engines.nplm.solver import Problem
from engines.nplm.sums import Sample, feature_sums, labelled_sums
from engines.nplm.threads import Threads
from engines.types import Float64Array, IntArray

__all__ = ["PreparedReference"]


@dataclass(frozen=True)
class PreparedReference:
    """A reference whose features are known.

    Attributes:
        basis: the whitened coordinates.
        psi: (n_ref, rank) features of the reference.
        sums: (rank,) float64 sum of psi over the reference.
        n_expected: events expected in a window under the null, N(R).
        loss: what a fit minimises.
        threads: what runs the passes.
    """

    basis: Basis
    psi: torch.Tensor
    sums: Float64Array
    n_expected: float
    loss: Loss
    threads: Threads

    @property
    def weight(self) -> float:
        """Weight of a reference event, w = N(R) / n_ref."""
        return self.n_expected / len(self.psi)

    def _coordinates(self, width: int) -> tuple[slice, Float64Array]:
        ridge = self.basis.widths[width].ridge.cpu().numpy()
        return self.basis.columns[width], np.asarray(ridge)

    def windows(
        self, width: int, psi: torch.Tensor, offsets: IntArray, data_sums: Float64Array
    ) -> Problem:
        """Set up windows of their own events, with the cross-entropy.

        Args:
            width: which kernel width.
            psi: (n, rank) features of all windows' events.
            offsets: (n_windows + 1,) window k is the rows from offsets[k] to offsets[k + 1].
            data_sums: (n_windows, rank) sum of psi over each window.
        """
        columns, ridge = self._coordinates(width)
        return Problem(
            samples=[
                Sample(self.psi, columns, self.weight),
                Sample(psi, columns, 1.0, sign=-1, offsets=offsets),
            ],
            data_sums=data_sums[:, columns],
            zero_sums=self.weight * self.sums[columns] + data_sums[:, columns],
            zero_weight=self.n_expected + np.diff(offsets),
            weight=self.weight,
            ridge=ridge,
            curvature=curvature_at_zero("cross-entropy", ridge),
            threads=self.threads,
        )

    def merged(self, width: int, data_sums: Float64Array, scale: int = 1) -> Problem:
        """Set up windows known by their sums, with the likelihood.

        Args:
            width: which kernel width.
            data_sums: (n_windows, rank) sum of psi over each window.
            scale: how many windows were merged into each.
        """
        columns, ridge = self._coordinates(width)
        weight, n_ref = scale * self.weight, len(self.psi)
        # The ridge is lam n, n with the events that the merged window is expected to hold.
        n_ratio = (n_ref + scale * self.n_expected) / (n_ref + self.n_expected)
        return Problem(
            samples=[Sample(self.psi, columns, weight)],
            data_sums=data_sums[:, columns],
            zero_sums=weight * self.sums[columns],
            zero_weight=np.full(len(data_sums), weight * n_ref),
            weight=weight,
            ridge=n_ratio * ridge,
            curvature=curvature_at_zero("likelihood", ridge, scale=scale, n_ratio=n_ratio),
            loss="likelihood",
            threads=self.threads,
        )

    def relabelled(self, width: int, psi: torch.Tensor, data_labels: torch.Tensor) -> Problem:
        """Set up labellings of the events of reference and one window.

        Args:
            width: which kernel width.
            psi: (n_data, rank) features of the window.
            data_labels: (n_ref + n_data, k) bool, which events labelling k calls data, n_data in
                each column.
        """
        columns, ridge = self._coordinates(width)
        labels = data_labels.to(psi.device)
        samples = [
            Sample(self.psi, columns, self.weight, data_labels=labels[: len(self.psi)]),
            Sample(psi, columns, self.weight, data_labels=labels[len(self.psi) :]),
        ]
        total = (self.sums + feature_sums(psi, self.threads))[columns]
        data_sums = labelled_sums(samples[0], self.threads)
        data_sums += labelled_sums(samples[1], self.threads)
        zero_sums, zero_weight = self.weight * (total - data_sums), self.n_expected
        if self.loss == "cross-entropy":
            zero_sums, zero_weight = zero_sums + data_sums, zero_weight + len(psi)
        return Problem(
            samples=samples,
            data_sums=data_sums,
            zero_sums=zero_sums,
            zero_weight=np.full(len(data_sums), zero_weight),
            weight=self.weight,
            ridge=ridge,
            curvature=curvature_at_zero(self.loss, ridge),
            loss=self.loss,
            threads=self.threads,
        )
