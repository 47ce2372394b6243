"""Damaged and devious plans: what is read of them before TensorRT sees a byte."""

import json
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuzzing.damage import damage
from bench.fuzzing.json_facts import spoil
from engines.artifact import EngineFacts, SampleFacts
from engines.errors import EngineUnavailableError
from engines.plans.plan_file import (
    PlanFacts,
    check_runnable,
    read_plan,
    read_plan_facts,
    write_plan,
)

__all__ = ["PlanFiles"]

_TRICKS_SHARE = 0.5
_ENGINE_BYTES = 20_000
_HEADER = struct.Struct("<8sII")


class PlanFiles:
    """A plan whose engine is noise, damaged; and others whose facts are odd."""

    def prepare(self, folder: Path) -> None:
        """Write a whole plan."""
        self._path = folder / "d4.plan"
        self._engine = np.random.default_rng(0).bytes(_ENGINE_BYTES)
        facts = PlanFacts(
            fingerprint="0" * 64,
            dim=4,
            precision="fp32",
            flavour="tensorrt",
            version="10.0",
            compute_capabilities=("8.9",),
            min_batch=1,
            opt_batch=256,
            max_batch=4096,
            onnx="d4.onnx",
            engine=EngineFacts(trained_on=(SampleFacts("invented.h5", "0" * 64, 0, 1000),)),
        )
        self._facts = asdict(write_plan(self._path, facts, self._engine))
        self._whole = self._path.read_bytes()

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged plan or a devious one."""
        if rng.random() < _TRICKS_SHARE:
            name = str(rng.choice(list(_TRICKS)))
            content = _TRICKS[name](self._facts, self._engine, rng)
        else:
            name, content = damage(self._whole, rng)
        self._path.write_bytes(content)
        return name, self._path

    def open(self, path: Path) -> None:
        """Read the facts alone, judge them, then all."""
        facts = read_plan_facts(path)
        facts.rebuild(path)
        try:
            check_runnable(facts, "tensorrt", "10.0", "8.9", path)
            check_runnable(facts, "tensorrt", "10.1", None, path)
        except EngineUnavailableError:
            pass
        read_plan(path)


Trick = Callable[[dict[str, Any], bytes, np.random.Generator], bytes]


def _packed(text: bytes, engine: bytes, *, version: int = 1, length: int | None = None) -> bytes:
    length = len(text) if length is None else length
    return _HEADER.pack(b"NPLMPLAN", version, length) + text + engine


def _odd_facts(facts: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    return _packed(json.dumps(spoil(facts, rng)).encode(), engine)


def _odd_length(facts: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    length = int(rng.choice([0, 1, 10, 2**20, 2**31, 2**32 - 1]))
    return _packed(json.dumps(facts).encode(), engine, length=length)


def _odd_version(facts: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    return _packed(json.dumps(facts).encode(), engine, version=int(rng.integers(2**32)))


def _deep_facts(_: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    depth = int(10 ** rng.uniform(1, 6))
    return _packed(b"[" * depth, engine)


def _not_text(_: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    return _packed(rng.bytes(200), engine)


def _bare_engine(_: dict[str, Any], engine: bytes, rng: np.random.Generator) -> bytes:
    return bytes(rng.choice([b"ftrt", b"ptrt", b"vtrt"])) + engine


_TRICKS: dict[str, Trick] = {
    "odd facts": _odd_facts,
    "odd length": _odd_length,
    "odd version": _odd_version,
    "deep facts": _deep_facts,
    "facts of noise": _not_text,
    "bare engine": _bare_engine,
}
