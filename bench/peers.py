"""Two-sample tests that compare windows with one reference: NPLM and what others would use.

Each gives one number for a window, the larger the less the window looks like the reference. Their
own p-values are not used: every test is calibrated on the same toys. Embeddings arrive standardised
by the reference; the kernel widths below are in those units.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy import stats
from scipy.spatial.distance import pdist

from engines.errors import MissingPackageError, ParameterError
from engines.nplm import BasisConfig, CachedReference
from engines.nplm.kernel import gaussian_kernel
from engines.nplm.threads import Threads
from engines.types import Float64Array, FloatArray, IntArray

__all__ = [
    "PEERS",
    "KolmogorovSmirnovPeer",
    "MmdPeer",
    "NplmPeer",
    "OnlineMmdPeer",
    "Peer",
    "PeerConfig",
    "median_width",
]

Done = Callable[[int], None]

_WIDTH_EVENTS = 2000
_BLOCK = 512


@dataclass(frozen=True)
class PeerConfig:
    """What the tests need to know beside the reference.

    Attributes:
        window: events in every window.
        n_centres: Nystrom centres of NPLM.
        online_reference: reference events that the online MMD test is given.
        seed: of NPLM's choice of centres.
        threads: CPU threads of NPLM and of the MMD against the whole reference.
    """

    window: int
    n_centres: int
    online_reference: int = 2500
    seed: int = 0
    threads: int = 1


class Peer(Protocol):
    """One test, ready for windows."""

    @property
    def name(self) -> str:
        """What tables and pictures call it."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that fixes its statistic, JSON-able."""

    def statistics(
        self, pool: FloatArray, windows: Sequence[IntArray], *, done: Done | None = None
    ) -> Float64Array:
        """Return the statistic of each window, (n_windows,).

        Args:
            pool: (P, d) standardised embeddings.
            windows: indices into the pool, one array a window.
            done: called with the number of windows finished since the last call.
        """


def median_width(reference: FloatArray) -> float:
    """Return the median distance between reference events, (n, d): the usual width of an MMD test.

    Raises:
        ParameterError: if half of the events are the same.

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012) 723, section 8.
    """
    width = float(np.median(pdist(reference[:_WIDTH_EVENTS])))
    if not width > 0:
        msg = f"the median distance between events must be above zero; got {width}; drop copies"
        raise ParameterError(msg)
    return width


class NplmPeer:
    """This project's test, with the settings that calibrate-reference would choose.

    Args:
        basis: (n, d) events of the basis.
        reference: (n_ref, d) reference events.
        config: sizes and seed.
    """

    name = "NPLM"

    def __init__(self, basis: FloatArray, reference: FloatArray, config: PeerConfig) -> None:
        """Build the basis and cache the reference."""
        model = BasisConfig(
            n_centres=config.n_centres,
            n_ref=len(reference),
            n_expected=float(config.window),
            seed=config.seed,
        )
        self._reference = CachedReference.build(basis, reference, model, threads=config.threads)
        built = self._reference.basis
        self.settings = {**asdict(model), "sigmas": list(built.sigmas), "rank": built.rank}

    def statistics(
        self, pool: FloatArray, windows: Sequence[IntArray], *, done: Done | None = None
    ) -> Float64Array:
        """Return t of each window, of the one width that is the default."""
        return self._reference.test_toys(pool, windows, done=done)[:, 0]


class MmdPeer:
    """The unbiased squared MMD between a window and the whole reference, Gaussian kernel.

        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)

    The first term is computed once; the mean kernel of an event with the reference is computed the
    first time that a window holds it.

    Args:
        reference: (n_ref, d) reference events.
        threads: CPU threads; the result does not depend on it.

    Source: Gretton et al., JMLR 13 (2012) 723, Eq. 3.
    """

    name = "MMD, whole reference"

    def __init__(self, reference: FloatArray, threads: int = 1) -> None:
        """Compute the reference's own mean kernel."""
        self._threads = Threads(threads)
        self._sigma = median_width(reference)
        self._reference = torch.from_numpy(reference).double()
        n_ref = len(reference)
        sums = self._kernel_sums(self._reference, self._reference)
        self._within = float(sums.sum() - n_ref) / (n_ref * (n_ref - 1))
        self.settings = {"kernel": "Gaussian", "sigma": self._sigma, "n_ref": n_ref}

    def statistics(
        self, pool: FloatArray, windows: Sequence[IntArray], *, done: Done | None = None
    ) -> Float64Array:
        """Return MMD^2 of each window."""
        events = torch.from_numpy(pool).double()
        with_reference = np.full(len(pool), np.nan)

        def one(window: IntArray) -> float:
            unseen = window[np.isnan(with_reference[window])]
            sums = self._kernel_sums(events[unseen], self._reference)
            with_reference[unseen] = sums / len(self._reference)
            data, n_data = events[window], len(window)
            within = float(self._kernel_sums(data, data).sum()) - n_data
            between = float(with_reference[window].mean())
            return self._within + within / (n_data * (n_data - 1)) - 2.0 * between

        return _each(windows, one, done)

    def _kernel_sums(self, x: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return the sum of k(x, .) over the others, (n,), by blocks that stay in the cache."""
        sums = x.new_zeros(len(x))

        def work(first: int) -> None:
            rows = slice(first, first + _BLOCK)
            for part in range(0, len(others), _BLOCK):
                kernel = gaussian_kernel(x[rows], others[part : part + _BLOCK], self._sigma)
                sums[rows] += kernel.sum(1)

        self._threads.map(work, range(0, len(x), _BLOCK))
        return sums


class OnlineMmdPeer:
    """CapyMOA's streaming MMD detector, which is fed a window event by event.

    It holds the kernel matrix of reference and window, so it is given only a part of the reference.
    Its permutations are for the p-value, which is not used; it insists on one.

    Args:
        reference: (n_ref, d) reference events in random order.
        config: window and how many reference events the detector gets.

    Raises:
        MissingPackageError: if CapyMOA or the Java that it needs is not installed.

    Source: https://capymoa.org (BSD-3-Clause), capymoa.drift.detectors.MMD.
    """

    name = "MMD online, CapyMOA"

    def __init__(self, reference: FloatArray, config: PeerConfig) -> None:
        """Give the detector its reference."""
        sigma = median_width(reference)
        self._detector = _capymoa_mmd()(window_size=config.window, sigma=sigma, n_permutations=1)
        part = reference[: config.online_reference].astype(np.float64)
        self._detector.fit(part)
        self.settings = {"kernel": "Gaussian", "sigma": sigma, "n_ref": len(part)}

    def statistics(
        self, pool: FloatArray, windows: Sequence[IntArray], *, done: Done | None = None
    ) -> Float64Array:
        """Return MMD^2 of each window, read when its last event has been added."""

        def one(window: IntArray) -> float:
            self._detector.reset()
            for event in pool[window].astype(np.float64):
                self._detector.add_element(event)
            return float(self._detector.result.statistic)

        return _each(windows, one, done)


class KolmogorovSmirnovPeer:
    """The largest of SciPy's two-sample Kolmogorov-Smirnov statistics over the coordinates.

    With equal sample sizes in every coordinate this is the test of the smallest p-value.

    Args:
        reference: (n_ref, d) reference events.
    """

    name = "KS per feature, SciPy"

    def __init__(self, reference: FloatArray) -> None:
        """Sort each coordinate once, so that later sorts find most of their work done."""
        self._columns = np.sort(reference, axis=0).T.copy()
        self.settings = {"statistic": "max over features", "n_ref": len(reference)}

    def statistics(
        self, pool: FloatArray, windows: Sequence[IntArray], *, done: Done | None = None
    ) -> Float64Array:
        """Return the largest distance between distribution functions of each window."""

        def one(window: IntArray) -> float:
            pairs = zip(self._columns, pool[window].T, strict=True)
            return max(_ks_statistic(column, data) for column, data in pairs)

        return _each(windows, one, done)


#: Name on the command line: how the test is built from basis sample, reference and sizes.
PEERS: dict[str, Callable[[FloatArray, FloatArray, PeerConfig], Peer]] = {
    "nplm": NplmPeer,
    "mmd-online": lambda _, reference, config: OnlineMmdPeer(reference, config),
    "mmd": lambda _, reference, config: MmdPeer(reference, config.threads),
    "ks": lambda _, reference, __: KolmogorovSmirnovPeer(reference),
}


def _each(
    windows: Sequence[IntArray], one: Callable[[IntArray], float], done: Done | None
) -> Float64Array:
    values = np.empty(len(windows))
    for k, window in enumerate(windows):
        values[k] = one(window)
        if done is not None:
            done(1)
    return values


def _ks_statistic(reference: FloatArray, data: FloatArray) -> float:
    return float(stats.ks_2samp(reference, data, method="asymp").statistic)


def _capymoa_mmd() -> Any:  # noqa: ANN401 - CapyMOA's class, known only where it is installed
    try:
        from capymoa.drift.detectors import MMD
    except (ImportError, RuntimeError) as exc:  # RuntimeError: it finds no Java
        msg = (
            f"the online MMD test needs the package capymoa and Java; got {exc}; "
            "pip install 'nplm-stream[bench]' and install Java, or choose other --tests"
        )
        raise MissingPackageError(msg) from exc
    return MMD
