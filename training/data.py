"""Events for training: files in, a split by seed, scaling constants and batches out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engines.errors import ParameterError, SampleSizeError
from engines.event_files import EventFile
from engines.events import OBJECT_CLASSES, EventRange
from engines.types import Float64Array, FloatArray, IntArray

__all__ = [
    "SAMPLINGS",
    "BatchSampler",
    "EventSet",
    "Scaling",
    "Split",
    "load_events",
    "measure_scaling",
    "split_events",
]

SAMPLINGS = ("balanced", "cocktail")
#: Fewer events than this cannot be split into a class to learn and a class to test.
_MAX_REPEATS = 10.0
MIN_CLASS_EVENTS = 10


@dataclass(frozen=True)
class EventSet:
    """Events of one or more files.

    Attributes:
        particles: (n, 19, 3) float32, pT in GeV.
        targets: class index of each event, (n,), 0 to len(classes) - 1; None if a file has none.
        classes: the label in the file of each class index.
        unlabelled: the first file without labels, or None.
    """

    particles: FloatArray
    targets: IntArray | None
    classes: tuple[int, ...]
    unlabelled: str | None

    def counts(self, indices: IntArray) -> dict[int, int]:
        """Return how many of the events at `indices` have each label."""
        if self.targets is None:
            return {}
        counted = np.bincount(self.targets[indices], minlength=len(self.classes))
        return dict(zip(self.classes, counted.tolist(), strict=True))


@dataclass(frozen=True)
class Split:
    """Indices of the events to learn from and of the events held out."""

    train: IntArray
    validation: IntArray


@dataclass(frozen=True)
class Scaling:
    """Constants of the preprocessing, one for each of the 19 objects.

    Attributes:
        log_pt_mean: mean of ln(1 + pT / GeV) of the objects that are present, (19,).
        log_pt_std: its standard deviation, (19,).
        eta_std: standard deviation of eta, (19,); its mean is zero by symmetry.
    """

    log_pt_mean: Float64Array
    log_pt_std: Float64Array
    eta_std: Float64Array


def load_events(sources: Sequence[EventRange]) -> EventSet:
    """Read every range; labels are kept only if each file has them.

    Raises:
        ArtifactError: if a file is missing, truncated or not HDF5.
        EventError: if events or labels break the layout.
        SampleSizeError: if a range holds no events.
    """
    particles, labels = [], []
    unlabelled = None
    for source in sources:
        with EventFile(source.path) as file:
            particles.append(file.read(source.start, source.stop))
            label = file.labels(source.start, source.stop)
        if len(particles[-1]) == 0:
            msg = f"{source.path} must hold events from {source.start} on; got none; check @START"
            raise SampleSizeError(msg)
        if label is None:
            unlabelled = unlabelled or str(source.path)
        else:
            labels.append(label)
    events = np.concatenate(particles)
    if unlabelled is not None:
        return EventSet(events, None, (), unlabelled)
    classes, targets = np.unique(np.concatenate(labels), return_inverse=True)
    return EventSet(events, targets.astype(np.int64), tuple(classes.tolist()), None)


def split_events(events: EventSet, validation_fraction: float, seed: int) -> Split:
    """Hold out a fraction of every class, or of all events if there are no labels.

    Raises:
        ParameterError: if the fraction is not between 0 and 1.
        SampleSizeError: if a class, or the whole, is too small to be split.
    """
    if not 0 < validation_fraction < 1:
        msg = f"validation fraction must be between 0 and 1; got {validation_fraction}; try 0.2"
        raise ParameterError(msg)
    rng = np.random.default_rng(seed)
    targets = events.targets
    if targets is None:
        targets = np.zeros(len(events.particles), dtype=np.int64)
    train, validation = [], []
    for index in range(max(len(events.classes), 1)):
        members = rng.permutation(np.flatnonzero(targets == index))
        held = round(validation_fraction * len(members))
        if len(members) < MIN_CLASS_EVENTS or not 0 < held < len(members) - 1:
            name = f"class {events.classes[index]}" if events.classes else "the sample"
            msg = (
                f"{name} must hold at least {MIN_CLASS_EVENTS} events, some of them on each side "
                f"of the split; got {len(members)}, of which {held} are held out; add events"
            )
            raise SampleSizeError(msg)
        validation.append(members[:held])
        train.append(members[held:])
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(validation)))


def measure_scaling(particles: FloatArray) -> Scaling:
    """Return the scaling constants of the training events.

    Objects of a kind (MET, electrons, muons, jets) share their constants: a slot that is almost
    never filled, such as a fourth muon, would otherwise have none that mean anything.

    Args:
        particles: the training events only, (n, 19, 3).
    """
    constants = np.tile([[0.0], [1.0], [1.0]], len(OBJECT_CLASSES))
    for kind in np.unique(OBJECT_CLASSES):
        slots = np.equal(OBJECT_CLASSES, kind)
        objects = particles[:, slots][particles[:, slots, 0] > 0].astype(np.float64)
        if len(objects) < 2:
            continue
        log_pt = np.log1p(objects[:, 0])
        eta_std = float(np.sqrt(np.mean(objects[:, 1] ** 2)))
        measured = (log_pt.mean(), log_pt.std() or 1.0, eta_std or 1.0)
        constants[:, slots] = np.array(measured)[:, None]
    return Scaling(*constants)


class BatchSampler:
    """Draws batches of indices, one pass over as many events as there are.

    Args:
        sampling: `cocktail` visits every event once, in the proportions of the files; `balanced`
            draws with replacement, every class with the same probability, but none of its events
            more than about ten times a pass: beyond that a rare class is learned by heart.
        batch_size: events of one batch.
        targets: class index of each event, (n,); None only with `cocktail`.
        n_events: how many events there are.

    Raises:
        ParameterError: on an unknown sampling, or on `balanced` without labels.
        SampleSizeError: if the events do not fill one batch.
    """

    def __init__(
        self, sampling: str, batch_size: int, targets: torch.Tensor | None, n_events: int
    ) -> None:
        """Sort the events by class."""
        if sampling not in SAMPLINGS:
            msg = f"sampling must be one of {', '.join(SAMPLINGS)}; got {sampling!r}"
            raise ParameterError(msg)
        if n_events < batch_size:
            msg = (
                f"the batch size must be at most the {n_events} events to draw from; "
                f"got {batch_size}; lower --batch-size or add events"
            )
            raise SampleSizeError(msg)
        self._batch_size, self._n_events = batch_size, n_events
        self._balanced = sampling == "balanced"
        if self._balanced:
            if targets is None:
                msg = "balanced sampling must have labels; got none; use --sampling cocktail"
                raise ParameterError(msg)
            self._by_class = torch.argsort(targets, stable=True)
            self._sizes = torch.bincount(targets)
            self._starts = torch.cumsum(self._sizes, dim=0) - self._sizes
            self._shares = _balanced_shares(self._sizes)

    def __len__(self) -> int:
        """Return the number of batches in one pass."""
        return self._n_events // self._batch_size

    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield the index tensors, (batch_size,), of one pass."""
        n_drawn = len(self) * self._batch_size
        if self._balanced:
            chosen = torch.multinomial(self._shares, n_drawn, True, generator=generator)
            sizes = self._sizes[chosen]
            uniform = torch.rand(n_drawn, generator=generator, dtype=torch.float64)
            drawn = self._by_class[self._starts[chosen] + (uniform * sizes).long()]
        else:
            drawn = torch.randperm(self._n_events, generator=generator)[:n_drawn]
        yield from torch.split(drawn, self._batch_size)


def _balanced_shares(sizes: torch.Tensor) -> torch.Tensor:
    """Return each class's share of the draws: equal, or ten times its natural one if that is less.

    What capped classes give up goes to the others in equal parts, as far as their own caps allow.
    """
    caps = _MAX_REPEATS * sizes.double() / sizes.sum()
    shares = torch.zeros_like(caps)
    for done, index in enumerate(torch.argsort(caps).tolist()):
        left = (1.0 - shares.sum()) / (len(caps) - done)
        shares[index] = torch.minimum(caps[index], left)
    return shares
