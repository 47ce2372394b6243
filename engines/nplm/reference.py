"""A reference sample made ready: all of the null that can be prepared before data arrive."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise

import numpy as np
import torch

from engines.errors import EngineError, SampleSizeError
from engines.nplm.basis import Basis, BasisConfig, build_basis
from engines.nplm.cuda_stream import BackgroundStream, in_background
from engines.nplm.gather import gather, gathered_sums
from engines.nplm.losses import Loss
from engines.nplm.problems import PreparedReference
from engines.nplm.relabel import Relabelling, relabel
from engines.nplm.solver import Fit, Problem, solve
from engines.nplm.statistic import log_ratio, window_statistics
from engines.nplm.sums import feature_sums
from engines.nplm.tested_window import FittedTest
from engines.nplm.threads import Threads
from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["CachedReference", "Features"]

#: psi of events, (n, rank): rows can be counted and sliced; a tensor to this package only.
Features = torch.Tensor

_ROWS = 16_384
_BATCH_BYTES, _LARGEST_BATCH = 2**29, 64


class CachedReference:
    """A reference sample in whitened features, ready to be compared with windows.

    Args:
        basis: the whitened coordinates of every kernel width.
        embeddings: (n_ref, d) float32 reference sample, disjoint from the basis sample.
        n_expected: events expected in a window under the null, N(R).
        loss: what a fit minimises.
        device: where the features live and the fits run.
        dtype: how features are stored: float32; float16 takes half the memory; float64 for an
            oracle.
        threads: CPU threads, where the features live there; the result does not depend on it.
        psi: (n_ref, rank) features of `embeddings`, if they are known already.
    """

    def __init__(
        self,
        basis: Basis,
        embeddings: FloatArray,
        n_expected: float,
        *,
        loss: Loss = "cross-entropy",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        threads: int = 1,
        psi: Features | None = None,
    ) -> None:
        """Compute no features yet; `psi` does, once."""
        self.basis = basis.to(device)
        self.embeddings, self.n_expected, self.loss = embeddings, n_expected, loss
        self.dtype = dtype
        self.stream = BackgroundStream(self._device)
        # A GPU's stream is this thread's; work that other threads start would not be on it.
        self.threads = Threads(1 if self._device.type == "cuda" else threads)
        self._given_psi = psi

    @classmethod
    def build(
        cls,
        basis_embeddings: FloatArray,
        embeddings: FloatArray,
        config: BasisConfig,
        *,
        loss: Loss = "cross-entropy",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        threads: int = 1,
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
        return cls(
            basis,
            embeddings,
            config.n_expected,
            loss=loss,
            device=device,
            dtype=dtype,
            threads=threads,
        )

    @cached_property
    def psi(self) -> Features:
        """Features of the reference, (n_ref, rank); computed at the first use."""
        return self.features(self.embeddings) if self._given_psi is None else self._given_psi

    def prepare(self) -> None:
        """Compute the reference's features and try a fit, so that no window waits for it."""
        self.test(self.embeddings[:1], tolerance=1.0)

    @cached_property
    @in_background
    def _prepared(self) -> PreparedReference:
        sums = feature_sums(self.psi, self.threads)
        return PreparedReference(
            self.basis, self.psi, sums, self.n_expected, self.loss, self.threads
        )

    @property
    def n_ref(self) -> int:
        """Events in the reference sample."""
        return len(self.embeddings)

    @property
    def n_widths(self) -> int:
        """Number of kernel widths."""
        return len(self.basis.widths)

    @property
    def weight(self) -> float:
        """Weight of a reference event, w = N(R) / n_ref."""
        return self.n_expected / self.n_ref

    @in_background
    def features(self, embeddings: FloatArray) -> Features:
        """Return psi of embeddings, (n, rank): all that a test needs to know of the events.

        Raises:
            EngineError: if embeddings are not finite, or not (n, d).
        """
        _check(embeddings, self.basis.dim)
        x = torch.from_numpy(np.array(embeddings))
        psi = torch.empty((len(x), self.basis.rank), dtype=self.dtype, device=self._device)

        def work(first: int) -> None:
            rows = slice(first, first + _ROWS)
            self.basis.fill_features(x[rows], psi[rows])

        self.threads.map(work, range(0, len(x), _ROWS))
        return psi

    def test(self, embeddings: FloatArray, *, tolerance: float = 1e-5) -> FittedTest:
        """Compare one window, (n_data, d), with the reference.

        Raises:
            SampleSizeError: if the window is empty.
            EngineError: if embeddings are not finite, or not (n, d).
        """
        return self.test_features([self.features(embeddings)], tolerance=tolerance)

    @in_background
    def test_features(self, pieces: Sequence[Features], *, tolerance: float = 1e-5) -> FittedTest:
        """Compare one window with the reference, its features given in pieces: only the fit.

        Raises:
            SampleSizeError: if the window is empty.
        """
        psi = self._join(pieces)
        fits = self._fit(psi, np.array([0, len(psi)]), tolerance)
        coefficients = tuple(fit.a[0] for _, fit in fits)
        return FittedTest(
            t=_statistics(fits)[0],
            log_ratios=lambda: self._log_ratios(psi, coefficients),
            gradient_squared=max(float(fit.gradient_squared[0]) for _, fit in fits),
            evaluations=sum(fit.evaluations for _, fit in fits),
            coefficients=coefficients,
        )

    def log_ratios(self, test: FittedTest) -> Float64Array:
        """Return f of the reference's events for a fitted window, (n_widths, n_ref) float64.

        w e^f is the learned density of the data, given at the reference's events: where the window
        has more than the null expects, these count for more. With the likelihood loss their sum is
        the number of data events but for the ridge.
        """
        return self._log_ratios(self.psi, test.coefficients)

    @in_background
    def _log_ratios(self, psi: Features, coefficients: Sequence[Float64Array]) -> Float64Array:
        columns = self.basis.columns
        f = [log_ratio(psi[:, c], a) for c, a in zip(columns, coefficients, strict=True)]
        return np.asarray(torch.stack(f).cpu().numpy())

    def test_toys(
        self,
        pool: FloatArray,
        toys: Iterable[IntArray],
        *,
        scale: int = 1,
        done: Callable[[int], None] | None = None,
    ) -> Float64Array:
        """Return t of many windows of one pool, (n_toys, n_widths), as matrix products.

        Args:
            pool: (n_pool, d) embeddings.
            toys: pool indices of each window.
            scale: how many windows each toy merges; above 1 the loss is the likelihood.
            done: called with the number of windows finished since the last call.
        """
        psi, values = self.features(pool), []
        for batch in _batches(iter(toys), self.batch_size(scale)):
            values.append(self.test_batch(psi, batch, scale=scale))
            if done is not None:
                done(len(batch))
        return np.concatenate(values) if values else np.empty((0, self.n_widths))

    def batch_size(self, scale: int = 1) -> int:
        """Return how many toys are fitted together, by the memory that their features take."""
        if scale > 1 or self.loss == "likelihood":
            return _LARGEST_BATCH
        bytes_per_toy = self.n_expected * self.basis.rank * self.psi.element_size()
        return max(1, min(_LARGEST_BATCH, int(_BATCH_BYTES / max(1.0, bytes_per_toy))))

    @in_background
    def test_batch(
        self, psi_pool: Features, toys: Sequence[IntArray], *, scale: int = 1
    ) -> Float64Array:
        """Return t of some windows of a pool given by its features, (n_toys, n_widths)."""
        if scale > 1 or self.loss == "likelihood":
            sums = gathered_sums(psi_pool, toys, self.threads)
            return self._merged(sums, scale, 1e-5)
        psi = gather(psi_pool, toys, self.threads)
        fits = self._fit(psi, np.cumsum([0, *map(len, toys)]), 1e-5)
        return _statistics(fits)

    @in_background
    def sums(self, pieces: Sequence[Features]) -> Float64Array:
        """Return the sum of psi over a window's events, (rank,): all the likelihood needs of them.

        Sums of disjoint windows add up to those of the merged window.
        """
        return feature_sums(self._join(pieces), self.threads)

    @in_background
    def test_sums(
        self, sums: Float64Array, *, scale: int = 1, tolerance: float = 1e-5
    ) -> Float64Array:
        """Return t of windows known by their sums alone, with the likelihood loss.

        Args:
            sums: (k, rank) sum of psi over each window's events.
            scale: how many windows were merged into each: k N(R) events are expected.
            tolerance: of the solver.

        Returns:
            (k, n_widths).
        """
        return self._merged(np.asarray(sums), scale, tolerance)

    def _merged(self, sums: Float64Array, scale: int, tolerance: float) -> Float64Array:
        problems = [self._prepared.merged(width, sums, scale) for width in range(self.n_widths)]
        return _statistics([(p, solve(p, tolerance=tolerance)) for p in problems])

    @in_background
    def relabel(
        self,
        pieces: Sequence[Features],
        *,
        n_relabellings: int,
        rng: np.random.Generator,
        done: Callable[[int], None] | None = None,
    ) -> Relabelling:
        """Test a window by relabelling its events and the reference's: exact, without toys.

        Args:
            pieces: features of the window.
            n_relabellings: how many; the smallest p-value is 1 / (n_relabellings + 1).
            rng: of the relabellings.
            done: called with the number of relabellings finished since the last call.

        Raises:
            SampleSizeError: if the window is empty.
        """
        return relabel(
            self._prepared,
            self._join(pieces),
            n_relabellings=n_relabellings,
            rng=rng,
            done=done,
        )

    @property
    def _device(self) -> torch.device:
        return self.basis.mean.device

    def _join(self, pieces: Sequence[Features]) -> Features:
        if sum(map(len, pieces)) == 0:
            msg = "a window must hold at least one event to be tested; got none"
            raise SampleSizeError(msg)
        return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))

    def _fit(self, psi: Features, offsets: IntArray, tolerance: float) -> list[tuple[Problem, Fit]]:
        """Fit windows, window k the rows from offsets[k] to offsets[k + 1], for every width."""
        spans = [slice(*bounds) for bounds in pairwise(offsets.tolist())]
        sums = np.stack([feature_sums(psi[rows], self.threads) for rows in spans])
        problems = [
            self._prepared.merged(width, sums)
            if self.loss == "likelihood"
            else self._prepared.windows(width, psi, offsets, sums)
            for width in range(self.n_widths)
        ]
        return [(problem, solve(problem, tolerance=tolerance)) for problem in problems]


def _statistics(fits: Sequence[tuple[Problem, Fit]]) -> Float64Array:
    """Return t of each window, (n_windows, n_widths)."""
    return np.stack([window_statistics(problem, fit) for problem, fit in fits], axis=1)


def _batches(toys: Iterator[IntArray], size: int) -> Iterator[list[IntArray]]:
    while batch := list(islice(toys, size)):
        yield batch


def _check(embeddings: FloatArray, dim: int | None) -> None:
    if embeddings.ndim != 2 or (dim is not None and embeddings.shape[1] != dim):
        msg = f"embeddings must have shape (n, {dim or 'd'}); got {embeddings.shape}"
        raise EngineError(msg)
    if not np.isfinite(embeddings).all():
        msg = "embeddings must be finite; drop the events that are not"
        raise EngineError(msg)
