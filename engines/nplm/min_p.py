"""Several kernel widths as one test: the smallest p of them, calibrated by the same toys.

Each width sees structure of its own size. The smallest p of several is no p-value itself, so it is
ranked among what the toys give for it. Source: arXiv:2408.12296.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engines.errors import ParameterError, SampleSizeError
from engines.nplm.null import NullDistribution, Tail, proportion_interval, z_score
from engines.types import Float64Array, IntArray

__all__ = ["Judgement", "WidthNulls", "combined_p_value"]


def combined_p_value(t: Float64Array, others: Float64Array) -> float:
    """Return the share of all rows whose smallest p is at or below that of t.

    Every row, t with them, has in each width the p of its rank among all; nothing sets t apart, so
    under the null (exchangeable rows) the result is an exact p-value.

    Args:
        t: (n_widths,) of the row in question.
        others: (n, n_widths) of the others.

    >>> combined_p_value(np.array([5.0]), np.arange(9.0)[:, None])
    0.5
    """
    rows = np.vstack([t, others])
    at_or_above = (rows[None, :, :] >= rows[:, None, :]).sum(axis=1)
    smallest = at_or_above.min(axis=1)
    return float((smallest <= smallest[0]).mean())


@dataclass(frozen=True)
class Judgement:
    """What the nulls say of one window.

    Attributes:
        p_value: empirical, all widths together; never 0.
        p_interval: 68 % Clopper-Pearson interval of it, from the toys' number.
        z_score: of `p_value`.
        width: index of the width with the smallest p of its own.
        p_chi2, p_gamma: tails of the fitted laws, corrected for the number of widths.
        p_by_width: empirical, each width for itself.
        is_below: whether any t lies six spreads below its null.
    """

    p_value: float
    p_interval: tuple[float, float]
    z_score: float
    width: int
    p_chi2: float
    p_gamma: float
    p_by_width: tuple[float, ...]
    is_below: bool


@dataclass(frozen=True)
class WidthNulls:
    """The toys' t values for every kernel width.

    Attributes:
        t: (n_toys, n_widths) float64; a row is one toy.
    """

    t: Float64Array

    def __post_init__(self) -> None:
        """Refuse what cannot calibrate anything."""
        if self.t.ndim != 2 or self.t.shape[1] < 1:
            msg = f"the toys' t must be (n_toys, n_widths); got an array of shape {self.t.shape}"
            raise SampleSizeError(msg)
        _ = self.nulls

    @cached_property
    def nulls(self) -> tuple[NullDistribution, ...]:
        """Each width's null."""
        return tuple(NullDistribution(np.ascontiguousarray(column)) for column in self.t.T)

    @property
    def n_toys(self) -> int:
        """How many toys."""
        return len(self.t)

    @property
    def n_widths(self) -> int:
        """How many kernel widths."""
        return int(self.t.shape[1])

    @property
    def resolution(self) -> float:
        """The smallest empirical p-value, 1 / (n_toys + 1).

        A window beyond all toys in every width reaches it. One beyond them in a single width ties
        with the toys that lead the others: its p is at most n_widths / (n_toys + 1).
        """
        return 1.0 / (self.n_toys + 1)

    @cached_property
    def _toys_at_or_above_toy(self) -> IntArray:
        """Count, for each toy and width, the toys at or above it, (n_toys, n_widths)."""
        counts = [
            self.n_toys - np.searchsorted(np.sort(column), column, side="left")
            for column in self.t.T
        ]
        return np.stack(counts, axis=1).astype(np.int64)

    def _n_as_extreme(self, t: Float64Array) -> tuple[int, IntArray]:
        """Return how many toys have a smallest p at or below the window's, and counts per width.

        The window joins the toys: among these n_toys + 1 values of a width each has the p of its
        rank, and the smallest p of each is compared with the window's. Nothing sets the window
        apart, so under the null (rows exchangeable) every rank of it is equally likely: the
        combined p is exact, whatever the correlation between the widths; ties only raise it.
        """
        toys_at_or_above = np.count_nonzero(self.t >= t, axis=0)
        ranks = self._toys_at_or_above_toy + (t >= self.t)
        n_as_extreme = np.count_nonzero(ranks.min(axis=1) <= toys_at_or_above.min() + 1)
        return int(n_as_extreme), toys_at_or_above

    def judge(self, t: Float64Array) -> Judgement:
        """Return the window's p-values.

            p = (toys whose smallest p is at or below the window's, + 1) / (n_toys + 1)

        For one width this is `NullDistribution.p_value`. The tails `p_chi2` and `p_gamma` are
        Sidak's, 1 - (1 - p)^n_widths of the smallest: right for independent widths, too large for
        those that rise and fall together; far out n_widths times the smallest.

        Args:
            t: (n_widths,) of one window, not NaN.

        Raises:
            ParameterError: if t has another shape or holds NaN.
        """
        self._check(t)
        n_as_extreme, toys_at_or_above = self._n_as_extreme(t)
        p_value = (n_as_extreme + 1) * self.resolution
        low, high = proportion_interval(n_as_extreme, self.n_toys)
        chi2 = np.array([null.chi2_p_value(value) for null, value in self._paired(t)])
        # Strong signals exhaust both the toys and the smallest float; the excess still tells.
        deficit = np.array([(n.mean - value) / (n.std or 1.0) for n, value in self._paired(t)])
        return Judgement(
            p_value=p_value,
            p_interval=(float(low), float(high)),
            z_score=z_score(min(p_value, 1.0 - self.resolution)),
            width=int(np.lexsort((deficit, chi2, toys_at_or_above))[0]),
            p_chi2=self._sidak_of(float(chi2.min())),
            p_gamma=self._sidak("gamma", t),
            p_by_width=tuple(float(k + 1) * self.resolution for k in toys_at_or_above),
            is_below=any(null.is_below(value) for null, value in self._paired(t)),
        )

    def tail_p_value(self, tail: Tail, t: Float64Array) -> float:
        """Return the p-value of all widths from the laws or toys that `tail` names.

        Args:
            tail: `toys` is the combination of `judge`; `chi2` and `gamma` are Sidak's.
            t: (n_widths,) of one window.

        Raises:
            ParameterError: if t has another shape or holds NaN.
        """
        self._check(t)
        if tail == "toys":
            return (self._n_as_extreme(t)[0] + 1) * self.resolution
        return self._sidak(tail, t)

    def z_shift(self, tail: Tail, t: Float64Array, offset_share: float) -> float:
        """Return by how much Z is off, either way, if every t is off by a share of its spread.

        All widths move together, which is the worst case: they share pool and reference.

        Args:
            tail: which p-value.
            t: (n_widths,) of one window.
            offset_share: offset over spread, as `offset_share` gives it.
        """
        offset = offset_share * np.array([null.std for null in self.nulls])
        return 0.5 * (self._tail_z(tail, t + offset) - self._tail_z(tail, t - offset))

    def ks_p(self, tail: Tail) -> float:
        """Return how well the toys follow the fitted laws: Bonferroni's p of the widths' KS tests.

        It is 1 for `toys`, which need no law.
        """
        if tail == "toys":
            return 1.0
        p_values = [null.chi2_ks_p if tail == "chi2" else null.gamma_ks_p for null in self.nulls]
        return min(1.0, self.n_widths * min(p_values))

    def _tail_z(self, tail: Tail, t: Float64Array) -> float:
        p_value = self.tail_p_value(tail, t)
        return z_score(min(p_value, 1.0 - self.resolution) if tail == "toys" else p_value)

    def _sidak(self, tail: Tail, t: Float64Array) -> float:
        return self._sidak_of(min(n.tail_p_value(tail, value) for n, value in self._paired(t)))

    def _sidak_of(self, smallest: float) -> float:
        if self.n_widths == 1:
            return smallest
        return float(-np.expm1(self.n_widths * np.log1p(-min(smallest, 1.0 - 1e-16))))

    def _paired(self, t: Float64Array) -> list[tuple[NullDistribution, float]]:
        return list(zip(self.nulls, t.tolist(), strict=True))

    def _check(self, t: Float64Array) -> None:
        if t.shape != (self.n_widths,) or np.isnan(t).any():
            msg = (
                f"t must hold one number for each of the {self.n_widths} kernel widths; got "
                f"{t.tolist()}; test the window with the reference that these toys belong to"
            )
            raise ParameterError(msg)
