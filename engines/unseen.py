"""Refusals of events that an encoder has seen, or that are given twice."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from engines.artifact import EngineFacts, SampleFacts
from engines.errors import MismatchError
from engines.event_marks import count_marked
from engines.types import FloatArray

__all__ = ["refuse_marked_events", "refuse_repeated_events", "refuse_training_events"]


def refuse_training_events(facts: EngineFacts, samples: Iterable[SampleFacts]) -> None:
    """Refuse ranges of files that the encoder of these facts was trained on.

    Raises:
        MismatchError: naming the events in common.
    """
    for sample in samples:
        for trained in facts.trained_on:
            shared = sample.overlap(trained)
            if shared:
                msg = (
                    f"the encoder was trained on {shared} of these events ({trained.name} events "
                    f"{trained.start} to {trained.stop}, asked for: {sample.start} to "
                    f"{sample.stop}); choose others, for instance {sample.name}@{trained.stop}:"
                )
                raise MismatchError(msg)


def refuse_marked_events(facts: EngineFacts, particles: FloatArray, path: Path) -> None:
    """Refuse events of the training that come in another file, order or selection.

    Args:
        facts: hold a sample of the events that the encoder was trained on.
        particles: (n, 19, 3) float32.
        path: where they come from.

    Raises:
        MismatchError: if one of that sample is among them.
    """
    marked = count_marked(particles, facts.trained_marks)
    if marked:
        msg = (
            f"{path} holds events that the encoder was trained on, though not in a file that it "
            f"knows ({marked} recognised among {len(particles)}, of a sample of those events); "
            "choose others"
        )
        raise MismatchError(msg)


def refuse_repeated_events(samples: Sequence[SampleFacts]) -> None:
    """Refuse ranges that share events: what is drawn from them is disjoint only if none do.

    Raises:
        MismatchError: naming both.
    """
    for one, other in combinations(samples, 2):
        shared = one.overlap(other)
        if shared:
            msg = (
                f"each event may be given once; {one.name} events {one.start} to {one.stop} and "
                f"{other.name} events {other.start} to {other.stop} share {shared}; give disjoint "
                "ranges"
            )
            raise MismatchError(msg)
