"""What a test of one window says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from engines.types import Float64Array

__all__ = ["FittedTest", "WindowTest"]


@dataclass(frozen=True)
class WindowTest:
    """The result of one test.

    Attributes:
        t: (n_widths,) the test statistic of each kernel width.
        log_ratios: computes f.
        gradient_squared: what the solver stopped at, of the worst width; above its tolerance, t
            did not converge.
        evaluations: passes over the reference, of all widths together.
    """

    t: Float64Array
    log_ratios: Callable[[], Float64Array]
    gradient_squared: float
    evaluations: int

    @cached_property
    def f(self) -> Float64Array:
        """Fitted log density ratio of each event, (n_widths, n_data): large where data exceed."""
        return self.log_ratios()


@dataclass(frozen=True)
class FittedTest(WindowTest):
    """A test whose fit is kept: f can be had at any events, those of the reference among them.

    Attributes:
        coefficients: a of each kernel width, (rank of the width,): f = psi . a.
    """

    coefficients: tuple[Float64Array, ...]
