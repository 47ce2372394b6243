"""The two contrastive losses: supervised (SupCon) and self-supervised (SimCLR).

Both compare projections by their cosine, so the scale of a projection does not matter.
"""

import torch
from torch.nn import functional

__all__ = ["LOSSES", "nt_xent_loss", "supcon_loss"]

LOSSES = ("supcon", "simclr")


def supcon_loss(
    projections: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the supervised contrastive loss.

        L = mean_i  -1/|P(i)| sum_{p in P(i)} ln [ exp(z_i.z_p / tau) / S_i ],
        S_i = sum_{a != i} exp(z_i.z_a / tau)

    with unit vectors z and P(i) the other events of i's class. The paper sums over i; the mean
    makes the learning rate independent of the batch size. An event that is alone in its class
    has no positive pair and is left out.

    Args:
        projections: (n, p) float.
        targets: class of each event, (n,) int64.
        temperature: tau, above zero.

    Returns:
        The loss, a scalar; zero if no event has a positive pair.

    Source: arXiv:2004.11362 Eq. 2 (L_out).
    """
    z = functional.normalize(projections, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, float("-inf"))
    log_share = similarity - torch.logsumexp(similarity, dim=1, keepdim=True)
    positive = (targets[:, None] == targets[None, :]) & ~itself
    n_positive = positive.sum(dim=1)
    per_event = log_share.masked_fill(~positive, 0.0).sum(dim=1) / n_positive.clamp(min=1)
    return -per_event.sum() / (n_positive > 0).sum().clamp(min=1)


def nt_xent_loss(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return SimCLR's normalised temperature-scaled cross entropy.

        L = mean_i  -ln [ exp(z_i.z_j / tau) / sum_{k != i} exp(z_i.z_k / tau) ]

    over the 2n views i, where j is the other view of the same event.

    Args:
        first: projections of one view of each event, (n, p) float.
        second: projections of the other view, (n, p) float.
        temperature: tau, above zero.

    Source: arXiv:2002.05709 Eq. 1.
    """
    z = functional.normalize(torch.cat((first, second)), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, float("-inf"))
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return functional.cross_entropy(similarity, partner)
