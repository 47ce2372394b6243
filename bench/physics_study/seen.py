"""Which signals an encoder has seen in its training, by the facts that it carries."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from bench.physics_study.config import Data
from bench.physics_study.jobs import sample_facts
from engines.event_files import EventFile
from engines.event_marks import count_marked
from engines.events import EventRange

__all__ = ["seen_in_training"]


def seen_in_training(engine: Mapping[str, Any], data: Data) -> set[str]:
    """Return the signals of a study that are among an encoder's training events.

    A signal is known by its file, or, where that was copied or cut, by single events of it.

    Args:
        engine: facts of the encoder, as `dataclasses.asdict` gives them.
        data: the study's events.
    """
    files = {sample["content_id"] for sample in engine["trained_on"]}
    seen = set()
    for name, source in (*data.signals.items(), *data.training_signals.items()):
        known = sample_facts(source).content_id in files
        if known or _holds_marked(source, engine.get("trained_marks", "")):
            seen.add(name)
    return seen


@cache
def _holds_marked(source: EventRange, marks: str) -> bool:
    if not marks:
        return False
    with EventFile(source.path) as file:
        return any(count_marked(part, marks) for part in file.slices(source.start, source.stop))
