"""What the smallest of many p-values is worth: Bonferroni's bound, and Sidak's formula beside it.

Source: arXiv:2502.15926 (black boxes: Bonferroni over their splits).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engines.nplm import Tail, z_score
from stream.alarms import Trials
from stream.scanning.journal import Line

__all__ = ["GlobalSignificance", "global_significance", "global_significances"]

#: The field of a line that holds each p-value.
_FIELDS: dict[Tail, str] = {"chi2": "p_chi2", "gamma": "p_gamma", "toys": "p"}


@dataclass(frozen=True)
class GlobalSignificance:
    """The smallest of n p-values, corrected for their number.

        Bonferroni   p_global = min(1, n p_min)          whatever the dependence: never too small
        Sidak        p_global = 1 - (1 - p_min)^n        independent tests

    Attributes:
        tail: where the p-values come from.
        n: how many.
        smallest_p, place: the smallest, and its place among them.
        bonferroni_p, bonferroni_z: Z = Phi^-1(1 - p); null where n p_min is 1 or above, which
            bounds nothing.
        sidak_p, sidak_z: the same by Sidak; without signal Z is 0 on average.
    """

    tail: Tail
    n: int
    smallest_p: float
    place: int
    bonferroni_p: float
    bonferroni_z: float | None
    sidak_p: float
    sidak_z: float


def global_significance(p_values: Sequence[float], tail: Tail = "chi2") -> GlobalSignificance:
    """Return what the smallest of some p-values, one at least, is worth.

    >>> found = global_significance([0.5, 0.001, 0.2, 0.9])
    >>> found.place, found.bonferroni_p, round(found.sidak_p, 6)
    (1, 0.004, 0.003994)
    """
    smallest = min(p_values)
    trials = Trials(len(p_values), smallest)
    bonferroni = min(1.0, len(p_values) * smallest)
    return GlobalSignificance(
        tail=tail,
        n=len(p_values),
        smallest_p=smallest,
        place=list(p_values).index(smallest),
        bonferroni_p=bonferroni,
        bonferroni_z=z_score(bonferroni) if bonferroni < 1.0 else None,
        sidak_p=trials.global_p,
        sidak_z=trials.global_z,
    )


def global_significances(lines: Iterable[Line]) -> list[GlobalSignificance]:
    """Return it for each kind of p-value, over all windows of all scales."""
    lines = list(lines)
    return [
        global_significance([line[field] for line in lines], tail)
        for tail, field in _FIELDS.items()
    ]
