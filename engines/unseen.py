"""Refusals of events that an encoder has seen, or that are given twice."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from engines.artifact import SampleFacts
from engines.engine import Engine
from engines.errors import MismatchError
from engines.event_marks import count_marked
from engines.types import FloatArray

__all__ = ["refuse_marked_events", "refuse_repeated_events", "refuse_training_events"]


def refuse_training_events(engine: Engine, samples: Sequence[SampleFacts]) -> None:
    """Refuse ranges of files that the encoder was trained on.

    Raises:
        MismatchError: naming the events in common.
    """
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


def refuse_marked_events(engine: Engine, particles: FloatArray, path: Path) -> None:
    """Refuse events of the training that come in another file, order or selection.

    Args:
        engine: knows a sample of the events that it was trained on.
        particles: (n, 19, 3) float32.
        path: where they come from.

    Raises:
        MismatchError: if one of that sample is among them.
    """
    marked = count_marked(particles, engine.facts.trained_marks)
    if marked:
        msg = (
            f"{path} holds events that the encoder was trained on, though not in a file that it "
            f"knows ({marked} recognised among {len(particles)}, of a sample of those events); "
            "calibrate on others"
        )
        raise MismatchError(msg)


def refuse_repeated_events(samples: Sequence[SampleFacts]) -> None:
    """Refuse ranges that share events: the three samples are disjoint only if none do.

    Raises:
        MismatchError: naming both.
    """
    for one, other in combinations(samples, 2):
        shared = one.overlap(other)
        if shared:
            msg = (
                f"each event may be given once; {one.name} events {one.start} to {one.stop} and "
                f"{other.start} to {other.stop} share {shared}; give disjoint ranges"
            )
            raise MismatchError(msg)
