"""The cached reference: everything about the null that can be prepared before data arrive."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from engines.errors import EngineError, SampleSizeError
from engines.nplm.basis import Basis, BasisConfig, build_basis
from engines.nplm.solver import Problem, solve
from engines.nplm.statistic import log_ratio, window_statistics
from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["CachedReference", "WindowTest", "use_threads"]

_BATCH_BYTES = 256 * 2**20


def use_threads(n_threads: int) -> None:
    """Let the fits of this process use so many CPU threads."""
    torch.set_num_threads(n_threads)


@dataclass(frozen=True)
class WindowTest:
    """The result of one test.

    Attributes:
        t: the test statistic.
        f: (n_data,) fitted log density ratio of each event: large where data exceed the null.
        gradient_squared: what the solver stopped at; above its tolerance, t did not converge.
        evaluations: gradient evaluations used.
    """

    t: float
    f: Float64Array
    gradient_squared: float
    evaluations: int


class CachedReference:
    """A reference sample in whitened features, ready to be compared with windows.

    Args:
        basis: the whitened coordinates.
        embeddings: (n_ref, d) float32 reference sample, disjoint from the basis sample.
        n_expected: events expected in a window under the null, N(R).
        device: where the features live and the fits run.
        dtype: how the features are stored; float32 unless an oracle asks for float64.
    """

    def __init__(
        self,
        basis: Basis,
        embeddings: FloatArray,
        n_expected: float,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Compute the features of the reference once."""
        self.basis = Basis(
            basis.mean.to(device),
            basis.std.to(device),
            basis.sigma,
            basis.centres.to(device),
            basis.projector.to(device),
            basis.ridge.to(device),
        )
        self.embeddings = embeddings
        self.n_expected = n_expected
        self.dtype = dtype
        self.psi = self.features(embeddings)

    @classmethod
    def build(
        cls,
        basis_embeddings: FloatArray,
        embeddings: FloatArray,
        config: BasisConfig,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> "CachedReference":
        """Build the basis from one sample, (n, d), and cache another, (n_ref, d).

        Raises:
            EngineError: if embeddings are not finite, or not (n, d).
            SampleSizeError: if the basis sample has too few distinct events, or the reference
                another size than the configuration says.
        """
        _check(basis_embeddings, None)
        if len(embeddings) != config.n_ref:
            msg = f"the reference must hold n_ref = {config.n_ref} events; got {len(embeddings)}"
            raise SampleSizeError(msg)
        basis = build_basis(torch.from_numpy(np.array(basis_embeddings)), config)
        return cls(basis, embeddings, config.n_expected, dtype=dtype)

    @property
    def n_ref(self) -> int:
        """Events in the reference sample."""
        return len(self.embeddings)

    @property
    def weight(self) -> float:
        """Weight of a reference event, w = N(R) / n_ref."""
        return self.n_expected / self.n_ref

    def features(self, embeddings: FloatArray) -> torch.Tensor:
        """Return psi of embeddings, (n, r).

        Raises:
            EngineError: if embeddings are not finite, or not (n, d).
        """
        _check(embeddings, self.basis.dim)
        return self.basis.features(torch.from_numpy(np.array(embeddings)), self.dtype)

    def test(self, embeddings: FloatArray, *, tolerance: float = 1e-5) -> WindowTest:
        """Compare one window, (n_data, d), with the reference.

        Raises:
            SampleSizeError: if the window is empty.
            EngineError: if embeddings are not finite, or not (n, d).
        """
        if len(embeddings) == 0:
            msg = "a window must hold at least one event to be tested; got none"
            raise SampleSizeError(msg)
        psi = self.features(embeddings)
        problem = Problem(self.psi, psi[None], self.weight, self.basis.ridge)
        fit = solve(problem, tolerance=tolerance)
        return WindowTest(
            t=float(window_statistics(problem, fit)[0]),
            f=log_ratio(psi, fit.a[0]).cpu().numpy(),
            gradient_squared=float(fit.gradient_squared[0]),
            evaluations=fit.evaluations,
        )

    def test_toys(
        self,
        pool: FloatArray,
        toys: Iterable[IntArray],
        *,
        done: Callable[[int], None] | None = None,
    ) -> Float64Array:
        """Return t of many windows of one pool, as matrix products.

        Args:
            pool: (n_pool, d) embeddings.
            toys: pool indices of each window.
            done: called with the number of windows finished since the last call.
        """
        psi_pool = self.features(pool)
        bytes_per_toy = self.n_expected * self.basis.rank * psi_pool.element_size()
        size = max(1, min(64, int(_BATCH_BYTES / bytes_per_toy)))
        values = []
        for batch in _batches(iter(toys), size):
            problem = Problem(self.psi, _stack(psi_pool, batch), self.weight, self.basis.ridge)
            values.append(window_statistics(problem, solve(problem)).cpu().numpy())
            if done is not None:
                done(len(batch))
        return np.concatenate(values) if values else np.empty(0)


def _batches(toys: Iterator[IntArray], size: int) -> Iterator[list[IntArray]]:
    while batch := list(islice(toys, size)):
        yield batch


def _stack(psi: torch.Tensor, toys: list[IntArray]) -> torch.Tensor:
    longest = max(len(toy) for toy in toys)
    stacked = psi.new_zeros((len(toys), longest, psi.shape[1]))
    for row, toy in zip(stacked, toys, strict=True):
        row[: len(toy)] = psi[torch.from_numpy(toy)]
    return stacked


def _check(embeddings: FloatArray, dim: int | None) -> None:
    if embeddings.ndim != 2 or (dim is not None and embeddings.shape[1] != dim):
        msg = f"embeddings must have shape (n, {dim or 'd'}); got {embeddings.shape}"
        raise EngineError(msg)
    if not np.isfinite(embeddings).all():
        msg = "embeddings must be finite; drop the events that are not"
        raise EngineError(msg)
