"""Events for training: files in, batches of indices out."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch

from engines.errors import EventError, ParameterError, SampleSizeError
from engines.event_files import EventFile
from engines.events import N_FEATURES, N_OBJECTS, EventRange, check_events
from engines.hdf5 import hdf5_errors
from engines.types import FloatArray, IntArray

__all__ = ["SAMPLINGS", "BatchSampler", "EventSet", "load_events"]

SAMPLINGS = ("balanced", "cocktail")
#: A rare class is drawn no more often in a pass: beyond that it is learned by heart.
_MAX_REPEATS = 10.0


@dataclass(frozen=True)
class EventSet:
    """Events of one or more files.

    Attributes:
        particles: (n, 19, 3) float32, pT in GeV.
        targets: class index of each event, (n,), 0 to len(classes) - 1; None if a file has none.
        classes: the label in the file of each class index.
        unlabelled: the first file without labels, or None.
        realisations: re-simulations of each event, (n, K, 19, 3) float32, or None if not read.
    """

    particles: FloatArray
    targets: IntArray | None
    classes: tuple[int, ...]
    unlabelled: str | None
    realisations: FloatArray | None = None

    @property
    def content(self) -> str:
        """A hash of all that training reads: particles, labels and re-simulations."""
        digest = hashlib.sha256(repr((self.particles.shape, self.classes)).encode())
        for values in (self.particles, self.targets, self.realisations):
            digest.update(b"none" if values is None else np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def counts(self, indices: IntArray) -> dict[int, int]:
        """Return how many of the events at `indices` have each label."""
        if self.targets is None:
            return {}
        counted = np.bincount(self.targets[indices], minlength=len(self.classes))
        return dict(zip(self.classes, counted.tolist(), strict=True))


@dataclass(frozen=True)
class _Block:
    """What one range of a file holds."""

    particles: FloatArray
    labels: IntArray | None
    realisations: FloatArray | None

    def without(self, processes: Collection[int]) -> "_Block":
        if self.labels is None or not processes:
            return self
        kept = ~np.isin(self.labels, list(processes))
        realisations = None if self.realisations is None else self.realisations[kept]
        return _Block(self.particles[kept], self.labels[kept], realisations)


def load_events(
    sources: Sequence[EventRange],
    *,
    without: Collection[int] = (),
    realisations: bool = False,
) -> EventSet:
    """Read every range; labels are kept only if each file has them.

    Args:
        sources: files, or ranges of them.
        without: labels whose events are left out.
        realisations: also read the re-simulations of each event.

    Raises:
        ArtifactError: if a file is missing, truncated or not HDF5.
        EventError: if events or labels break the layout.
        SampleSizeError: if a range holds no events, or nothing is left.
        ParameterError: if a process to leave out is not there, or re-simulations are not.
    """
    blocks = [_read(source, realisations=realisations) for source in sources]
    unlabelled = next(
        (str(s.path) for s, block in zip(sources, blocks, strict=True) if block.labels is None),
        None,
    )
    _check_without(blocks, without, unlabelled)
    blocks = [block.without(without) for block in blocks]
    particles = np.concatenate([block.particles for block in blocks])
    if len(particles) == 0:
        msg = "--without-process must leave events to train on; got none; leave out fewer"
        raise SampleSizeError(msg)
    again = [block.realisations for block in blocks if block.realisations is not None]
    labels = [block.labels for block in blocks if block.labels is not None]
    simulated = _join_realisations(again) if again else None
    if unlabelled is not None:
        return EventSet(particles, None, (), unlabelled, simulated)
    classes, targets = np.unique(np.concatenate(labels), return_inverse=True)
    return EventSet(particles, targets.astype(np.int64), tuple(classes.tolist()), None, simulated)


def _read(source: EventRange, *, realisations: bool) -> _Block:
    with EventFile(source.path) as file:
        particles = file.read(source.start, source.stop)
        labels = file.labels(source.start, source.stop)
    if len(particles) == 0:
        msg = f"{source.path} must hold events from {source.start} on; got none; check @START"
        raise SampleSizeError(msg)
    again = _read_realisations(source, len(particles)) if realisations else None
    return _Block(particles, labels, again)


def _read_realisations(source: EventRange, n_events: int) -> FloatArray:
    """Return the re-simulations of a range of events, (n, K, 19, 3) float32."""
    with hdf5_errors(source.path), h5py.File(source.path, "r") as file:
        stored = file.get("Realisations")
        if not isinstance(stored, h5py.Dataset):
            msg = (
                f"--augment resimulation must have re-simulations of each event; {source.path} "
                "has no 'Realisations'; make them with simulate-events --resimulate K, or use "
                "another --augment"
            )
            raise ParameterError(msg)
        shape = stored.shape
        if len(shape) != 4 or shape[1] == 0 or shape[2:] != (N_OBJECTS, N_FEATURES):
            msg = (
                f"'Realisations' in {source.path} must have shape (n, K, {N_OBJECTS}, "
                f"{N_FEATURES}) with K from 1; got {stored.shape}; write the file again"
            )
            raise EventError(msg)
        block = stored[source.start : source.start + n_events]
    again = np.ascontiguousarray(block, dtype=np.float32)
    if len(again) != n_events:
        msg = (
            f"'Realisations' in {source.path} must hold every event of 'Particles'; it ends "
            f"{n_events - len(again)} events early; write the file again"
        )
        raise EventError(msg)
    for index in range(again.shape[1]):
        check_events(again[:, index], source.start, f"'Realisations' in {source.path}")
    return again


def _join_realisations(blocks: list[FloatArray]) -> FloatArray:
    counts = sorted({block.shape[1] for block in blocks})
    if len(counts) > 1:
        msg = f"every file must hold as many re-simulations of an event; got {counts}"
        raise ParameterError(msg)
    return np.concatenate(blocks)


def _check_without(
    blocks: Sequence[_Block], without: Collection[int], unlabelled: str | None
) -> None:
    if not without:
        return
    if unlabelled is not None:
        msg = (
            f"--without-process must have a label for every event; {unlabelled} has no "
            "'process' or 'background_ID'; leave the option out"
        )
        raise ParameterError(msg)
    known = np.unique(
        np.concatenate([block.labels for block in blocks if block.labels is not None])
    )
    missing = sorted(set(without) - set(known.tolist()))
    if missing:
        msg = (
            f"--without-process must name processes of the events; got {missing[0]}; the files "
            f"hold {known.tolist()}"
        )
        raise ParameterError(msg)


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
            uniform = torch.rand(
                n_drawn, generator=generator, dtype=torch.float64, device=sizes.device
            )
            drawn = self._by_class[self._starts[chosen] + (uniform * sizes).long()]
        else:
            order = torch.randperm(self._n_events, generator=generator, device=generator.device)
            drawn = order[:n_drawn]
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
