"""Augmentations by name, and the symmetries of every event.

Source: arXiv:2502.15926 (which augmentations); arXiv:2403.07066 (re-simulation).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch

from engines.errors import ParameterError
from training.transforms import (
    crop_events,
    mask_features,
    mask_objects,
    resample_kinematics,
    resample_pt,
    rotate_events,
)

__all__ = [
    "AUGMENTATIONS",
    "Augmentations",
    "mirror_events",
    "parse_augmentations",
    "rotate_to_met",
]


def rotate_to_met(particles: torch.Tensor) -> torch.Tensor:
    """Rotate each event so that its MET points to phi = 0; absent objects stay zero.

    The encoder measures phi from the MET. With the MET at 0 already, a view whose MET is masked
    keeps the angles of its other objects.

    Args:
        particles: (n, 19, 3) float32.
    """
    pt, eta, phi = particles.unbind(dim=-1)
    # Within [-pi, pi), as phi is in files: `gaussian` resamples an angle in proportion to its size.
    turned = torch.remainder(phi - phi[:, :1] + math.pi, 2 * math.pi) - math.pi
    turned = torch.where(pt > 0, turned, torch.zeros_like(phi))
    return torch.stack((pt, eta, turned), dim=-1)


def mirror_events(particles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip the sign of eta, and of phi, of each event with probability one half.

    Two proton beams look the same from both ends and in a mirror, so a mirrored event is as likely
    as the event itself. This multiplies the training events by four.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        generator: source of randomness.
    """
    n = len(particles)
    flips = torch.randint(2, (n, 2), generator=generator, device=generator.device).to(particles)
    signs = torch.ones(n, 1, 3, dtype=particles.dtype, device=particles.device)
    signs[:, 0, 1:] -= 2 * flips
    return particles * signs


def _resimulate(particles: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
    """Change nothing: which realisation a view shows is drawn where they are stored."""
    return particles


@dataclass(frozen=True)
class _Kind:
    """An augmentation by name: what it does, and its number with default and upper limit."""

    with_number: Callable[[torch.Tensor, float, torch.Generator], torch.Tensor] | None = None
    without: Callable[[torch.Tensor, torch.Generator], torch.Tensor] = _resimulate
    default: float = 0.0
    below: float = math.inf


_PROBABILITY, _RADIUS, _WIDTH = 0.5, 2.5, 0.1
_KINDS = {
    "masking": _Kind(mask_objects, default=_PROBABILITY, below=1.0),
    "feature-masking": _Kind(mask_features, default=_PROBABILITY, below=1.0),
    "gaussian": _Kind(resample_kinematics, default=_WIDTH),
    "gaussian-pt": _Kind(resample_pt, default=_WIDTH),
    "rotation": _Kind(without=rotate_events),
    "crop": _Kind(crop_events, default=_RADIUS),
    "resimulation": _Kind(),
}
AUGMENTATIONS = tuple(_KINDS)


@dataclass(frozen=True)
class Augmentations:
    """Augmentations one after another; call it to get a view of each event.

    Attributes:
        steps: names, each with its number, or None for one that has none.
    """

    steps: tuple[tuple[str, float | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `masking:0.5,rotation`; see `parse_augmentations`."""
        words = [] if text.strip() == "none" else [word.strip() for word in text.split(",")]
        steps = tuple(_parse_step(word) for word in words)
        names = [name for name, _ in steps]
        if len(set(names)) < len(names):
            msg = f"each augmentation must be given once; got {text!r}; remove the repeated one"
            raise ParameterError(msg)
        return cls(steps)

    def __str__(self) -> str:
        """Return what `parse` reads.

        >>> str(parse_augmentations("masking,rotation"))
        'masking:0.5,rotation'
        """
        words = [name if number is None else f"{name}:{number}" for name, number in self.steps]
        return ",".join(words) or "none"

    def __call__(self, particles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return one view of each event, (n, 19, 3), of raw kinematics, (n, 19, 3)."""
        for name, number in self.steps:
            kind = _KINDS[name]
            if kind.with_number is not None and number is not None:
                particles = kind.with_number(particles, number, generator)
            else:
                particles = kind.without(particles, generator)
        return particles

    @property
    def resimulates(self) -> bool:
        """Whether a view is one of the stored realisations of its event."""
        return any(name == "resimulation" for name, _ in self.steps)


def _parse_step(word: str) -> tuple[str, float | None]:
    """Read `NAME` or `NAME:NUMBER`."""
    name, colon, text = word.partition(":")
    if name not in _KINDS:
        msg = f"augmentations must be none or some of {', '.join(_KINDS)}; got {word!r}"
        raise ParameterError(msg)
    kind = _KINDS[name]
    if kind.with_number is None:
        if colon:
            msg = f"augmentation {name} must have no number; got {word!r}; write {name}"
            raise ParameterError(msg)
        return name, None
    try:
        number = float(text) if colon else kind.default
    except ValueError:
        number = math.nan
    if not 0 < number < kind.below:
        limit = f" and below {kind.below:g}" if kind.below < math.inf else ""
        msg = (
            f"augmentation {name} must have a number above 0{limit}; got {word!r}; "
            f"try {name}:{kind.default}"
        )
        raise ParameterError(msg)
    return name, number


def parse_augmentations(text: str) -> Augmentations:
    """Read names separated by commas, some with a number, or `none`.

    `masking:0.5` (chance of each object), `feature-masking:0.5` (chance of each number),
    `gaussian:0.1` and `gaussian-pt:0.1` (relative width), `rotation`, `crop:2.5` (Delta R),
    `resimulation`. Numbers shown are the defaults.

    Raises:
        ParameterError: on an unknown or repeated name, or a number out of its range.

    >>> parse_augmentations("gaussian:0.2,resimulation").resimulates
    True
    """
    return Augmentations.parse(text)
