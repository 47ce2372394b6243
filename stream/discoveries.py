"""Online control of the false-discovery rate, beside the false-alarm rate.

Of the windows called discoveries, an expected share of at most Q are background. What holds depends
on how the p-values hang together, and all windows here share one reference: where it fluctuates,
all p-values are too small together, or too large.

    lond-dependent   whatever the dependence (default)
    lond             positive dependence (PRDS): plausible for a shared reference, not proven here;
                     proven where p-values are ranks among shared calibration scores (Bates et al.)
    lord++           independent p-values: NOT so here; the most powerful of the three

All need p-values that are uniform, or larger, on background: an extrapolated p is only as good as
its law. Sources: Javanmard and Montanari, Ann. Statist. 46 (2018) 526, LOND and its version for
dependent p-values; Zrnic, Ramdas, Jordan, JMLR 22 (2021), LOND under PRDS; Ramdas et al., NeurIPS
2017, LORD++; Bates et al., Ann. Statist. 51 (2023) 149. Computed by the package online-fdr.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from scipy.special import digamma

from engines.errors import ParameterError

__all__ = ["FDR_METHODS", "Discoveries", "FdrMethod"]

FdrMethod: TypeAlias = Literal["lond-dependent", "lond", "lord++"]
FDR_METHODS: tuple[FdrMethod, ...] = get_args(FdrMethod)
#: Share of Q that LORD++ starts with, as its authors do.
_INITIAL_WEALTH = 0.5


class Discoveries:
    """Decides, window after window, which are discoveries at a false-discovery rate.

    Args:
        rate: Q, above 0 and below 1.
        method: one of `FDR_METHODS`.

    Raises:
        ParameterError: if the rate is out of range or there is no such method.

    >>> discoveries = Discoveries(0.1, "lond")
    >>> [discoveries.test(p) for p in (0.5, 1e-6, 0.2)]
    [False, True, False]
    """

    def __init__(self, rate: float, method: FdrMethod = "lond-dependent") -> None:
        """Start without a trial."""
        if not 0.0 < rate < 1.0:
            msg = f"a false-discovery rate must be above 0 and below 1; got {rate:g}"
            raise ParameterError(msg)
        if method not in FDR_METHODS:
            msg = f"the method must be one of {', '.join(FDR_METHODS)}; got {method!r}"
            raise ParameterError(msg)
        from online_fdr.p_values import Lond, LordPlusPlus

        self._procedure = (
            LordPlusPlus(rate, wealth=_INITIAL_WEALTH * rate) if method == "lord++" else Lond(rate)
        )
        self._rate, self._any_dependence = rate, method == "lond-dependent"

    def state(self) -> dict[str, Any]:
        """Return what later decisions depend on: the procedure's counts, wealth and rejections."""
        return {name: kept for name, kept in vars(self._procedure).items() if _is_plain(kept)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        vars(self._procedure).update(state)

    def test(self, p_value: float) -> bool:
        """Return whether the next window is a discovery."""
        if self._any_dependence:
            # The package's own `dependent` sums 1/i anew for each window: 50 ms after a million.
            self._procedure.alpha0 = self._rate / _harmonic(self._procedure.num_hypotheses + 1)
        return bool(self._procedure.test_one(min(max(float(p_value), 0.0), 1.0)))


def _harmonic(n: int) -> float:
    """Return 1 + 1/2 + ... + 1/n.

    >>> round(_harmonic(3), 12) == round(1 + 1 / 2 + 1 / 3, 12)
    True
    """
    return float(digamma(n + 1)) + np.euler_gamma


def _is_plain(value: object) -> bool:
    """Return whether JSON holds a value as it is: numbers, None, lists of indices."""
    return value is None or isinstance(value, int | float | list)
