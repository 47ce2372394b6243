"""Each window against references drawn anew: how much of its Z is this one reference's chance.

A reference is finite, and all windows share it: where it fluctuates, so does every Z of a scan, and
no number of windows shows it. So further background events are divided at random, again and again,
into a reference as large as the calibrated one and a pool of all the rest; toys from that pool make
a null of that reference's own, and p-values are of that null. The basis (centres, widths,
standardisation, projector) stays; of the events that chose it none is drawn.

References drawn from one background share events, and toys share them too: the spread of Z is
smaller than that of independent references would be, the more the larger a share of the background
each takes. A bootstrap of the cached reference would need no further events, but a bootstrapped
reference fluctuates about the cached one as much again as that does about the truth: t rises, and
the stored null no longer holds for it.

Source: arXiv:2502.15926 Table VII.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from engines.artifact import SampleFacts
from engines.embed_events import embed_events
from engines.engine import Engine
from engines.errors import MismatchError, SampleSizeError
from engines.events import EventRange
from engines.nplm import (
    CachedReference,
    Features,
    Tail,
    WidthNulls,
    draw_toys,
    events_for_pool,
    z_score,
)
from engines.progress import Progress
from engines.reference_file import ReferenceArtifact, ReferenceFacts
from engines.types import AnyArray, FloatArray
from stream.scanning.journal import Line, ScanJournal
from stream.scanning.source import StoredWindows

__all__ = ["Resampling", "basis_events", "check_drawn", "free_events", "scan_resampled"]


@dataclass(frozen=True)
class Resampling:
    """How references are drawn anew.

    Attributes:
        sources: background events, none of them trained on or scanned.
        free: (n,) bool, which of them may be drawn.
        n_references: how many.
        n_toys: for the null of each.
        seed: of the draws and the toys.
        alarm_on: which p-value is reported.
        key: names events, toys and seed: results under another key are not of these references.
    """

    sources: tuple[EventRange, ...]
    free: AnyArray
    n_references: int
    n_toys: int
    seed: int
    alarm_on: Tail
    key: str


def basis_events(facts: ReferenceFacts, samples: Sequence[SampleFacts]) -> AnyArray:
    """Return which events of some samples the basis was made of, (n,) bool.

    Args:
        facts: of the reference; its seed gives the division again that calibration made.
        samples: the events, by content.
    """
    sizes = [sample.stop - sample.start for sample in facts.samples]
    order = np.random.default_rng(facts.options.get("seed", 0)).permutation(sum(sizes))
    in_basis = np.zeros(sum(sizes), dtype=bool)
    in_basis[order[: facts.n_basis]] = True
    found = np.zeros(sum(sample.stop - sample.start for sample in samples), dtype=bool)
    place = 0
    for sample in samples:
        first = 0
        for known, size in zip(facts.samples, sizes, strict=True):
            if sample.overlap(known):
                low, high = max(sample.start, known.start), min(sample.stop, known.stop)
                here, there = place - sample.start, first - known.start
                found[here + low : here + high] = in_basis[there + low : there + high]
            first += size
        place += sample.stop - sample.start
    return found


def free_events(facts: ReferenceFacts, samples: Sequence[SampleFacts]) -> AnyArray:
    """Return which of the background events may be drawn, (n,) bool: all but the basis.

    Raises:
        SampleSizeError: if they are too few for a reference and a pool.
    """
    free = ~basis_events(facts, samples)
    n_pool = events_for_pool(facts.window.n_expected, facts.n_ref)
    if free.sum() < facts.n_ref + n_pool:
        msg = (
            f"references drawn anew need {facts.n_ref + n_pool} background events (reference "
            f"{facts.n_ref}, pool for the toys {n_pool}) that did not make the basis; "
            f"--reference-events holds {free.sum()}; give more, such as those that "
            "calibrate-reference was given"
        )
        raise SampleSizeError(msg)
    return free


def check_drawn(journal: ScanJournal, how: Resampling) -> None:
    """Refuse to go on with references that were drawn otherwise.

    Raises:
        MismatchError: if there are any.
    """
    if any(line["drawn"] != how.key for line in journal.resampled):
        msg = (
            f"{journal.path} holds tests of references drawn otherwise; give the "
            "--reference-events, --resample-toys and --seed of that scan, or another --results"
        )
        raise MismatchError(msg)


def scan_resampled(
    source: StoredWindows,
    engine: Engine,
    artifact: ReferenceArtifact,
    how: Resampling,
    journal: ScanJournal,
) -> Iterator[Line]:
    """Test every window against every reference drawn anew; skip what the journal holds.

    Args:
        source: the windows.
        engine: the encoder.
        artifact: the calibrated reference, which gives the basis.
        how: how references are drawn.
        journal: holds the results so far, and takes the others.

    Yields:
        The line of each test, once it is kept.

    Raises:
        MismatchError: if events that the encoder was trained on are recognised in the background.
    """
    embeddings = embed_events(engine, how.sources, "embedding background")[0][how.free]
    psi = artifact.reference.features(embeddings)
    for number in range(len(journal.resampled) // source.n_windows, how.n_references):
        reference, null = _draw(embeddings, psi, artifact, how, number)
        first = len(journal.resampled) - number * source.n_windows
        for index in range(first, source.n_windows):
            parts = [part for _, _, _, part in source.embed(engine, index)]
            test = reference.test_features([reference.features(part) for part in parts])
            p_value = null.tail_p_value(how.alarm_on, test.t)
            line: Line = {
                "resampling": number,
                "window": index,
                "drawn": how.key,
                "t_by_width": test.t.tolist(),
                "null_mean": [one.mean for one in null.nulls],
                "null_std": [one.std for one in null.nulls],
                "p_alarm": p_value,
                "z_alarm": z_score(p_value),
            }
            journal.append([line])
            yield line


def _draw(
    embeddings: FloatArray,
    psi: Features,
    artifact: ReferenceArtifact,
    how: Resampling,
    number: int,
) -> tuple[CachedReference, WidthNulls]:
    """Draw a reference from embeddings, (n, d), with features psi, (n, rank); run its toys."""
    facts, like = artifact.facts, artifact.reference
    rng = np.random.default_rng([how.seed, number])
    order = rng.permutation(len(embeddings))
    drawn, rest = order[: facts.n_ref], order[facts.n_ref :]
    reference = CachedReference(
        like.basis,
        embeddings[drawn],
        like.n_expected,
        loss=like.loss,
        device=like.basis.mean.device,
        dtype=like.dtype,
        threads=like.threads.n,
        psi=psi[drawn],
    )
    toys = (rest[toy] for toy in draw_toys(facts.window, len(rest), how.n_toys, rng))
    t, shown = [], Progress(how.n_toys, f"toys of reference {number}")
    while batch := list(islice(toys, reference.batch_size())):
        t.append(reference.test_batch(psi, batch))
        shown.advance(len(batch))
    shown.close()
    return reference, WidthNulls(np.concatenate(t))
