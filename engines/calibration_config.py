"""What a calibration is to be, and how many events serve for what."""

import math
from dataclasses import dataclass, field

from engines.errors import ParameterError, SampleSizeError
from engines.nplm import Loss, events_for_pool
from engines.nplm.basis import check_sigma
from engines.nplm.toys import events_for_each
from engines.windows import WindowSpec

__all__ = ["CalibrationConfig", "Sizes", "choose_sizes"]

_STORES = ("float32", "float16")


@dataclass(frozen=True)
class CalibrationConfig:
    """What the user chose; None takes a default that depends on the number of events.

    Attributes:
        window: how the stream is cut.
        n_toys: toys, for each scale as many.
        n_ref, n_basis, n_centres: sizes.
        sigmas, sigma_quantiles: kernel widths, or the quantiles of the distances that give them.
        lam: ridge parameter.
        loss: what a fit minimises.
        scales: how many consecutive windows are also tested as one, with the likelihood loss.
        store: how features are kept.
        seed: of the split, the centres and the toys.
    """

    window: WindowSpec
    n_toys: int = 300
    n_ref: int | None = None
    n_basis: int | None = None
    n_centres: int | None = None
    sigmas: tuple[float, ...] | None = None
    sigma_quantiles: tuple[float, ...] = (0.9,)
    lam: float = 1e-6
    loss: Loss = "cross-entropy"
    scales: tuple[int, ...] = field(default=())
    store: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that no calibration can use, before any event is embedded.

        Raises:
            ParameterError: if a value is out of its range.
        """
        rules = {
            f"toys must be at least 2; got {self.n_toys}": self.n_toys >= 2,
            **{
                f"the sigma quantile must lie between 0 and 1; got {quantile}": 0 < quantile < 1
                for quantile in self.sigma_quantiles
            },
            "sigma must hold at least one width; got none": self.sigmas != (),
            "the sigma quantiles must be at least one; got none": bool(self.sigma_quantiles),
            f"lam must lie between 1e-12 and 1; got {self.lam}": 1e-12 <= self.lam <= 1,
            f"loss must be cross-entropy or likelihood; got {self.loss}": self.loss
            in ("cross-entropy", "likelihood"),
            f"scales must be whole numbers above 1, each once; got {list(self.scales)}": all(
                scale > 1 for scale in self.scales
            )
            and len(set(self.scales)) == len(self.scales),
            f"store must be one of {list(_STORES)}; got {self.store}": self.store in _STORES,
            f"seed must be a whole number from 0 up; got {self.seed}": 0 <= self.seed < 2**63,
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)
        for sigma in self.sigmas or ():
            check_sigma(sigma)

    @property
    def n_largest(self) -> float:
        """Events expected in the largest window that is tested, merged ones included."""
        return max((1, *self.scales)) * self.window.n_expected


@dataclass(frozen=True)
class Sizes:
    """How many events serve for what; the three samples are disjoint."""

    n_basis: int
    n_ref: int
    n_pool: int
    n_centres: int


def choose_sizes(n_events: int, config: CalibrationConfig) -> Sizes:
    """Split the events into basis, reference and pool.

    The reference is ten windows (with several scales, or twice the largest) if there are events for
    it, else half of what the basis leaves. Centres default to sqrt(n_ref + N(R)), the basis sample
    to five events a centre or 5000.

    Raises:
        SampleSizeError: if the events are too few; says how many would do.
    """
    n_data = config.n_largest
    wish = math.ceil(max(10 * config.window.n_expected, 2 * n_data if config.scales else 0))
    largest = config.n_ref or wish
    n_basis = config.n_basis or max(5000, 5 * _n_centres(largest, config))
    n_ref = config.n_ref or min(largest, max(1, (n_events - n_basis) // 2))
    n_centres = _n_centres(n_ref, config)
    if n_basis < max(2, n_centres):
        msg = (
            f"the basis must hold at least {max(2, n_centres)} events, one for each of its "
            f"{n_centres} centres; got {n_basis}; raise --n-basis or lower --centres"
        )
        raise SampleSizeError(msg)
    n_pool = n_events - n_basis - n_ref
    if n_pool < events_for_pool(n_data, n_ref):
        # Without a wish for n_ref, reference and pool of this size each keep the offset in bounds.
        each = events_for_each(n_data)
        wanted = config.n_ref or each
        pool = events_for_pool(n_data, wanted) if config.n_ref else each
        merged = f" and {max(config.scales)} of them merged" if config.scales else ""
        msg = (
            f"calibrating windows of {config.window}{merged} needs at least "
            f"{n_basis + wanted + pool} background events (basis {n_basis}, reference {wanted}, "
            f"pool {pool}); got {n_events}; give more events or a smaller window"
        )
        raise SampleSizeError(msg)
    return Sizes(n_basis, n_ref, n_pool, n_centres)


def _n_centres(n_ref: int, config: CalibrationConfig) -> int:
    return config.n_centres or math.ceil(math.sqrt(n_ref + config.window.n_expected))
