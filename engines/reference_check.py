"""Whether the parts of a reference file belong together, before anything is computed from them."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engines.errors import ArtifactError

if TYPE_CHECKING:
    from engines.reference_file import ReferenceFacts

__all__ = ["TOYS", "StoredBasis", "check_tensors"]

#: What a tensor of toys is called, before its scale.
TOYS = "toys_t_"
_MAX_WIDTHS = 64
_MAX_EVENTS = 1e9
_MAX_COUNT = 10**12
#: In standardised units; their squares are taken.
_MIN_SIGMA, _MAX_SIGMA = 1e-9, 1e9
_STORES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class StoredBasis:
    """What a reference file's JSON says of its basis.

    Attributes:
        sigmas: the kernel widths.
        ranks: coordinates of each.
    """

    sigmas: tuple[float, ...]
    ranks: tuple[int, ...]


def check_tensors(
    tensors: Mapping[str, torch.Tensor],
    basis: StoredBasis,
    facts: "ReferenceFacts",
    path: object,
) -> None:
    """Refuse tensors of other shapes, types or values than the facts promise.

    Args:
        tensors: of the file, by name.
        basis: its kernel widths.
        facts: what the file says of itself.
        path: of the file, for the error's text.

    Raises:
        ArtifactError: in one sentence.
    """
    _check_facts(basis, facts, path)
    dim, rank = tensors["mean"].numel(), sum(basis.ranks)
    centres = next(iter(tensors["centres"].shape), 0)
    wanted: dict[str, tuple[torch.dtype, tuple[int | None, ...]]] = {
        "mean": (torch.float64, (dim,)),
        "std": (torch.float64, (dim,)),
        "centres": (torch.float64, (centres, dim)),
        "projector": (torch.float64, (centres, rank)),
        "ridge": (torch.float64, (rank,)),
        "embeddings": (torch.float32, (facts.n_ref, dim)),
        **{f"{TOYS}{s}": (torch.float64, (None, len(basis.sigmas))) for s in facts.scales},
    }
    for name, (dtype, shape) in wanted.items():
        _check_tensor(tensors.get(name), dtype, shape, f"{name!r} in {path}")
    if not (tensors["std"] > 0).all():
        msg = f"'std' in {path} must be above zero; it is not; calibrate again"
        raise ArtifactError(msg)


def _check_facts(basis: StoredBasis, facts: "ReferenceFacts", path: object) -> None:
    widths, window = len(basis.sigmas), facts.window
    right = 0 < widths == len(basis.ranks) <= _MAX_WIDTHS and all(rank > 0 for rank in basis.ranks)
    if not right or not all(_MIN_SIGMA <= sigma <= _MAX_SIGMA for sigma in basis.sigmas):
        rule = f"a width from {_MIN_SIGMA:g} to {_MAX_SIGMA:g} and a rank above zero"
        msg = f"{path} must hold {rule} for each kernel; got {reprlib.repr(basis)}; calibrate again"
        raise ArtifactError(msg)
    if not (1 <= window.n_expected <= _MAX_EVENTS and 0 <= window.span_s < math.inf):
        msg = f"{path} must be of windows of 1 to {_MAX_EVENTS:g} events; got {window}"
        msg += "; calibrate again"
        raise ArtifactError(msg)
    if facts.store not in _STORES:
        msg = f"{path} must store one of {', '.join(_STORES)}; got {reprlib.repr(facts.store)}"
        msg += "; calibrate again"
        raise ArtifactError(msg)
    counts = (facts.n_basis, facts.n_ref, facts.n_pool, facts.n_toys)
    if not all(0 < count <= _MAX_COUNT for count in counts):
        msg = f"{path} must hold counts of events and toys from 1 to {_MAX_COUNT}; got others"
        msg += "; calibrate again"
        raise ArtifactError(msg)
    if 1 not in facts.scales or not 1 <= min(facts.scales) <= max(facts.scales) <= _MAX_COUNT:
        msg = f"{path} must hold a null for windows as they are; got scales {facts.scales}"
        msg += "; calibrate again"
        raise ArtifactError(msg)


def _check_tensor(
    tensor: torch.Tensor | None, dtype: torch.dtype, shape: tuple[int | None, ...], name: str
) -> None:
    """Refuse a tensor of another type or shape, where None stands for any size."""
    if tensor is not None and tensor.dtype == dtype and len(tensor.shape) == len(shape):
        sizes = zip(tensor.shape, shape, strict=True)
        if all(got == wanted or wanted is None for got, wanted in sizes):
            if tensor.numel() and torch.isfinite(tensor).all():
                return
            msg = f"{name} must hold finite numbers; it does not; calibrate again"
            raise ArtifactError(msg)
    got = "none" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
    wanted = str(shape).replace("None", "any")
    msg = f"{name} must be {wanted} of {dtype}; got {got}; calibrate again"
    raise ArtifactError(msg)
