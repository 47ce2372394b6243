"""Augmentations: naive masking, which hides objects as if they were absent, and mirrors."""

import torch

__all__ = ["mask_objects", "mirror_events", "rotate_to_met"]


def rotate_to_met(particles: torch.Tensor) -> torch.Tensor:
    """Rotate each event so that its MET points to phi = 0; absent objects stay zero.

    The encoder measures phi from the MET. With the MET at 0 already, a view whose MET is masked
    keeps the angles of its other objects.

    Args:
        particles: (n, 19, 3) float32.
    """
    pt, eta, phi = particles.unbind(dim=-1)
    turned = torch.where(pt > 0, phi - phi[:, :1], torch.zeros_like(phi))
    return torch.stack((pt, eta, turned), dim=-1)


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
    drawn = torch.rand(particles.shape[:2], generator=generator, device=particles.device)
    return particles * (drawn >= probability).unsqueeze(-1)


def mirror_events(particles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip the sign of eta, and of phi, of each event with probability one half.

    Two proton beams look the same from both ends and in a mirror, so a mirrored event is as likely
    as the event itself. This multiplies the training events by four.

    Args:
        particles: raw kinematics, (n, 19, 3) float32.
        generator: source of randomness.
    """
    signs = torch.ones(len(particles), 1, 3, dtype=particles.dtype)
    signs[:, 0, 1:] -= 2 * torch.randint(2, (len(particles), 2), generator=generator)
    return particles * signs
