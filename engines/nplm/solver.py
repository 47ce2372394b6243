"""The converged fit of the density ratio, many windows at once.

The loss n L(a) of `losses` in the whitened coordinates of `basis` has the identity as its Hessian
under the null, so L-BFGS started from there needs few passes over the features, and |gradient|^2
in these coordinates estimates how far a stands from the minimum. At a = 0 the gradient is a
difference of sums that are known beforehand, so the first evaluation costs no pass. Newton's method
finishes what lies far from the null.

The few numbers a window has in these coordinates live on the host, in NumPy; only the passes run
where the features are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.nplm.curvature import hessian_over
from engines.nplm.losses import Loss, slope_at_zero, value_at_zero
from engines.nplm.sums import Sample, sums_over
from engines.nplm.threads import Threads
from engines.types import BoolArray, Float64Array, IntArray

__all__ = ["Fit", "Problem", "solve"]

_MEMORY = 12
_ARMIJO = 1e-4
#: Rounding of the summed float32 loss, relative: a step is not refused for less.
_LOSS_NOISE = 1e-8
_MAX_HALVINGS = 40
_MAX_NEWTON = 100
#: Beyond it the error of t counts relative to t.
_LARGE_T = 1000.0
#: Times the square root of the tolerance: by so little, 0.05 by default, the last step moves t that
#: has settled. What is left to move is much less still.
_SETTLED = 16.0


@dataclass(frozen=True)
class Problem:
    """Windows to be fitted against one reference.

    Attributes:
        samples: the events: the reference, and in the cross-entropy each window's own data; for
            relabelling reference and window, with the labels of each relabelling.
        data_sums: (n_windows, r) float64 sum of psi over each window's data, S_D.
        zero_sums: (n_windows, r) or (r,) float64 weighted sum of psi over all events whose terms
            enter the loss: with it the gradient at a = 0 is h'(0) zero_sums - S_D.
        zero_weight: (n_windows,) float64 sum of these events' weights.
        weight: w = N(R) / n_ref.
        ridge: (r,) float64.
        curvature: (r,) float64, the null Hessian's diagonal.
        loss: which loss.
        threads: what runs the passes.
    """

    samples: Sequence[Sample]
    data_sums: Float64Array
    zero_sums: Float64Array
    zero_weight: Float64Array
    weight: float
    ridge: Float64Array
    curvature: Float64Array
    loss: Loss = "cross-entropy"
    threads: Threads = field(default_factory=Threads)

    def at_zero(self) -> "_Point":
        """Return loss and gradient of every window at a = 0."""
        value = value_at_zero(self.loss) * self.zero_weight
        gradient = slope_at_zero(self.loss) * self.zero_sums - self.data_sums
        return _Point(np.column_stack([value, np.zeros_like(value), gradient]))

    def evaluate(self, a: Float64Array, windows: IntArray) -> "_Point":
        """Return loss and gradient of some windows.

        Args:
            a: (k, r) float64 coordinates, one row a window.
            windows: (k,) which windows.
        """
        # A step too far overflows, and the line search takes it back.
        with np.errstate(over="ignore", invalid="ignore"):
            packed = sums_over(self.samples, a, windows, self.loss, self.threads)
        linear = 0.5 * a * self.ridge
        if self.loss == "likelihood":
            linear -= self.data_sums[windows]
            packed[:, 2:] -= self.data_sums[windows]
        packed[:, 0] += (a * linear).sum(axis=1)
        packed[:, 2:] += a * self.ridge
        return _Point(packed)

    def hessian(self, a: Float64Array, window: int) -> Float64Array:
        """Return the loss's second derivatives, (r, r) float64, of one window at a, (r,)."""
        hessian = np.diag(self.ridge)
        for sample in self.samples:
            hessian += hessian_over(sample, window, a, self.loss)
        return hessian


@dataclass
class _Point:
    """Loss, sum over the reference of e^f - 1, and gradient side by side, (k, 2 + r) float64."""

    packed: Float64Array

    @property
    def value(self) -> Float64Array:
        return self.packed[:, 0]

    @property
    def excess(self) -> Float64Array:
        return self.packed[:, 1]

    @property
    def gradient(self) -> Float64Array:
        return self.packed[:, 2:]

    def __getitem__(self, rows: IntArray | BoolArray) -> "_Point":
        return _Point(self.packed[rows])

    def __setitem__(self, rows: IntArray | BoolArray, other: "_Point") -> None:
        self.packed[rows] = other.packed


@dataclass(frozen=True)
class Fit:
    """The fitted windows.

    Attributes:
        a: (n_windows, r) float64 coordinates.
        excess: (n_windows,) sum over the reference of e^f - 1; not finite if float32 overflowed.
        gradient_squared: (n_windows,) |gradient|^2 at the end, in units of the null Hessian; for
            the likelihood over (s / 1000)^2 where s = 2 |sum_D f|, the larger part of a large t
            and without a bound, is above 1000.
        evaluations: passes over the features that the slowest window needed.
    """

    a: Float64Array
    excess: Float64Array
    gradient_squared: Float64Array
    evaluations: int


def solve(problem: Problem, *, tolerance: float = 1e-5, max_evaluations: int = 100) -> Fit:
    """Minimise the loss of every window from a = 0: L-BFGS, then Newton where that is not enough.

    t is no extremum of the loss, so its error is of the order of |gradient|: for windows near the
    null between 0.3 and 2 times that, 0.003 for the default tolerance, where the null's spread of t
    is about 10. Where e^f is steep it can be many times more, so t must have settled too.

    Args:
        problem: the windows and their reference.
        tolerance: a window stops when its `gradient_squared` is below it.
        max_evaluations: after so many, windows that are not there yet (signals of hundreds of
            standard deviations) are finished one by one by Newton's method, at r / 4 times the cost
            of an evaluation a step.
    """
    state = _State(problem)
    evaluations = _lbfgs(state, tolerance, max_evaluations)
    left = np.flatnonzero(state.error > tolerance).tolist()
    evaluations += max((_newton(state, window, tolerance) for window in left), default=0)
    return Fit(state.a, state.point.excess, state.error, evaluations)


class _State:
    """Where the fit of every window stands."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.point = problem.at_zero()
        self.a = np.zeros_like(self.point.gradient)
        self.error = self.error_of(self.a, self.point, problem.data_sums)

    def settle(self, windows: IntArray, a: Float64Array, point: _Point) -> None:
        self.a[windows], self.point[windows] = a, point
        self.error[windows] = self.error_of(a, point, self.problem.data_sums[windows])

    def error_of(self, a: Float64Array, point: _Point, data_sums: Float64Array) -> Float64Array:
        """Return `gradient_squared` as `Fit` has it."""
        norm: Float64Array = (point.gradient**2 / self.problem.curvature).sum(axis=1)
        if self.problem.loss == "cross-entropy":
            return norm
        of_data = 2.0 * np.abs((a * data_sums).sum(axis=1))
        norm /= np.maximum(of_data / _LARGE_T, 1.0) ** 2
        return norm

    def change_of_t(
        self,
        a: Float64Array,
        point: _Point,
        step: Float64Array,
        reached: _Point,
        data_sums: Float64Array,
    ) -> Float64Array:
        """Return by how much a step moved t, over t / 1000 where t is larger; inf counts as 0."""
        grown = self.problem.weight * (reached.excess - point.excess)
        moved = 2.0 * np.abs((step * data_sums).sum(axis=1) - grown)
        size = 2.0 * np.abs((a * data_sums).sum(axis=1)) / _LARGE_T
        change: Float64Array = np.nan_to_num(moved / np.maximum(size, 1.0), nan=0.0, posinf=0.0)
        return change


def _lbfgs(state: _State, tolerance: float, max_evaluations: int) -> int:
    """Take steps for all windows together; return the number of evaluations."""
    history, evaluations = _History(1.0 / state.problem.curvature), 0
    settled = _SETTLED * tolerance**0.5
    active = np.arange(len(state.a))
    a, point, data_sums = state.a, state.point, state.problem.data_sums
    moves, change = np.ones(len(a), bool), np.zeros(len(a))
    while evaluations < max_evaluations:
        unsettled = (state.error_of(a, point, data_sums) > tolerance) | (change > settled)
        running = moves & unsettled
        if not running.all():
            ended = ~running
            state.settle(active[ended], a[ended], point[ended])
            active, a, point = active[running], a[running], point[running]
            data_sums = data_sums[running]
            history.keep(running)
        if len(active) == 0:
            break
        direction = history.direction(point.gradient)
        step, reached, used = _line_search(state.problem, a, active, direction, point)
        evaluations += used
        history.push(step, reached.gradient - point.gradient)
        change = state.change_of_t(a, point, step, reached, data_sums)
        a, point, moves = a + step, reached, (step != 0).any(axis=1)
    state.settle(active, a, point)
    return evaluations


def _newton(state: _State, index: int, tolerance: float) -> int:
    """Take steps for one window; return the number of evaluations."""
    window, evaluations = np.array([index]), 0
    for _ in range(_MAX_NEWTON):
        if state.error[index] <= tolerance:
            break
        point, a = state.point[window], state.a[window]
        hessian = state.problem.hessian(a[0], index)
        direction = -np.linalg.solve(hessian, point.gradient[0])[None]
        step, reached, used = _line_search(state.problem, a, window, direction, point)
        evaluations += used
        state.settle(window, a + step, reached)
        if not reached.value < point.value - _LOSS_NOISE * np.abs(point.value):
            break
    return evaluations


def _line_search(
    problem: Problem,
    a: Float64Array,
    windows: IntArray,
    direction: Float64Array,
    point: _Point,
) -> tuple[Float64Array, _Point, int]:
    """Halve each window's step until its loss falls enough (Armijo); a hopeless step becomes 0."""
    slope = (direction * point.gradient).sum(axis=1)
    length = np.ones_like(slope)
    reached = problem.evaluate(a + direction, windows)
    slack = _LOSS_NOISE * np.abs(point.value)
    for used in range(1, _MAX_HALVINGS):
        failed = ~(reached.value <= point.value + _ARMIJO * length * slope + slack)
        if not failed.any():
            return length[:, None] * direction, reached, used
        length[failed] *= 0.5
        trial = a[failed] + length[failed, None] * direction[failed]
        reached[failed] = problem.evaluate(trial, windows[failed])
    failed = ~(reached.value <= point.value + _ARMIJO * length * slope + slack)
    length[failed] = 0.0
    reached[failed] = point[failed]
    return length[:, None] * direction, reached, _MAX_HALVINGS


class _History:
    """The last steps and gradient changes, each (k, r); a window without curvature skips a pair."""

    def __init__(self, inverse_curvature: Float64Array) -> None:
        self._inverse_curvature = inverse_curvature
        self._pairs: list[tuple[Float64Array, Float64Array, Float64Array]] = []

    def keep(self, rows: BoolArray) -> None:
        self._pairs = [(s[rows], y[rows], inverse[rows]) for s, y, inverse in self._pairs]

    def push(self, step: Float64Array, change: Float64Array) -> None:
        curvature = (step * change).sum(axis=1)
        usable = curvature > 1e-12 * (change * change).sum(axis=1)
        inverse = usable / np.where(usable, curvature, 1.0)
        self._pairs = [*self._pairs[1 - _MEMORY :], (step, change, inverse)]

    def direction(self, gradient: Float64Array) -> Float64Array:
        """Two-loop recursion from the null Hessian (Nocedal & Wright, Alg. 7.4)."""
        q = -gradient
        projections = []
        for step, change, inverse in reversed(self._pairs):
            alpha = inverse * (step * q).sum(axis=1)
            q = q - alpha[:, None] * change
            projections.append(alpha)
        q = q * self._inverse_curvature
        for (step, change, inverse), alpha in zip(self._pairs, reversed(projections), strict=True):
            beta = inverse * (change * q).sum(axis=1)
            q = q + (alpha - beta)[:, None] * step
        return q
