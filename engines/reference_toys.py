"""The job of a calibration: t of toys drawn from a pool, in whatever process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch

from engines.errors import ArtifactError
from engines.nplm import Basis, CachedReference, Features, Loss
from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["ReferenceToys", "discard_features", "features_on_disk"]


@dataclass(frozen=True)
class _Recipe:
    """What a reference is made of; small beside its features."""

    basis: Basis
    embeddings: FloatArray
    n_expected: float
    loss: Loss
    device: str
    dtype: torch.dtype

    def build(self, psi: Features | None) -> CachedReference:
        return CachedReference(
            self.basis,
            self.embeddings,
            self.n_expected,
            loss=self.loss,
            device=self.device,
            dtype=self.dtype,
            psi=psi,
        )


class ReferenceToys:
    """Tests toys of one pool against one reference.

    What travels to another process are embeddings; features are computed there, or mapped from
    `folder`, so that the processes of one machine share one copy of them.

    Args:
        reference: what toys are compared with.
        pool: (n_pool, d) embeddings that toys are drawn from.
        scale: how many windows a toy merges.
        folder: where `features_on_disk` keeps the features, if anywhere.
    """

    def __init__(
        self,
        reference: CachedReference,
        pool: FloatArray,
        *,
        scale: int = 1,
        folder: Path | None = None,
    ) -> None:
        """Hold the reference; `prepare` does the work."""
        self._reference: CachedReference | None = reference
        self._psi: Features | None = None
        self._recipe = _Recipe(
            reference.basis.to("cpu"),
            reference.embeddings,
            reference.n_expected,
            reference.loss,
            str(reference.basis.mean.device),
            reference.dtype,
        )
        self._pool, self._scale, self._folder = pool, scale, folder

    @property
    def batch_size(self) -> int:
        """Toys that fit into one batch."""
        return self._ready().batch_size(self._scale)

    def prepare(self) -> None:
        """Compute or map the features; does nothing if they are there."""
        self._features()

    def run(self, toys: list[IntArray]) -> Float64Array:
        """Return t, (n_toys, n_widths)."""
        return self._ready().test_batch(self._features(), toys, scale=self._scale)

    def _features(self) -> Features:
        if self._psi is None:
            mapped = self._mapped("pool")
            self._psi = self._ready().features(self._pool) if mapped is None else mapped
        return self._psi

    def _ready(self) -> CachedReference:
        if self._reference is None:
            self._reference = self._recipe.build(self._mapped("reference"))
        return self._reference

    def _mapped(self, name: str) -> Features | None:
        if self._folder is None:
            return None
        return torch.from_numpy(np.load(self._folder / f"{name}.npy", mmap_mode="c"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the features behind."""
        return {**self.__dict__, "_reference": None, "_psi": None}


def discard_features(beside: Path) -> None:
    """Remove what a killed calibration may have left there."""
    rmtree(_folder(beside), ignore_errors=True)


def _folder(beside: Path) -> Path:
    return beside.with_name(f".{beside.name}.features")


@contextmanager
def features_on_disk(reference: CachedReference, pool: FloatArray, beside: Path) -> Iterator[Path]:
    """Keep the features of reference and pool in a folder for as long as the context lasts.

    Args:
        reference: what toys are compared with.
        pool: (n_pool, d) embeddings.
        beside: the folder is made next to this file: temporary folders are often kept in memory. It
            has one name, so that what a killed calibration leaves behind is used again.

    Raises:
        ArtifactError: if it cannot be written.
    """
    folder = _folder(beside)
    try:
        folder.mkdir(exist_ok=True)
        np.save(folder / "reference.npy", reference.psi.cpu().numpy())
        np.save(folder / "pool.npy", reference.features(pool).cpu().numpy())
    except OSError as exc:
        rmtree(folder, ignore_errors=True)
        msg = f"cannot keep features for the workers in {folder} ({exc}); make room, or --workers 1"
        raise ArtifactError(msg) from exc
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
