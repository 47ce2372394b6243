"""Damaged and devious reference files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from bench.fuzzing.damage import damage
from bench.fuzzing.json_facts import spoil
from engines.artifact import SampleFacts
from engines.nplm import BasisConfig, CachedReference, WidthNulls
from engines.reference_file import (
    ReferenceArtifact,
    ReferenceFacts,
    content_checksum,
    load_reference,
    save_reference,
)
from engines.types import FloatArray
from engines.windows import WindowSpec

__all__ = ["ReferenceFiles"]

_KEY = "nplm_stream_reference"
_N_REF, _N_TOYS, _N_EXPECTED, _DIM = 400, 20, 50, 4
_TRICKS_SHARE = 0.5


class ReferenceFiles:
    """A small reference, damaged; and others whose parts do not belong together, signed anew."""

    def prepare(self, folder: Path) -> None:
        """Calibrate a small reference on Gaussians."""
        self._path = folder / "d4.ref"
        save_reference(self._path, _small())
        self._whole = self._path.read_bytes()
        with safe_open(self._path, framework="pt") as file:
            self._stored = json.loads(file.metadata()[_KEY])
            self._tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        self._window = _points(_N_EXPECTED, np.random.default_rng(1))
        self.open(self._path)

    def make(self, rng: np.random.Generator) -> tuple[str, Path]:
        """Write a damaged reference or a devious one."""
        if rng.random() < _TRICKS_SHARE:
            name = str(rng.choice(list(_TRICKS)))
            tensors = dict(self._tensors)
            stored = _TRICKS[name](json.loads(json.dumps(self._stored)), tensors, rng)
            if isinstance(stored, dict) and rng.random() < 0.9:
                stored.pop("checksum", None)
                stored["checksum"] = content_checksum(tensors, stored)
            content = save(tensors, metadata={_KEY: json.dumps(stored)})
        else:
            name, content = damage(self._whole, rng)
        self._path.write_bytes(content)
        return name, self._path

    def open(self, path: Path) -> None:
        """Load the reference and test a window with it."""
        artifact = load_reference(path)
        artifact.reference.test(self._window)
        artifact.facts.calibration()


Trick = Callable[[dict[str, Any], dict[str, torch.Tensor], np.random.Generator], object]


def _points(n: int, rng: np.random.Generator) -> FloatArray:
    return rng.normal(size=(n, _DIM)).astype(np.float32)


def _small() -> ReferenceArtifact:
    """Return a reference of Gaussians, whose null is invented: nobody tests with it."""
    rng = np.random.default_rng(0)
    config = BasisConfig(n_centres=10, n_ref=_N_REF, n_expected=float(_N_EXPECTED))
    reference = CachedReference.build(_points(300, rng), _points(_N_REF, rng), config)
    facts = ReferenceFacts(
        engine_fingerprint="0" * 64,
        window=WindowSpec("count", float(_N_EXPECTED)),
        samples=(SampleFacts("invented.h5", "0" * 64, 0, 1000),),
        n_basis=300,
        n_ref=_N_REF,
        n_pool=1000,
        n_toys=_N_TOYS,
        loss=reference.loss,
        store="float32",
        offset_shares={1: 0.1},
    )
    return ReferenceArtifact(reference, {1: WidthNulls(rng.chisquare(5, (_N_TOYS, 1)))}, facts)


def _odd_facts(
    stored: dict[str, Any], _: dict[str, torch.Tensor], rng: np.random.Generator
) -> object:
    return spoil(stored, rng)


def _other_shape(
    stored: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    rng: np.random.Generator,
) -> object:
    name = str(rng.choice(sorted(tensors)))
    shape = tuple(int(size) for size in rng.integers(0, 6, int(rng.integers(0, 4))))
    tensors[name] = torch.ones(shape, dtype=tensors[name].dtype)
    return stored


def _other_type(
    stored: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    rng: np.random.Generator,
) -> object:
    kinds = (torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8, torch.complex64)
    name = str(rng.choice(sorted(tensors)))
    tensors[name] = tensors[name].to(kinds[int(rng.integers(len(kinds)))])
    return stored


def _odd_values(
    stored: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    rng: np.random.Generator,
) -> object:
    name = str(rng.choice(sorted(tensors)))
    values = (float("nan"), float("inf"), -1.0, 0.0, 1e38, 5e-324)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[: int(rng.integers(1, 20))] = float(rng.choice(values))
    return stored


def _missing(
    stored: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    rng: np.random.Generator,
) -> object:
    tensors.pop(str(rng.choice(sorted(tensors))))
    return stored


_TRICKS: dict[str, Trick] = {
    "odd facts": _odd_facts,
    "another shape": _other_shape,
    "another type": _other_type,
    "odd values": _odd_values,
    "missing tensor": _missing,
}
