"""From background events to a calibrated reference: embed, split, build, run the toys."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from engines.artifact import SampleFacts, utc_now, versions
from engines.calibration_config import CalibrationConfig, Sizes, choose_sizes
from engines.embed_events import embed_events
from engines.engine import Engine
from engines.errors import ParameterError
from engines.events import EventRange
from engines.nplm import (
    BasisConfig,
    CachedReference,
    WidthNulls,
    draw_toys,
    events_for_pool,
    offset_share,
)
from engines.nplm.toys import WARN_OFFSET_SHARE
from engines.progress import Progress
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.reference_toys import ReferenceToys, features_on_disk
from engines.toy_journal import ToyJournal, journal_key
from engines.toy_runs import SerialRunner, ToyRunner, run_toys
from engines.types import FloatArray, IntArray
from engines.unseen import refuse_repeated_events, refuse_training_events

__all__ = [
    "IN_THIS_PROCESS",
    "Calibrated",
    "Running",
    "calibrate",
    "calibrate_embeddings",
]

_LOG = logging.getLogger(__name__)
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Running:
    """Where and how a calibration computes; nothing here changes a t, but for rounding on a GPU.

    Attributes:
        runner: where toys are computed.
        threads: CPU threads of this process.
        device: of this process.
        journal: file that keeps finished toys, for a calibration that is killed; None keeps none.
        shared: file beside which worker processes of this machine find the features, or None if
            each has its own.
        quiet: show no progress.
    """

    runner: ToyRunner = field(default_factory=SerialRunner)
    threads: int = 2
    device: str = "cpu"
    journal: Path | None = None
    shared: Path | None = None
    quiet: bool = False

    def journal_of(self, scale: int) -> Path | None:
        """Return the journal of one scale."""
        if self.journal is None or scale == 1:
            return self.journal
        return self.journal.with_name(f"{self.journal.name}.{scale}")

    def discard_journals(self, scales: Iterable[int]) -> None:
        """Remove the journals, once the reference that the toys were for is written."""
        for path in map(self.journal_of, scales):
            if path is not None:
                path.unlink(missing_ok=True)


IN_THIS_PROCESS = Running()


@dataclass(frozen=True)
class Calibrated:
    """What a calibration makes of embeddings.

    Attributes:
        reference: made ready.
        nulls: the null of every scale (1: windows as they are).
        pool: (n_pool, d) embeddings that the toys were drawn from.
        model: of the kernel.
        reference_rows: (n_ref,) which of the embeddings are the reference, in its order.
    """

    reference: CachedReference
    nulls: dict[int, WidthNulls]
    pool: FloatArray
    model: BasisConfig
    reference_rows: IntArray


def calibrate(
    engine: Engine,
    sources: Sequence[EventRange],
    config: CalibrationConfig,
    running: Running = IN_THIS_PROCESS,
) -> ReferenceArtifact:
    """Build the reference and its null distributions.

    Raises:
        MismatchError: if the encoder was trained on some of the events, or some are given twice.
        SampleSizeError: if the events are too few; says how many would do.
    """
    samples = tuple(SampleFacts.of(source) for source in sources)
    refuse_training_events(engine.facts, samples)
    refuse_repeated_events(samples)
    running.runner.check()
    sizes = choose_sizes(sum(s.stop - s.start for s in samples), config)
    embeddings, quantities = embed_events(engine, sources, "embedding background")
    made = calibrate_embeddings(embeddings, sizes, config, running)
    basis, n_expected = made.reference.basis, config.window.n_expected
    facts = ReferenceFacts(
        engine_fingerprint=engine.fingerprint,
        window=config.window,
        samples=samples,
        n_basis=sizes.n_basis,
        n_ref=sizes.n_ref,
        n_pool=sizes.n_pool,
        n_toys=config.n_toys,
        loss=config.loss,
        store=config.store,
        offset_shares={
            scale: offset_share(scale * n_expected, sizes.n_pool, sizes.n_ref)
            for scale in made.nulls
        },
        options={
            **vars(made.model),
            "sigmas": list(basis.sigmas),
            "sigma_quantiles": list(config.sigma_quantiles),
            "ranks": [width.rank for width in basis.widths],
            "precision": engine.precision,
        },
        versions=versions("torch", "numpy"),
        created=utc_now(),
    )
    _warn(facts)
    if not engine.facts.trained_on and engine.facts.loss != "none":
        _LOG.warning(
            "the encoder does not say what it was trained on: whether it was on these events is "
            "for you to know"
        )
    return ReferenceArtifact(made.reference, made.nulls, facts, quantities[made.reference_rows])


def calibrate_embeddings(
    embeddings: FloatArray,
    sizes: Sizes,
    config: CalibrationConfig,
    running: Running = IN_THIS_PROCESS,
) -> Calibrated:
    """Shuffle embeddings, (n, d), into the three samples; cache the reference and run the toys.

    Raises:
        ParameterError: if the kernel model sees no difference between one toy and another.
    """
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(embeddings))
    embeddings = embeddings[order]
    first, second = sizes.n_basis, sizes.n_basis + sizes.n_ref
    model = BasisConfig(
        n_centres=sizes.n_centres,
        n_ref=sizes.n_ref,
        n_expected=config.window.n_expected,
        lam=config.lam,
        sigmas=config.sigmas,
        sigma_quantiles=config.sigma_quantiles,
        seed=config.seed,
    )
    reference = CachedReference.build(
        embeddings[:first],
        embeddings[first:second],
        model,
        loss=config.loss,
        device=running.device,
        dtype=getattr(torch, config.store),
        threads=running.threads,
    )
    if min(width.rank for width in reference.basis.widths) == 0:
        raise _flat(reference, config)
    pool = embeddings[second:]
    key = journal_key({**asdict(config), **versions("torch"), "device": running.device}, embeddings)
    with _shared(reference, pool, running.shared) as folder:
        nulls = {}
        for scale in (1, *sorted(config.scales)):
            draws = rng if scale == 1 else np.random.default_rng([config.seed, scale])
            toys = draw_toys(config.window, sizes.n_pool, config.n_toys, draws, scale=scale)
            job = ReferenceToys(reference, pool, scale=scale, folder=folder)
            nulls[scale] = _null(job, toys, scale, key, config, running)
    if any(
        not null.std > _LEAST_SPREAD * (1.0 + abs(null.mean))
        for of_widths in nulls.values()
        for null in of_widths.nulls
    ):
        running.discard_journals(nulls)
        raise _flat(reference, config)
    return Calibrated(reference, nulls, pool, model, order[first:second])


def _null(
    job: ReferenceToys,
    toys: Iterator[IntArray],
    scale: int,
    key: str,
    config: CalibrationConfig,
    running: Running,
) -> WidthNulls:
    with ToyJournal.open(running.journal_of(scale), f"{key} scale {scale}") as journal:
        done = journal.n_toys
        title = "toys" if scale == 1 else f"toys of {scale} windows"
        if done:
            _LOG.info("continuing: %d of %d %s are done", done, config.n_toys, title)
        shown = Progress(config.n_toys - done, title, quiet=running.quiet)
        t = run_toys(
            job,
            toys,
            batch_size=job.batch_size,
            n_toys=config.n_toys,
            runner=running.runner,
            journal=journal,
            progress=shown.advance,
        )
        shown.close()
        return WidthNulls(t)


@contextmanager
def _shared(
    reference: CachedReference, pool: FloatArray, beside: Path | None
) -> Iterator[Path | None]:
    if beside is None:
        yield None
    else:
        with features_on_disk(reference, pool, beside) as folder:
            yield folder


def _flat(reference: CachedReference, config: CalibrationConfig) -> ParameterError:
    sigmas = ", ".join(f"{sigma:g}" for sigma in reference.basis.sigmas)
    msg = (
        f"t must vary from toy to toy; it does not with sigma {sigmas} and lam "
        f"{config.lam:g}; leave --sigma to its default, or lower --lam"
    )
    return ParameterError(msg)


def _warn(facts: ReferenceFacts) -> None:
    for scale, share in facts.offset_shares.items():
        if share > 1.01 * WARN_OFFSET_SHARE:
            n_data = scale * facts.window.n_expected
            enough = events_for_pool(n_data, facts.n_ref, WARN_OFFSET_SHARE)
            _LOG.warning(
                "the pool is small%s: every t may be off by about %.0f %% of the null's spread; "
                "a pool of %d events would bring it to %.0f %%",
                "" if scale == 1 else f" for {scale} windows as one",
                100 * share,
                enough,
                100 * WARN_OFFSET_SHARE,
            )
