"""An engine's embeddings of a study's events, and the refusal of events that it has seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.experiment import embed_range
from bench.physics_study.jobs import EngineJob, sample_facts
from bench.physics_study.store import Store
from engines.artifact import EngineFacts, fingerprint, load_onnx, read_facts
from engines.engine import open_engine
from engines.errors import MismatchError
from engines.event_files import read_labels
from engines.events import EventRange
from engines.types import AnyArray, FloatArray, IntArray
from engines.unseen import refuse_training_events

__all__ = ["Embedded"]


@dataclass(frozen=True)
class Embedded:
    """What a measurement sees of an engine.

    Attributes:
        job: the engine; its file must be there.
        store: where embeddings are kept.
        threads: CPU threads.
    """

    job: EngineJob
    store: Store
    threads: int = 1

    @cached_property
    def _identity(self) -> tuple[str, EngineFacts]:
        model = load_onnx(self.job.path(self.store.folder))
        return fingerprint(model), read_facts(model)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the engine's graph."""
        return self._identity[0]

    @property
    def facts(self) -> EngineFacts:
        """Provenance of the engine."""
        return self._identity[1]

    def background(self) -> FloatArray:
        """Return the embeddings, (n, d), of the background that no encoder may see.

        Raises:
            MismatchError: if this one has.
        """
        return self.events(self.job.data.test)

    def signals(self, names: Iterable[str]) -> dict[str, FloatArray]:
        """Return the embeddings, (m, d), of signals by name.

        Raises:
            MismatchError: if the encoder was trained on some of these events.
        """
        return {name: self.events(self.job.data.signals[name]) for name in names}

    def events(self, source: EventRange) -> FloatArray:
        """Return the embeddings of events that the encoder was not trained on, (n, d).

        Raises:
            MismatchError: if it was; known by file and range, or recognised when first embedded.
        """
        refuse_training_events(self.facts, [sample_facts(source)])
        return self._embed(source, unseen_by=self.facts)

    def background_labels(self) -> IntArray | None:
        """Return the process of each event of `background`, (n,), or None without labels."""
        return read_labels(self.job.data.test)

    def without_process(self) -> tuple[FloatArray, FloatArray]:
        """Return embeddings of the test background less a process, and of that process.

        The process's events come from the test background and from the further background: an
        encoder trained without the process has seen none of them, wherever they lie.

        Raises:
            MismatchError: if the encoder was trained with the process, or on test background.
        """
        label = self.job.data.processes[self.job.without or ""]
        left_out = self.facts.options.get("without_process") or []
        if self.facts.loss != "none" and label not in left_out:
            msg = (
                f"{self.job} must have been trained without process {label}; its facts name "
                f"{left_out}; train it again with --without-process {label}"
            )
            raise MismatchError(msg)
        background = self.background()
        is_process = _of_process(self.job.data.test, label)
        further = [
            self._embed(source)[_of_process(source, label)] for source in self.job.data.extra
        ]
        return background[~is_process], np.concatenate([background[is_process], *further])

    def _embed(self, source: EventRange, unseen_by: EngineFacts | None = None) -> FloatArray:
        def embed() -> FloatArray:
            path = self.job.path(self.store.folder)
            with open_engine(path, threads=self.threads) as engine:
                return embed_range(engine.embed, source, unseen_by)

        return self.store.embeddings(self.fingerprint, source, embed)


def _of_process(source: EventRange, label: int) -> AnyArray:
    labels = read_labels(source)
    if labels is None:
        msg = f"{source.path} must hold labels for a process to be left out; it has none"
        raise MismatchError(msg)
    chosen: AnyArray = labels == label
    return chosen
