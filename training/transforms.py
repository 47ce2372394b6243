"""Transforms of events into views that should lie close together in the embedding.

All take and give raw kinematics, (n, 19, 3) float32, pT in GeV. Random numbers are drawn on the
generator's device and moved to the events', so any pair of devices works. What is absent stays
absent, pT stays at or above zero, and phi within -pi and pi where it changes.

Source: arXiv:2502.15926.
"""

import math

import torch

__all__ = [
    "crop_events",
    "mask_features",
    "mask_objects",
    "resample_kinematics",
    "resample_pt",
    "rotate_events",
]


def mask_objects(
    particles: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Zero each object with a probability, so that masked and absent look alike.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        probability: chance of each object to be masked, the MET included.
        generator: source of randomness.

    Source: arXiv:2502.15926, naive masking.
    """
    drawn = _uniform(particles, particles.shape[:2], generator)
    return particles * (drawn >= probability).unsqueeze(-1)


def mask_features(
    particles: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Zero each of the 57 numbers with a probability; an object without pT is absent.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        probability: chance of each number to be masked.
        generator: source of randomness.

    Source: the authors' training code, github.com/ksmetzger/cl4ad (naive masking of numbers).
    """
    kept = _uniform(particles, particles.shape, generator) >= probability
    return particles * (kept & kept[:, :, :1])


def resample_kinematics(
    particles: torch.Tensor, width: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw pT, eta and phi of each object anew, each x from a normal N(x, width |x|).

    A negative pT is taken as its absolute value, so that no object vanishes.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        width: standard deviation over the value.
        generator: source of randomness.
    """
    pt, eta, phi = (particles * _factors(particles, particles.shape, width, generator)).unbind(-1)
    return torch.stack((pt.abs(), eta, _wrap(phi)), dim=-1)


def resample_pt(particles: torch.Tensor, width: float, generator: torch.Generator) -> torch.Tensor:
    """Draw the pT of each object anew from a normal N(pT, width pT), its absolute value.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        width: standard deviation over the value.
        generator: source of randomness.
    """
    pt, eta, phi = particles.unbind(dim=-1)
    return torch.stack(((pt * _factors(pt, pt.shape, width, generator)).abs(), eta, phi), dim=-1)


def rotate_events(particles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate each event about the beam by an angle that is uniform from -pi to pi.

    An encoder whose inputs are rotated to the MET cannot see this.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        generator: source of randomness.
    """
    pt, eta, phi = particles.unbind(dim=-1)
    angle = (2 * _uniform(particles, (len(particles), 1), generator) - 1) * math.pi
    turned = torch.where(pt > 0, _wrap(phi + angle), torch.zeros_like(phi))
    return torch.stack((pt, eta, turned), dim=-1)


def crop_events(particles: torch.Tensor, radius: float, generator: torch.Generator) -> torch.Tensor:
    """Keep the objects within Delta R of a direction that is uniform on the sphere, and the MET.

    The MET has no eta, and without it a crop around nothing would leave no event.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        radius: largest sqrt(d_eta^2 + d_phi^2) from the direction.
        generator: source of randomness.
    """
    drawn = 2 * _uniform(particles, (len(particles), 2), generator) - 1
    cosine = drawn[:, :1].clamp(-1 + 1e-6, 1 - 1e-6)
    d_eta = particles[:, :, 1] - torch.atanh(cosine)
    d_phi = _wrap(particles[:, :, 2] - drawn[:, 1:] * math.pi)
    kept = d_eta.square() + d_phi.square() <= radius**2
    kept[:, 0] = True
    return particles * kept.unsqueeze(-1)


def _uniform(
    like: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Draw uniform float32 numbers on the generator's device; give them on the events'."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def _factors(
    like: torch.Tensor, shape: tuple[int, ...], width: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw 1 + width x a standard normal."""
    drawn = torch.randn(shape, generator=generator, device=generator.device)
    return 1 + width * drawn.to(like)


def _wrap(phi: torch.Tensor) -> torch.Tensor:
    """Return angles from -pi to pi; those that are within already do not change."""
    turns = torch.round(phi / (2 * math.pi))
    return (phi - 2 * math.pi * turns).clamp(-math.pi, math.pi)
