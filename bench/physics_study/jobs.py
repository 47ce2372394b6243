"""The engines that a study wants: which training gives each, and where it is kept."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.physics_study.config import Data, Encoder, Study
from engines.artifact import SampleFacts
from engines.events import EventRange

__all__ = ["EngineJob", "left_out_jobs", "settings_key", "slug", "study_jobs"]

#: Options that change how fast an engine is trained, not what is meant by it.
_SPEED_OPTIONS = ("threads", "device")


@dataclass(frozen=True)
class EngineJob:
    """One engine of a study.

    Attributes:
        encoder: its recipe.
        dim: embedding dimension; 0 where the architecture fixes it.
        seed: of training.
        data: the study's events.
        without: the process that training does not see, or None.
    """

    encoder: Encoder
    dim: int
    seed: int
    data: Data
    without: str | None = None

    def __str__(self) -> str:
        """Return it as a person would say it."""
        keep = self.encoder.options.get("keep")
        kept = f" + {len(keep)}" if isinstance(keep, list) and keep else ""
        dim = f" D {self.dim}{kept}" if self.dim else ""
        without = f" without {self.without}" if self.without else ""
        return f"{self.encoder.name}{dim}{without} seed {self.seed}"

    @property
    def sources(self) -> list[EventRange]:
        """What it is trained on, every range with both ends."""
        training = self.data.training
        n_events = self.encoder.n_events
        stop = training.stop if n_events is None else training.start + n_events
        return [
            EventRange(training.path, training.start, stop),
            *(self.data.extra if self.encoder.extra else ()),
            *(self.data.training_signals[name] for name in self.encoder.signals),
        ]

    @property
    def name(self) -> str:
        """A name for files; it changes with everything that the engine depends on."""
        dim = f"-d{self.dim}" if self.dim else ""
        without = f"-without-{self.without}" if self.without else ""
        settings = {
            "events": [vars(sample_facts(source)) for source in self.sources],
            "options": self._options(),
            "without": self._label,
        }
        return f"{slug(self.encoder.name)}{dim}-s{self.seed}{without}-{settings_key(settings)}"

    def _options(self) -> dict[str, Any]:
        """Return every option that the engine depends on, those that its recipe gives too."""
        from training.run.recipes import resolve

        given = {name.replace("-", "_"): value for name, value in self.encoder.options.items()}
        options = {**given, **resolve({**given, "dim": self.dim or None})}
        return {n: value for n, value in options.items() if n not in ("recipe", *_SPEED_OPTIONS)}

    @property
    def _label(self) -> int | None:
        return None if self.without is None else self.data.processes[self.without]

    def path(self, folder: Path) -> Path:
        """Return its ONNX file in a study's folder, or the file that was given for it."""
        if self.encoder.files:
            return self.encoder.files[self.seed]
        return folder / "engines" / f"{self.name}.onnx"

    def command(self, folder: Path) -> list[str]:
        """Return the command that trains it."""
        words = [sys.executable, "-m", "training.train_encoder", "--events"]
        words += [f"{source.path}@{source.start}:{source.stop}" for source in self.sources]
        words += ["--dim", str(self.dim)] if self.dim else []
        words += ["--seed", str(self.seed)]
        words += [] if self._label is None else ["--without-process", str(self._label)]
        for name, value in self.encoder.options.items():
            words += _words(f"--{name.replace('_', '-')}", value)
        return [*words, "-o", str(self.path(folder))]


def slug(name: str) -> str:
    """Return a name as files bear it.

    >>> slug("Our MLP, supervised")
    'our-mlp-supervised'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _words(option: str, value: Any) -> list[str]:  # noqa: ANN401 - TOML holds any type
    if value is True:
        return [option]
    if value is False:
        return [f"--no-{option.removeprefix('--')}"]
    return [option, *map(str, value if isinstance(value, list) else [value])]


def study_jobs(study: Study) -> list[EngineJob]:
    """Return every engine of the study, seed by seed, so that a table fills evenly."""
    return list(_jobs(study.encoders, study.data))


def left_out_jobs(study: Study) -> list[EngineJob]:
    """Return every engine of the study's selection, trained without one process."""
    selection = study.selection
    if selection is None:
        return []
    chosen = [encoder for encoder in study.encoders if encoder.name in selection.encoders]
    return [job for process in selection.processes for job in _jobs(chosen, study.data, process)]


def _jobs(
    encoders: Sequence[Encoder], data: Data, without: str | None = None
) -> Iterator[EngineJob]:
    last = max(len(encoder.seeds) for encoder in encoders)
    for index in range(last):
        for encoder in encoders:
            if index < len(encoder.seeds):
                seed = encoder.seeds[index]
                yield from (EngineJob(encoder, dim, seed, data, without) for dim in encoder.dims)


@cache
def sample_facts(source: EventRange) -> SampleFacts:
    """Return which events a range is; the file is read once."""
    return SampleFacts.of(source)


def settings_key(settings: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """Return eight digits that name these settings.

    >>> settings_key({"window": 10, "toys": 3}) == settings_key({"toys": 3, "window": 10})
    True
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
