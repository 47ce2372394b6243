"""The converged fit of the density ratio, many windows at once.

In the whitened coordinates of `basis` the loss of one window is

    n L(a) = sum_D softplus(-f) + w sum_R softplus(f) + (1/2) sum_k ridge_k a_k^2,   f = psi . a

the weighted cross-entropy of arXiv:2204.02317 (Falkon's convention) times n. Its Hessian under
the null is the identity, so L-BFGS started from the identity needs few gradient evaluations, and
|gradient|^2 / 2 estimates how far the loss stands above its minimum.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

__all__ = ["Fit", "Problem", "solve"]

_BLOCK = 8_192
_MEMORY = 12
_ARMIJO = 1e-4
#: Rounding of the summed float32 loss, relative: a step is not refused for less.
_LOSS_NOISE = 1e-8
_MAX_HALVINGS = 40


@dataclass(frozen=True)
class Problem:
    """Windows to be fitted against one reference.

    Attributes:
        psi_ref: (n_ref, r) whitened features of the reference.
        psi_data: (n_windows, n_data, r); a shorter window is padded with rows of zeros, which have
            f = 0 whatever the fit, so they add a constant to the loss and nothing to t.
        weight: w = N(R) / n_ref.
        ridge: (r,) float64.
    """

    psi_ref: torch.Tensor
    psi_data: torch.Tensor
    weight: float
    ridge: torch.Tensor

    def loss_and_gradient(
        self, a: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return n L, (k,), and its gradient, (k, r), both float64.

        Args:
            a: (k, r) float64 coordinates, one row a window.
            windows: (k,) which windows.
        """
        stored = a.to(self.psi_ref.dtype)
        loss = 0.5 * (a * a * self.ridge).sum(dim=1)
        gradient = a * self.ridge
        for psi in torch.split(self.psi_ref, _BLOCK):
            f = psi @ stored.T
            loss += self.weight * softplus(f).sum(dim=0, dtype=torch.float64)
            gradient += self.weight * (torch.sigmoid(f).T @ psi).double()
        for row, window in enumerate(windows.tolist()):
            psi = self.psi_data[window]
            f = psi @ stored[row]
            loss[row] += softplus(-f).sum(dtype=torch.float64)
            gradient[row] -= (torch.sigmoid(-f) @ psi).double()
        return loss, gradient


@dataclass(frozen=True)
class Fit:
    """The fitted windows.

    Attributes:
        a: (n_windows, r) float64 coordinates.
        gradient_squared: (n_windows,) |gradient of n L|^2 where the fit stopped.
        evaluations: gradient evaluations that the slowest window needed.
    """

    a: torch.Tensor
    gradient_squared: torch.Tensor
    evaluations: int


def solve(problem: Problem, *, tolerance: float = 1e-5, max_evaluations: int = 200) -> Fit:
    """Minimise the loss of every window from a = 0 by L-BFGS.

    Args:
        problem: the windows and their reference.
        tolerance: a window stops when |gradient|^2 falls below it.
        max_evaluations: give up after so many; `gradient_squared` tells.
    """
    n_windows, rank = problem.psi_data.shape[0], len(problem.ridge)
    a = torch.zeros((n_windows, rank), dtype=torch.float64, device=problem.ridge.device)
    active = torch.arange(n_windows, device=a.device)
    loss, gradient = problem.loss_and_gradient(a, active)
    history = _History()
    evaluations = 1
    final = (gradient * gradient).sum(dim=1)
    while evaluations < max_evaluations:
        running = final[active] > tolerance
        if not bool(running.any()):
            break
        active, loss, gradient = active[running], loss[running], gradient[running]
        history.keep(running)
        direction = history.direction(gradient)
        step, new_loss, new_gradient, used = _line_search(
            problem, a[active], active, direction, loss, gradient
        )
        evaluations += used
        history.push(step, new_gradient - gradient)
        a[active] += step
        loss, gradient = new_loss, new_gradient
        final[active] = (gradient * gradient).sum(dim=1)
        stuck = (step == 0).all(dim=1)
        if bool(stuck.all()):
            break
    return Fit(a, final, evaluations)


def _line_search(
    problem: Problem,
    a: torch.Tensor,
    windows: torch.Tensor,
    direction: torch.Tensor,
    loss: torch.Tensor,
    gradient: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Halve each window's step until its loss falls enough (Armijo); a hopeless step becomes 0."""
    slope = (direction * gradient).sum(dim=1)
    length = torch.ones_like(loss)
    new_loss, new_gradient = problem.loss_and_gradient(a + direction, windows)
    slack = _LOSS_NOISE * loss.abs()
    used = 1
    while used < _MAX_HALVINGS:
        failed = ~(new_loss <= loss + _ARMIJO * length * slope + slack)
        if not bool(failed.any()):
            break
        length[failed] *= 0.5
        trial = a[failed] + length[failed, None] * direction[failed]
        new_loss[failed], new_gradient[failed] = problem.loss_and_gradient(trial, windows[failed])
        used += 1
    else:
        length[failed], new_loss[failed], new_gradient[failed] = 0.0, loss[failed], gradient[failed]
    return length[:, None] * direction, new_loss, new_gradient, used


class _History:
    """The last steps and gradient changes, each (k, r); a window without curvature skips a pair."""

    def __init__(self) -> None:
        self._pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def keep(self, rows: torch.Tensor) -> None:
        self._pairs = [(s[rows], y[rows], inverse[rows]) for s, y, inverse in self._pairs]

    def push(self, step: torch.Tensor, change: torch.Tensor) -> None:
        curvature = (step * change).sum(dim=1)
        usable = curvature > 1e-12 * (change * change).sum(dim=1)
        inverse = torch.where(usable, 1.0 / curvature.where(usable, torch.ones_like(curvature)), 0)
        self._pairs = [*self._pairs[1 - _MEMORY :], (step, change, inverse)]

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Two-loop recursion with the identity as initial Hessian (Nocedal & Wright, Alg. 7.4)."""
        q = -gradient
        projections = []
        for step, change, inverse in reversed(self._pairs):
            alpha = inverse * (step * q).sum(dim=1)
            q = q - alpha[:, None] * change
            projections.append(alpha)
        for (step, change, inverse), alpha in zip(self._pairs, reversed(projections), strict=True):
            beta = inverse * (change * q).sum(dim=1)
            q = q + (alpha - beta)[:, None] * step
        return q
