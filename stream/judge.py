"""What the toys say of a window's t: p-values, Z, and which kernel width decides."""

import numpy as np

from engines.nplm import Tail, WidthNulls, z_score
from engines.reference_file import ReferenceArtifact
from engines.types import Float64Array
from stream.window_result import Significance

__all__ = ["Judge"]


class Judge:
    """Compares t with the toys of its scale.

    Args:
        artifact: the calibrated reference.
        alarm_on: which p decides about alarms.
    """

    def __init__(self, artifact: ReferenceArtifact, alarm_on: Tail) -> None:
        """Compare the toys with their fitted laws: it takes a while, so before the first window."""
        self._artifact, self._alarm_on = artifact, alarm_on
        self._ks_p = {
            scale: (nulls.ks_p("chi2"), nulls.ks_p("gamma"))
            for scale, nulls in artifact.nulls.items()
        }

    def judge(self, t: Float64Array, scale: int) -> tuple[int, Significance]:
        """Return which width decides and what the toys of a scale say of t, (n_widths,).

        Raises:
            FloatingPointError: if t is not finite.
        """
        if not np.isfinite(t).all():
            msg = f"t must be finite; got {t.tolist()} of {scale} windows as one"
            raise FloatingPointError(msg)
        nulls = self._artifact.nulls[scale]
        judgement = nulls.judge(t)
        width = _furthest_below(nulls, t) if judgement.is_below else judgement.width
        sigmas = self._artifact.reference.basis.sigmas
        law_p = judgement.p_gamma if self._alarm_on == "gamma" else judgement.p_chi2
        significance = Significance(
            t=float(t[width]),
            sigma=float(sigmas[width]),
            t_by_width=tuple(t.tolist()),
            p_by_width=judgement.p_by_width,
            sigmas=tuple(map(float, sigmas)),
            p=judgement.p_value,
            z=judgement.z_score,
            p_interval=judgement.p_interval,
            p_resolution=nulls.resolution,
            p_chi2=judgement.p_chi2,
            z_chi2=z_score(judgement.p_chi2),
            p_gamma=judgement.p_gamma,
            z_gamma=z_score(judgement.p_gamma),
            chi2_ks_p=self._ks_p[scale][0],
            gamma_ks_p=self._ks_p[scale][1],
            z_systematic=self._z_systematic(nulls, t, scale),
            extrapolated=law_p < nulls.resolution,
            below_null=judgement.is_below,
        )
        return width, significance

    def p_and_z(self, significance: Significance) -> tuple[float, float]:
        """Return the p that decides about alarms, and its Z."""
        return {
            "chi2": (significance.p_chi2, significance.z_chi2),
            "gamma": (significance.p_gamma, significance.z_gamma),
            "toys": (significance.p, significance.z),
        }[self._alarm_on]

    def _z_systematic(self, nulls: WidthNulls, t: Float64Array, scale: int) -> float:
        share = self._artifact.facts.offset_shares[scale]
        return nulls.z_shift("gamma" if self._alarm_on == "gamma" else "chi2", t, share)


def _furthest_below(nulls: WidthNulls, t: Float64Array) -> int:
    spreads = [
        (value - null.mean) / (null.std or 1.0) for null, value in zip(nulls.nulls, t, strict=True)
    ]
    return int(np.argmin(spreads))
