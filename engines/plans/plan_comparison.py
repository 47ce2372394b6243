"""A compiled encoder beside ONNX Runtime: the same events, their embeddings, t and Z.

The plan itself is compared where this machine can run it. Elsewhere torch computes on the CPU the
typed network that the plan was compiled from: that shows what the precision costs, though not that
TensorRT compiled it well.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.artifact import SampleFacts
from engines.engine import Engine, open_engine
from engines.errors import EngineUnavailableError, MissingPackageError
from engines.event_files import read_events
from engines.events import EventRange
from engines.plans.embedding_check import (
    BOUNDS,
    MAX_SHIFT,
    SampleEmbeddings,
    check_sample_size,
    compare_embeddings,
    compare_z,
    refuse_shifts,
)
from engines.plans.plan_file import PlanFacts, check_runnable, write_plan
from engines.plans.tensorrt_api import gpu_capability
from engines.plans.typed_network import Embed, on_cpu
from engines.progress import Progress
from engines.samples import sample_path
from engines.types import FloatArray

if TYPE_CHECKING:
    import onnx

    from engines.reference_file import ReferenceArtifact

__all__ = ["Candidate", "Comparison", "Reference", "find_reference"]

_LOG = logging.getLogger(__name__)
_ROWS = 1000
_SIGNAL = "A4l"


@dataclass(frozen=True)
class Candidate:
    """What was compiled and is not kept yet.

    Attributes:
        facts: of the plan.
        engine: as TensorRT serialised it.
        typed: the network that it was compiled from.
        output: where the plan will be.
    """

    facts: PlanFacts
    engine: bytes
    typed: "onnx.ModelProto"
    output: Path


@dataclass(frozen=True)
class Reference:
    """A reference and the name of its file."""

    name: str
    artifact: "ReferenceArtifact"


@dataclass(frozen=True)
class Comparison:
    """What a plan is compared on, and how far off it may be.

    Attributes:
        events: background; None takes the bundled sample that no bundled encoder was trained on.
        tolerance: largest difference of embeddings, in spreads; None takes the precision's own.
        max_t_shift: of t, over the null's spread.
        max_z_shift: of Z.
        threads: CPU threads.
    """

    events: EventRange | None = None
    tolerance: float | None = None
    max_t_shift: float = MAX_SHIFT
    max_z_shift: float = MAX_SHIFT
    threads: int = 1

    @property
    def source(self) -> EventRange:
        """The background."""
        return self.events or EventRange(sample_path("sm_unseen"))

    def samples(self, reference: Reference | None) -> list[FloatArray]:
        """Return the background, and signal if there is a reference to see it with.

        Raises:
            ArtifactError: if the events cannot be read.
            SampleSizeError: if they do not fill a window of the reference.
        """
        background = read_events(self.source)
        if reference is None:
            return [background]
        check_sample_size(reference.artifact, len(background))
        return [background, read_events(sample_path(_SIGNAL))]

    def run(
        self,
        candidate: Candidate,
        expected: Engine,
        samples: list[FloatArray],
        reference: Reference | None,
    ) -> dict[str, Any]:
        """Return what was found, for the plan's facts.

        Args:
            candidate: what was compiled.
            expected: the same encoder in ONNX Runtime.
            samples: as `samples` gave them.
            reference: to compare Z with, if there is one.

        Raises:
            ParityError: if embeddings, t or Z are too far off.
        """
        facts = candidate.facts
        bound = BOUNDS[facts.precision] if self.tolerance is None else self.tolerance
        with _embedding(candidate, self.threads) as (embed, computed_by):
            ours = [_embedded(expected.embed, "ONNX Runtime", sample) for sample in samples]
            theirs = [_embedded(embed, facts.precision, sample) for sample in samples]
        advice = "take a finer --precision, or more with --tolerance"
        shift = compare_embeddings(ours[0], theirs[0], bound, computed_by, advice)
        found = {
            "computed_by": computed_by,
            "compared_with": expected.runtime,
            "events": asdict(SampleFacts.of(self.source)),
            **asdict(shift),
            "bound": bound,
        }
        if reference is None:
            return {**found, "reference": "", "window": "", "z": []}
        z = self._z(reference.artifact, SampleEmbeddings(*ours), SampleEmbeddings(*theirs))
        window = str(reference.artifact.facts.window)
        return {**found, "reference": reference.name, "window": window, "z": z}

    def _z(
        self, artifact: "ReferenceArtifact", ours: SampleEmbeddings, theirs: SampleEmbeddings
    ) -> list[dict[str, Any]]:
        shifts = compare_z(artifact, ours, theirs)
        advice = (
            "take a finer --precision, or allow more with --max-t-shift and --max-z-shift and "
            "calibrate a reference with the plan, or give --events like the reference's"
        )
        refuse_shifts(shifts, self.max_t_shift, self.max_z_shift, advice)
        return [asdict(shift) for shift in shifts]


def find_reference(
    given: Path | None, beside: tuple[Path, ...], expected: Engine, threads: int
) -> Reference | None:
    """Return the reference to compare Z with, if there is one.

    Args:
        given: by the user.
        beside: where else one may be.
        expected: the encoder it must have been made with.
        threads: CPU threads of its tests.

    Raises:
        ArtifactError: if the reference is missing or damaged.
        MismatchError: if it was made with another encoder.
    """
    found = given or next((path for path in beside if path.is_file()), None)
    if found is None:
        return None
    from engines.reference_file import load_reference

    artifact = load_reference(found, threads=threads)
    artifact.check_engine(expected)
    return Reference(found.name, artifact)


@contextmanager
def _embedding(candidate: Candidate, threads: int) -> Iterator[tuple[Embed, str]]:
    """Yield what computes the candidate's embeddings, and its name."""
    with ExitStack() as stack:
        try:
            plan = stack.enter_context(_opened(candidate))
        except (EngineUnavailableError, MissingPackageError) as exc:
            _LOG.info("the network is compared, not the plan, which cannot run here: %s", exc)
            network, precision = candidate.typed, candidate.facts.precision
            yield stack.enter_context(on_cpu(network, precision, threads))
        else:
            yield plan.embed, f"the plan, run by {plan.runtime},"


@contextmanager
def _opened(candidate: Candidate) -> Iterator[Engine]:
    """Open the plan under a name of its own; Z is compared before it gets the right one."""
    facts, output = candidate.facts, candidate.output
    check_runnable(facts, facts.flavour, facts.version, gpu_capability())
    unchecked = output.with_name(f".{output.stem}.unchecked.plan")
    try:
        write_plan(unchecked, facts, candidate.engine)
        with open_engine(unchecked, max_batch=facts.max_batch) as plan:
            yield plan
    finally:
        unchecked.unlink(missing_ok=True)


def _embedded(embed: Embed, name: str, particles: FloatArray) -> FloatArray:
    progress, pieces = Progress(len(particles), f"comparing, {name}"), []
    for first in range(0, len(particles), _ROWS):
        pieces.append(embed(particles[first : first + _ROWS]))
        progress.advance(len(pieces[-1]))
    progress.close()
    return np.concatenate(pieces)
