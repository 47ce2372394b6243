"""From background events to a calibrated reference: embed, split, build, run the toys."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from engines.artifact import SampleFacts, utc_now, versions
from engines.engine import Engine
from engines.errors import MismatchError, ParameterError, SampleSizeError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.nplm import (
    BasisConfig,
    CachedReference,
    NullDistribution,
    draw_toys,
    events_for_pool,
    offset_share,
)
from engines.nplm.toys import events_for_each
from engines.progress import Progress
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import FloatArray
from engines.windows import WindowSpec

__all__ = [
    "CalibrationConfig",
    "Sizes",
    "calibrate",
    "calibrate_embeddings",
    "choose_sizes",
    "embed_events",
]

_LOG = logging.getLogger(__name__)
_WARN_OFFSET_SHARE = 0.25
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class CalibrationConfig:
    """What the user chose; None takes a default that depends on the number of events."""

    window: WindowSpec
    n_toys: int = 300
    n_ref: int | None = None
    n_basis: int | None = None
    n_centres: int | None = None
    sigma: float | None = None
    sigma_quantile: float = 0.9
    lam: float = 1e-6
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that no calibration can use, before any event is embedded.

        Raises:
            ParameterError: if a value is out of its range.
        """
        sigma, quantile = 1.0 if self.sigma is None else self.sigma, self.sigma_quantile
        rules = {
            f"toys must be at least 2; got {self.n_toys}": self.n_toys >= 2,
            f"sigma must be a finite number above zero; got {sigma}": 0 < sigma < math.inf,
            f"the sigma quantile must lie between 0 and 1; got {quantile}": 0 < quantile < 1,
            f"lam must lie between 1e-12 and 1; got {self.lam}": 1e-12 <= self.lam <= 1,
            f"seed must be a whole number from 0 up; got {self.seed}": 0 <= self.seed < 2**63,
        }
        for broken, holds in rules.items():
            if not holds:
                raise ParameterError(broken)


@dataclass(frozen=True)
class Sizes:
    """How many events serve for what; the three samples are disjoint."""

    n_basis: int
    n_ref: int
    n_pool: int
    n_centres: int


def choose_sizes(n_events: int, config: CalibrationConfig) -> Sizes:
    """Split the events into basis, reference and pool.

    The reference is ten windows if there are events for it, else half of what the basis leaves.
    Centres default to sqrt(n_ref + N(R)), the basis sample to five events a centre or 5000.

    Raises:
        SampleSizeError: if the events are too few; says how many would do.
    """
    n_data = config.window.n_expected
    largest = config.n_ref or math.ceil(10 * n_data)
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
        msg = (
            f"calibrating windows of {config.window} needs at least {n_basis + wanted + pool} "
            f"background events (basis {n_basis}, reference {wanted}, pool {pool}); got "
            f"{n_events}; give more events or a smaller window"
        )
        raise SampleSizeError(msg)
    return Sizes(n_basis, n_ref, n_pool, n_centres)


def _n_centres(n_ref: int, config: CalibrationConfig) -> int:
    return config.n_centres or math.ceil(math.sqrt(n_ref + config.window.n_expected))


def embed_events(engine: Engine, sources: Sequence[EventRange], title: str) -> FloatArray:
    """Return the embeddings of all events of the files, (n, d), read slice by slice."""
    blocks = []
    total = sum(facts.stop - facts.start for facts in map(SampleFacts.of, sources))
    shown = Progress(total, title)
    for source in sources:
        with EventFile(source.path) as file:
            for particles in file.slices(source.start, source.stop):
                blocks.append(engine.embed(particles))
                shown.advance(len(particles))
    shown.close()
    return np.concatenate(blocks) if blocks else np.empty((0, engine.dim), np.float32)


def calibrate(
    engine: Engine,
    sources: Sequence[EventRange],
    config: CalibrationConfig,
) -> ReferenceArtifact:
    """Build the reference and its null distribution.

    Raises:
        MismatchError: if the encoder was trained on some of the events, or some are given twice.
        SampleSizeError: if the events are too few; says how many would do.
    """
    samples = tuple(SampleFacts.of(source) for source in sources)
    _refuse_training_events(engine, samples)
    _refuse_repeated_events(samples)
    sizes = choose_sizes(sum(s.stop - s.start for s in samples), config)
    embeddings = embed_events(engine, sources, "embedding background")
    reference, null, model = calibrate_embeddings(embeddings, sizes, config)
    facts = ReferenceFacts(
        engine_fingerprint=engine.fingerprint,
        window=config.window,
        samples=samples,
        n_basis=sizes.n_basis,
        n_ref=sizes.n_ref,
        n_pool=sizes.n_pool,
        n_toys=config.n_toys,
        offset_share=offset_share(config.window.n_expected, sizes.n_pool, sizes.n_ref),
        options={**vars(model), "sigma": reference.basis.sigma, "rank": reference.basis.rank},
        versions=versions("torch", "numpy"),
        created=utc_now(),
    )
    _warn(facts)
    return ReferenceArtifact(reference, null, facts)


def calibrate_embeddings(
    embeddings: FloatArray, sizes: Sizes, config: CalibrationConfig
) -> tuple[CachedReference, NullDistribution, BasisConfig]:
    """Shuffle embeddings, (n, d), into the three samples; cache the reference and run the toys.

    Raises:
        ParameterError: if the kernel model sees no difference between one toy and another.
    """
    rng = np.random.default_rng(config.seed)
    embeddings = embeddings[rng.permutation(len(embeddings))]
    first, second = sizes.n_basis, sizes.n_basis + sizes.n_ref
    model = BasisConfig(
        n_centres=sizes.n_centres,
        n_ref=sizes.n_ref,
        n_expected=config.window.n_expected,
        lam=config.lam,
        sigma=config.sigma,
        sigma_quantile=config.sigma_quantile,
        seed=config.seed,
    )
    reference = CachedReference.build(embeddings[:first], embeddings[first:second], model)
    if reference.basis.rank == 0:
        raise _flat(reference, config)
    shown = Progress(config.n_toys, "toys")
    toys = draw_toys(config.window, sizes.n_pool, config.n_toys, rng)
    null = NullDistribution(reference.test_toys(embeddings[second:], toys, done=shown.advance))
    shown.close()
    if not null.std > _LEAST_SPREAD * (1.0 + abs(null.mean)):
        raise _flat(reference, config)
    return reference, null, model


def _flat(reference: CachedReference, config: CalibrationConfig) -> ParameterError:
    msg = (
        f"t must vary from toy to toy; it does not with sigma {reference.basis.sigma:g} and lam "
        f"{config.lam:g}; leave --sigma to its default, or lower --lam"
    )
    return ParameterError(msg)


def _refuse_training_events(engine: Engine, samples: Sequence[SampleFacts]) -> None:
    for sample in samples:
        for trained in engine.facts.trained_on:
            shared = sample.overlap(trained)
            if shared:
                msg = (
                    f"the encoder was trained on {shared} of these events ({trained.name} events "
                    f"{trained.start} to {trained.stop}); calibrate on others, for instance "
                    f"{sample.name}@{trained.stop}:"
                )
                raise MismatchError(msg)


def _refuse_repeated_events(samples: Sequence[SampleFacts]) -> None:
    """The three samples are disjoint only if no event is given twice."""
    for one, other in combinations(samples, 2):
        shared = one.overlap(other)
        if shared:
            msg = (
                f"each event may be given once; {one.name} events {one.start} to {one.stop} and "
                f"{other.start} to {other.stop} share {shared}; give disjoint ranges"
            )
            raise MismatchError(msg)


def _warn(facts: ReferenceFacts) -> None:
    if facts.offset_share > _WARN_OFFSET_SHARE:
        enough = events_for_pool(facts.window.n_expected, facts.n_ref, _WARN_OFFSET_SHARE)
        _LOG.warning(
            "the pool is small: every t may be off by about %.0f %% of the null's spread; "
            "a pool of %d events would bring it to %.0f %%",
            100 * facts.offset_share,
            enough,
            100 * _WARN_OFFSET_SHARE,
        )
