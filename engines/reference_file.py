"""The `.ref` file: a cached reference, its null distribution, and what they were made from.

One safetensors file (no pickle), written to a temporary name and renamed.
"""

import hashlib
import json
import os
import reprlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engines.artifact import SampleFacts
from engines.engine import Engine
from engines.errors import ArtifactError, MismatchError
from engines.event_quantities import QUANTITIES
from engines.first_line import first_line
from engines.nplm import Basis, CachedReference, Loss, Width, WidthNulls
from engines.reference_check import TOYS, StoredBasis, check_tensors
from engines.typed_facts import typed
from engines.types import FloatArray
from engines.windows import WindowSpec

__all__ = [
    "ReferenceArtifact",
    "ReferenceFacts",
    "content_checksum",
    "load_reference",
    "save_reference",
]

_METADATA_KEY = "nplm_stream_reference"
_FORMAT = 2
_INCOMPLETE = (
    *(OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError),
    *(RecursionError, MemoryError),
)
_TENSORS = ("mean", "std", "centres", "projector", "ridge", "embeddings")
_QUANTITIES = "quantities"


@dataclass(frozen=True)
class ReferenceFacts:
    """Provenance of a reference and of its calibration.

    Attributes:
        engine_fingerprint: of the encoder that embedded the samples.
        window: mode, expected count and span that the null holds for.
        samples: the event ranges that were split into basis, reference and pool.
        n_basis, n_ref, n_pool, n_toys: sizes.
        loss: what a fit minimises; merged windows always take the likelihood.
        store: number type of the features.
        offset_shares: for each scale, the number of windows merged into one, the expected offset
            of t from the finite pool, over the null's spread.
        options: sigmas, lambda, jitter, cut, centres, seed.
        versions, created: of what, when.
    """

    engine_fingerprint: str
    window: WindowSpec
    samples: tuple[SampleFacts, ...]
    n_basis: int
    n_ref: int
    n_pool: int
    n_toys: int
    loss: Loss
    store: str
    offset_shares: dict[int, float]
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def precision(self) -> str:
        """Of the encoder's matrix products when it embedded the samples."""
        return str(self.options.get("precision", "fp32"))

    @property
    def scales(self) -> tuple[int, ...]:
        """How many windows are merged into one, for each null; 1 are windows as they are."""
        return tuple(sorted(self.offset_shares))

    def loss_of(self, scale: int) -> Loss:
        """Return what the fit of a scale minimises."""
        return self.loss if scale == 1 else "likelihood"

    def calibration(self, scale: int = 1) -> str:
        """Return one sentence: what the p-values of a scale were calibrated on."""
        reuse = self.n_toys * scale * self.window.n_expected / self.n_pool
        drawn = "disjoint" if reuse <= 1 else f"each event used about {reuse:.1f} times"
        merged = "" if scale == 1 else f"{scale} windows of "
        return (
            f"{self.n_toys} toys of {merged}{self.window} from a pool of {self.n_pool} background "
            f"events ({drawn}); offset of the finite pool about "
            f"{100 * self.offset_shares[scale]:.0f} % of the null's spread"
        )


@dataclass(frozen=True)
class ReferenceArtifact:
    """What a `.ref` file holds.

    Attributes:
        reference: the cached reference.
        nulls: for each scale, the number of windows merged into one, what the toys gave.
        facts: provenance.
        quantities: (n_ref, 5) `QUANTITIES` of the reference's events; None in a file of an earlier
            version.
        fingerprint: SHA-256 of the file's content; empty before it is written and read.
    """

    reference: CachedReference
    nulls: dict[int, WidthNulls]
    facts: ReferenceFacts
    quantities: FloatArray | None = None
    fingerprint: str = ""

    def check_engine(self, engine: Engine) -> None:
        """Refuse an encoder that the reference was not made with.

        Raises:
            MismatchError: with both fingerprints.
        """
        if engine.fingerprint != self.facts.engine_fingerprint:
            msg = (
                "engine and reference do not belong together: the engine's fingerprint is "
                f"{engine.fingerprint}, the reference was made with "
                f"{self.facts.engine_fingerprint}; run calibrate-reference with this engine"
            )
            raise MismatchError(msg)

    def check_window(self, window: WindowSpec) -> None:
        """Refuse a window that the null was not calibrated for.

        Raises:
            MismatchError: with both windows.
        """
        if not window.same_as(self.facts.window):
            msg = (
                f"the reference was calibrated for windows of {self.facts.window}; got {window}; "
                "run calibrate-reference for that window, or leave --window out"
            )
            raise MismatchError(msg)


def save_reference(path: str | Path, artifact: ReferenceArtifact) -> None:
    """Write a `.ref` file; it appears whole or not at all.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    path, basis = Path(path), artifact.reference.basis
    tensors = {
        "mean": basis.mean,
        "std": basis.std,
        "centres": basis.centres,
        "projector": torch.cat([width.projector for width in basis.widths], dim=1),
        "ridge": torch.cat([width.ridge for width in basis.widths]),
        "embeddings": torch.from_numpy(artifact.reference.embeddings),
        **{f"{TOYS}{scale}": torch.from_numpy(n.t) for scale, n in artifact.nulls.items()},
    }
    if artifact.quantities is not None:
        tensors[_QUANTITIES] = torch.from_numpy(artifact.quantities)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    stored = {
        "format": _FORMAT,
        "sigmas": basis.sigmas,
        "ranks": [width.rank for width in basis.widths],
        "facts": asdict(artifact.facts),
    }
    stored["checksum"] = content_checksum(tensors, stored)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(save(tensors, metadata={_METADATA_KEY: json.dumps(stored)}))
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as exc:
        temporary.unlink(missing_ok=True)
        msg = f"cannot write the reference {path} ({exc}); choose a writable folder"
        raise ArtifactError(msg) from exc


def load_reference(path: str | Path, *, device: str = "cpu", threads: int = 1) -> ReferenceArtifact:
    """Read a `.ref` file and compute the reference's features.

    Args:
        path: the file.
        device: where features live and fits run.
        threads: CPU threads of the tests.

    Raises:
        ArtifactError: if the file is missing, truncated, altered, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"reference {path} does not exist; make it with: calibrate-reference -o {path}"
        raise ArtifactError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {})[_METADATA_KEY])
            # Copied: the file may be mapped, and whoever writes into it would change them.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
        version, checksum = stored["format"], stored.pop("checksum")
        missing = set(_TENSORS) - set(tensors)
        if missing:
            raise KeyError(missing)
    except _INCOMPLETE as exc:
        reason = first_line(exc)
        msg = f"{path} is not a complete reference file ({reason}); run calibrate-reference again"
        raise ArtifactError(msg) from exc
    if version != _FORMAT:
        said = reprlib.repr(version)
        msg = f"{path} has format {said}; this version reads {_FORMAT}; calibrate again"
        raise ArtifactError(msg)
    if checksum != content_checksum(tensors, stored):
        msg = f"{path} was altered since it was written: its checksum is wrong; calibrate again"
        raise ArtifactError(msg)
    basis, facts = _described(stored, path)
    check_tensors(tensors, basis, facts, path)
    reference = CachedReference(
        _basis(tensors, basis),
        np.asarray(tensors["embeddings"]),
        facts.window.n_expected,
        loss=facts.loss,
        device=device,
        dtype=getattr(torch, facts.store),
        threads=threads,
    )
    nulls = {scale: WidthNulls(np.asarray(tensors[f"{TOYS}{scale}"])) for scale in facts.scales}
    return ReferenceArtifact(reference, nulls, facts, _quantities(tensors, path), checksum)


def _quantities(tensors: dict[str, torch.Tensor], path: Path) -> FloatArray | None:
    if _QUANTITIES not in tensors:
        return None
    quantities = np.asarray(tensors[_QUANTITIES])
    if quantities.shape != (len(tensors["embeddings"]), len(QUANTITIES)):
        msg = (
            f"{path} must hold {len(QUANTITIES)} quantities of each reference event; got shape "
            f"{quantities.shape}; calibrate again"
        )
        raise ArtifactError(msg)
    return quantities


def _basis(tensors: dict[str, torch.Tensor], stored: StoredBasis) -> Basis:
    ranks = list(stored.ranks)
    projectors = torch.split(tensors["projector"], ranks, dim=1)
    ridges = torch.split(tensors["ridge"], ranks)
    widths = tuple(map(Width, stored.sigmas, projectors, ridges))
    return Basis(tensors["mean"], tensors["std"], tensors["centres"], widths)


def _described(stored: dict[str, Any], path: Path) -> tuple[StoredBasis, ReferenceFacts]:
    """Return what the file says of its basis and of itself."""
    try:
        basis = typed(StoredBasis, {"sigmas": stored["sigmas"], "ranks": stored["ranks"]})
        return basis, typed(ReferenceFacts, stored["facts"])
    except (KeyError, TypeError, ValueError) as exc:
        msg = f"the facts of {path} are damaged ({first_line(exc)}); calibrate again"
        raise ArtifactError(msg) from exc


def content_checksum(tensors: dict[str, torch.Tensor], stored: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a file holds, its own checksum left out."""
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
