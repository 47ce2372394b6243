"""Who sees which events: the part reserved for the NPLM test, and what training holds out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.errors import ParameterError, SampleSizeError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.types import IntArray
from training.data import EventSet

__all__ = [
    "Split",
    "check_reserve",
    "fold_splits",
    "reserve_events",
    "split_events",
]

#: Fewer events than this cannot be split into a class to learn and a class to test.
MIN_CLASS_EVENTS = 10
#: In a shuffled file the share of a process differs between two parts by chance alone.
_MAX_SIGMAS = 6.0


@dataclass(frozen=True)
class Split:
    """Indices of the events to learn from and of the events held out."""

    train: IntArray
    validation: IntArray


def check_reserve(fraction: float) -> None:
    """Refuse a share that cannot be reserved.

    Raises:
        ParameterError: if it is not from 0 to below 1.
    """
    if not 0 <= fraction < 1:
        msg = f"reserve must be from 0 to below 1; got {fraction}; 0 reserves nothing"
        raise ParameterError(msg)


def reserve_events(
    sources: Sequence[EventRange], fraction: float
) -> tuple[list[EventRange], list[EventRange]]:
    """Keep the last part of every file given whole away from training.

    A file given as a range has been split by hand and is used as it is.

    Returns:
        The ranges to train on, one for each source, and the ranges reserved.

    Raises:
        ParameterError: if the fraction is out of range, or a file is not shuffled: its last part
            would not be a fair sample of it.
    """
    check_reserve(fraction)
    used, reserved = [], []
    for source in sources:
        first = None
        if source.start == 0 and source.stop is None:
            with EventFile(source.path) as file:
                first = len(file) - round(fraction * len(file))
                if 0 < first < len(file):
                    _check_shuffled(file, first)
                    reserved.append(EventRange(source.path, first, len(file)))
                else:
                    first = None
        used.append(source if first is None else EventRange(source.path, 0, first))
    return used, reserved


def _check_shuffled(file: EventFile, first: int) -> None:
    labels = file.labels()
    if labels is None:
        return
    n_reserved = len(labels) - first
    for label in np.unique(labels):
        members = labels == label
        share = float(members.mean())
        ahead, last = float(members[:first].mean()), float(members[first:].mean())
        error = math.sqrt(share * (1 - share) * (1 / first + 1 / n_reserved))
        # One event more or less is no evidence in a file of few.
        if abs(last - ahead) > _MAX_SIGMAS * error + 1 / n_reserved:
            msg = (
                f"{file.path} must be shuffled for its last {n_reserved} events to be reserved; "
                f"process {label} is {ahead:.1%} of the events before them and {last:.1%} of "
                "them; shuffle the file, give it as a range, or use --reserve 0"
            )
            raise ParameterError(msg)


def split_events(
    events: EventSet, validation_fraction: float, seed: int, *, needs_labels: bool = True
) -> Split:
    """Hold out a fraction of every class, or of all events if there are no labels.

    Args:
        events: all events.
        validation_fraction: part of each class to hold out.
        seed: of the draw.
        needs_labels: whether each class must be on both sides; otherwise one too small for that
            is learned from as a whole.

    Raises:
        ParameterError: if the fraction is not between 0 and 1.
        SampleSizeError: if a class, or the whole, is too small to be split.
    """
    if not 0 < validation_fraction < 1:
        msg = f"validation fraction must be between 0 and 1; got {validation_fraction}; try 0.2"
        raise ParameterError(msg)
    rng = np.random.default_rng(seed)
    train, validation = [], []
    for name, members in _classes(events):
        shuffled = rng.permutation(members)
        held = round(validation_fraction * len(shuffled))
        if len(shuffled) < MIN_CLASS_EVENTS or not 0 < held < len(shuffled) - 1:
            if not needs_labels:
                train.append(shuffled)
                continue
            msg = (
                f"{name} must hold at least {MIN_CLASS_EVENTS} events, some of them on each side "
                f"of the split; got {len(shuffled)}, of which {held} are held out; "
                f"{_remedy(events)}"
            )
            raise SampleSizeError(msg)
        validation.append(shuffled[:held])
        train.append(shuffled[held:])
    return _joined(train, validation)


def _joined(train: Sequence[IntArray], validation: Sequence[IntArray]) -> Split:
    """Return the parts of all classes as one split; every class was too small if none is held."""
    if not validation:
        msg = (
            f"the sample must hold at least {MIN_CLASS_EVENTS} events of a class, some of them on "
            f"each side of the split; got {sum(map(len, train))} in all; add events"
        )
        raise SampleSizeError(msg)
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(validation)))


def _remedy(events: EventSet) -> str:
    return "add events" if events.targets is None else "add events, or use --without-process"


def fold_splits(
    events: EventSet, n_folds: int, seed: int, *, needs_labels: bool = True
) -> list[Split]:
    """Return splits whose held-out parts share no event and together are every event.

    Each class is dealt to the folds evenly. One too small for that is refused, or, where training
    needs no labels, learned from in every fold and held out in none.

    Raises:
        ParameterError: if there are fewer than two folds.
        SampleSizeError: if a class is too small for them.
    """
    if n_folds < 2:
        msg = f"folds must be at least 2; got {n_folds}"
        raise ParameterError(msg)
    rng = np.random.default_rng(seed)
    fold = np.full(len(events.particles), -1)
    needed = max(MIN_CLASS_EVENTS, 2 * n_folds)
    for name, members in _classes(events):
        if len(members) < needed:
            if not needs_labels and len(members) < len(events.particles):
                continue
            msg = (
                f"{name} must hold at least {needed} events for {n_folds} folds; got "
                f"{len(members)}; {_remedy(events)}, or lower --folds"
            )
            raise SampleSizeError(msg)
        fold[rng.permutation(members)] = np.arange(len(members)) % n_folds
    if (fold < 0).all():
        msg = f"a class must hold at least {needed} events for {n_folds} folds; add events"
        raise SampleSizeError(msg)
    return [
        Split(np.flatnonzero(fold != index), np.flatnonzero(fold == index))
        for index in range(n_folds)
    ]


def _classes(events: EventSet) -> list[tuple[str, IntArray]]:
    """Return a name and the indices of each class; all events are one if there are no labels."""
    if events.targets is None:
        return [("the sample", np.arange(len(events.particles)))]
    return [
        (f"class {label}", np.flatnonzero(events.targets == index))
        for index, label in enumerate(events.classes)
    ]
