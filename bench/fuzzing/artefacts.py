"""The files that are damaged, and the loaders that must refuse them."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

__all__ = ["TARGETS", "Target"]


class Target(Protocol):
    """A kind of file and its loader."""

    def prepare(self, folder: Path) -> None:
        """Make whole files, and load what the loader needs; damaged ones go to the folder."""

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged file; return what was done to it, and its path."""

    def open(self, path: Path) -> None:
        """Load the file as the program does, and use it once.

        Raises:
            NplmStreamError: if the loader refuses it.
        """


def _onnx() -> Target:
    from bench.fuzzing.onnx_files import OnnxFiles

    return OnnxFiles()


def _plan() -> Target:
    from bench.fuzzing.plan_files import PlanFiles

    return PlanFiles()


def _reference() -> Target:
    from bench.fuzzing.reference_files import ReferenceFiles

    return ReferenceFiles()


def _config() -> Target:
    from bench.fuzzing.config_files import ConfigFiles

    return ConfigFiles()


def _events() -> Target:
    from bench.fuzzing.event_files import EventFiles

    return EventFiles()


#: What can be fuzzed: each opens one kind of file.
TARGETS: dict[str, Callable[[], Target]] = {
    "onnx": _onnx,
    "plan": _plan,
    "reference": _reference,
    "config": _config,
    "events": _events,
}
