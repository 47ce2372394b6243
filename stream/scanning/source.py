"""Stored events as windows: disjoint, of a fixed count, in the order of the files."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate, pairwise
from types import TracebackType
from typing import Self

from engines.artifact import SampleFacts
from engines.engine import Engine
from engines.errors import EventError, MismatchError, SampleSizeError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.reference_file import ReferenceFacts
from engines.types import FloatArray
from engines.unseen import refuse_marked_events, refuse_repeated_events, refuse_training_events

__all__ = ["StoredWindows", "described", "refuse_calibration_events"]

#: Events read and embedded at once, so that memory does not grow with windows.
_SLICE = 65_536


class StoredWindows:
    """Event files cut into windows of `n_window` events; the rest at the end is in none.

    Args:
        sources: the files or ranges, one after the other.
        n_window: events in a window.

    Raises:
        ArtifactError: if a file is missing or damaged.
        EventError: if a range goes beyond its file.
        MismatchError: if the ranges share events.
        SampleSizeError: if there are too few events for one window.

    Attributes:
        samples: what the ranges are, by content.
    """

    def __init__(self, sources: Sequence[EventRange], n_window: int) -> None:
        """Open the files."""
        self._n_window = n_window
        self.samples = tuple(map(described, sources))
        refuse_repeated_events(self.samples)
        sizes = [sample.stop - sample.start for sample in self.samples]
        self._bounds = list(accumulate(sizes, initial=0))
        if self.n_windows < 1:
            msg = (
                f"a scan needs the {n_window} events of one window at least; "
                f"{' '.join(map(str, sources))} holds {self.n_events}; give more events, or "
                "calibrate a reference for shorter windows"
            )
            raise SampleSizeError(msg)
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._files = [stack.enter_context(EventFile(source.path)) for source in sources]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return the open files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def n_events(self) -> int:
        """Events of all ranges."""
        return self._bounds[-1]

    @property
    def n_windows(self) -> int:
        """Whole windows."""
        return self.n_events // self._n_window

    @property
    def n_left_over(self) -> int:
        """Events after the last whole window."""
        return self.n_events % self._n_window

    def read(self, index: int) -> Iterator[tuple[int, int, FloatArray]]:
        """Yield the events of a window in pieces, the same whatever was read before.

        Args:
            index: of the window, from 0.

        Yields:
            Index of the range, index of the piece's first event in that file, and the particles,
            (n, 19, 3) float32.

        Raises:
            ArtifactError: if the stored bytes are damaged.
            EventError: on a non-finite value or a negative pT.
        """
        first = index * self._n_window
        for number, (start, stop) in enumerate(pairwise(self._bounds)):
            shift = self.samples[number].start - start
            low, high = max(first, start), min(first + self._n_window, stop)
            for place in range(low, high, _SLICE):
                end = min(place + _SLICE, high)
                yield number, place + shift, self._files[number].read(place + shift, end + shift)

    def embed(
        self, engine: Engine, index: int
    ) -> Iterator[tuple[int, int, FloatArray, FloatArray]]:
        """Yield what `read` does, and the pieces' embeddings, (n, d) float32.

        Raises:
            MismatchError: if events that the encoder was trained on are recognised among them.
        """
        for number, first, particles in self.read(index):
            refuse_marked_events(engine.facts, particles, self._files[number].path)
            yield number, first, particles, engine.embed(particles)


def described(source: EventRange) -> SampleFacts:
    """Return what a range is, by content.

    Raises:
        EventError: if it is empty or goes beyond its file.
    """
    sample = SampleFacts.of(source)
    with EventFile(source.path) as file:
        if not sample.start < sample.stop <= len(file):
            msg = (
                f"{source.path} holds {len(file)} events; {sample.start} to {sample.stop} were "
                "asked for"
            )
            raise EventError(msg)
    return sample


def refuse_calibration_events(
    samples: Sequence[SampleFacts], engine: Engine, facts: ReferenceFacts
) -> None:
    """Refuse to scan events that trained the encoder or calibrated the reference.

    Raises:
        MismatchError: naming the events in common.
    """
    refuse_training_events(engine.facts, samples)
    for sample in samples:
        for calibrated in facts.samples:
            shared = sample.overlap(calibrated)
            if shared:
                msg = (
                    f"the events to scan must not have calibrated the reference; {shared} of "
                    f"{sample.name} events {sample.start} to {sample.stop} did "
                    f"({calibrated.start} to {calibrated.stop}); scan others"
                )
                raise MismatchError(msg)
