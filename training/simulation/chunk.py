"""One chunk of a simulation: a process generated until enough events pass the trigger."""

from dataclasses import dataclass

import numpy as np

from engines.errors import TrainingError
from engines.events import N_FEATURES, N_OBJECTS
from engines.types import FloatArray, IntArray
from training.simulation.detector import Detector
from training.simulation.generator import EventGenerator
from training.simulation.particles import EventBlock
from training.simulation.plan import Chunk

__all__ = ["Simulated", "resimulate", "simulate_chunk"]

_MAX_CANDIDATES = 200
_MAX_ROUNDS = 20
#: Candidates without a single accepted event before giving up.
_MAX_BARREN = 20_000


@dataclass(frozen=True)
class Simulated:
    """Accepted events.

    Attributes:
        particles: (n, 19, 3) float32.
        realisations: further responses to each event, (n, K, 19, 3) float32.
        n_generated: events that Pythia generated for them.
        cross_section_mb: of what was generated, in millibarn.
        n_repeated: realisations that the trigger did not accept in `_MAX_ROUNDS` tries, and in
            whose place the event's first response stands.
    """

    particles: FloatArray
    realisations: FloatArray
    n_generated: int
    cross_section_mb: float
    n_repeated: int


def simulate_chunk(chunk: Chunk, detector: Detector, n_realisations: int) -> Simulated:
    """Generate a chunk of a process; the result depends on nothing but the arguments.

    Raises:
        TrainingError: if the trigger accepts nothing of very many events.
    """
    if chunk.process is None:
        msg = f"a chunk of soft events has no detector response; got {chunk.name}"
        raise TrainingError(msg)
    generator = EventGenerator(chunk.process, chunk.seeds[0])
    rng = np.random.default_rng(chunk.seeds[1])
    parts: list[Simulated] = []
    n_accepted = n_barren = n_generated = 0
    while n_accepted < chunk.n_events:
        missing = chunk.n_events - n_accepted
        candidates = generator.candidates(min(2 * missing + 10, _MAX_CANDIDATES))
        particles, passes = detector.respond(candidates.block, rng)
        chosen = np.flatnonzero(passes)[:missing]
        n_barren = 0 if len(chosen) else n_barren + len(passes)
        if n_barren > _MAX_BARREN:
            msg = f"the trigger accepts nothing of {n_barren} events of {chunk.process.name}"
            raise TrainingError(msg)
        if len(chosen):
            first = particles[chosen]
            block = candidates.block.take(chosen)
            again, repeated = resimulate(block, first, n_realisations, detector, rng)
            parts.append(Simulated(first, again, 0, 0.0, repeated))
            n_accepted += len(chosen)
            n_generated = int(candidates.n_generated[chosen[-1]])
    return Simulated(
        np.concatenate([part.particles for part in parts]),
        np.concatenate([part.realisations for part in parts]),
        n_generated,
        generator.cross_section_mb * chunk.process.branching,
        sum(part.n_repeated for part in parts),
    )


def resimulate(
    block: EventBlock,
    first: FloatArray,
    n_realisations: int,
    detector: Detector,
    rng: np.random.Generator,
) -> tuple[FloatArray, int]:
    """Draw further responses to events until each has enough that the trigger accepts.

    Soft events, efficiencies, resolutions and noise are drawn anew; the generated event stays.

    Args:
        block: n generated events.
        first: the response that accepted each, (n, 19, 3) float32.
        n_realisations: K.
        detector: what responds.
        rng: draws.

    Returns:
        The responses, (n, K, 19, 3) float32, and how many of them are the first one again because
        `_MAX_ROUNDS` times as many tries did not give enough.

    Source: Harris et al., "Re-Simulation-based Self-Supervised Learning", arXiv:2403.07066.
    """
    n = len(block)
    shape = (n, n_realisations, N_OBJECTS, N_FEATURES)
    found = np.repeat(first[:, None], n_realisations, axis=1).reshape(shape)
    filled = np.zeros(n, np.int64)
    for _ in range(_MAX_ROUNDS):
        lacking = n_realisations - filled
        if not lacking.any():
            break
        event = np.repeat(np.arange(n), lacking)
        responses, passes = detector.respond(block.take(event), rng)
        event, responses = event[passes], responses[passes]
        place = filled[event] + _rank(event)
        found[event, place] = responses
        filled += np.bincount(event, minlength=n)
    return found, int((n_realisations - filled).sum())


def _rank(event: IntArray) -> IntArray:
    """Return how many of the same event come before each; events are in order.

    >>> _rank(np.array([0, 0, 2, 2, 2]))
    array([0, 1, 0, 1, 2])
    """
    return np.arange(len(event)) - np.searchsorted(event, event)
