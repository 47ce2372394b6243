"""The losses: contrastive (SupCon, SimCLR), VICReg with and without labels, and the VAE's.

The contrastive ones compare projections by their cosine, so the scale of a projection does not
matter to them; VICReg compares them as they are. All compute in float32 at least, whatever the
precision of the network, since exp(1 / temperature) leaves half precision early.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch.nn import functional

__all__ = [
    "SIMCLR_TEMPERATURES",
    "nt_xent_loss",
    "supcon_loss",
    "supervised_vicreg_loss",
    "vae_loss",
    "vicreg_loss",
]

#: Temperature of the self-supervised SimCLR by embedding dimension; arXiv:2502.15926.
SIMCLR_TEMPERATURES = {4: 0.9, 6: 0.8, 8: 0.6, 16: 0.5, 32: 0.4, 64: 0.3}
_VARIANCE_FLOOR = 1e-4


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
    with _full_precision(projections):
        # sum_p z_i.z_p over a class is z_i times the sum of the class: no (n, n) mask is needed.
        z = functional.normalize(_at_least_float32(projections), dim=1) * temperature**-0.5
        similarity = (z @ z.T).fill_diagonal_(torch.finfo(z.dtype).min)
        member = functional.one_hot(targets).to(z)
        others = (member.T @ z)[targets] - z
        n_positive = member.sum(dim=0)[targets] - 1
        mean_positive = (z * others).sum(dim=1) / n_positive.clamp(min=1)
        paired = n_positive > 0
        per_event = (mean_positive - torch.logsumexp(similarity, dim=1)) * paired
        loss: torch.Tensor = -per_event.sum() / paired.sum().clamp(min=1)
        return loss


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
    with _full_precision(first):
        similarity = _similarities(torch.cat((first, second)), temperature)
        partner = torch.arange(len(similarity), device=first.device).roll(len(first))
        return functional.cross_entropy(similarity, partner)


def vicreg_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> torch.Tensor:
    """Return the loss of variance-invariance-covariance regularisation.

        L = invariance x mean_{i,k} (z_ik - z'_ik)^2
          + variance x (v(Z) + v(Z')) + covariance x (c(Z) + c(Z')),
        v(Z) = mean_k max(0, 1 - sqrt(Var z_k + 1e-4)),
        c(Z) = 1/p sum_{k != l} Cov(z_k, z_l)^2

    Args:
        first: projections of one view of each event, (n, p) float.
        second: projections of the other view, (n, p) float.
        invariance: weight of the distance between the views.
        variance: weight of the hinge on the spread of each number.
        covariance: weight of the squared covariances.

    Source: arXiv:2105.04906 Algorithm 1, whose invariance is the mean over events and numbers.
    """
    with _full_precision(first):
        first, second = _at_least_float32(first), _at_least_float32(second)
        (v_first, c_first), (v_second, c_second) = _spread(first), _spread(second)
        distance = (first - second).square().mean()
        hinge, squares = v_first + v_second, c_first + c_second
        return invariance * distance + variance * hinge + covariance * squares


def supervised_vicreg_loss(
    projections: torch.Tensor,
    targets: torch.Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> torch.Tensor:
    """Return VICReg's loss with every pair of events of one class as two views.

        L = invariance x mean_{i < j, y_i = y_j} |z_i - z_j|^2 / p
          + 2 variance x v(Z) + 2 covariance x c(Z)

    with v and c of `vicreg_loss`; both branches hold the same events, hence the factors of two.
    The pairs of a class of m events add up to m sum_i |z_i - mean|^2, so that the cost grows with
    events, not with pairs.

    Args:
        projections: (n, p) float.
        targets: class of each event, (n,) int64.
        invariance: weight of the distances within classes; zero pairs give zero.
        variance: weight of the hinge on the spread of each number.
        covariance: weight of the squared covariances.

    Source: arXiv:2105.04906 Algorithm 1; arXiv:2502.15926 (supervised pairs).
    """
    with _full_precision(projections):
        z = _at_least_float32(projections)
        _, member = torch.unique(targets, return_inverse=True)
        sizes = torch.bincount(member).to(z.dtype)
        belongs = functional.one_hot(member, len(sizes)).to(z.dtype)
        means = (belongs.T @ z) / sizes[:, None]
        squares = (z - means[member]).square().sum(dim=1)
        n_pairs = (sizes * (sizes - 1)).sum() / 2
        distance = (sizes[member] * squares).sum() / (n_pairs.clamp(min=1) * z.shape[1])
        hinge, covariances = _spread(z)
        return invariance * distance + 2 * variance * hinge + 2 * covariance * covariances


def vae_loss(
    reconstruction: torch.Tensor,
    inputs: torch.Tensor,
    embedding: torch.Tensor,
    kl_weight: float = 0.8,
) -> torch.Tensor:
    """Return squared error of the present objects and weighted KL divergence.

        L = mean_events [ sum_{present objects} |x - x'|^2
                          + kl_weight x -1/2 sum_k (1 + ln s_k^2 - m_k^2 - s_k^2) ]

    Args:
        reconstruction: what the decoder gives, (n, 19, n_inputs).
        inputs: scaled inputs, (n, 19, n_inputs); an object of zeros alone is absent.
        embedding: means m, then log variances ln s^2, (n, 2 k).
        kl_weight: 0.8 in the paper, which does not say how errors are summed; here over numbers.

    Source: arXiv:1312.6114 App. B (KL divergence); arXiv:2502.15926 (weight).
    """
    with _full_precision(embedding):
        mean, log_variance = _at_least_float32(embedding).chunk(2, dim=1)
        error = (_at_least_float32(reconstruction) - inputs).square().sum(dim=2)
        present = (inputs != 0).any(dim=2)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)
        return (error.masked_fill(~present, 0.0).sum(dim=1) + kl_weight * divergence).mean()


@contextlib.contextmanager
def _full_precision(like: torch.Tensor) -> Iterator[None]:
    """Switch autocast off on the device of a tensor: it would multiply matrices in bfloat16."""
    with torch.autocast(device_type=like.device.type, enabled=False):
        yield


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _similarities(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return cosines over the temperature, (n, n), with minus infinity on the diagonal."""
    z = functional.normalize(_at_least_float32(projections), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return (z @ z.T / temperature).masked_fill(itself, float("-inf"))


def _spread(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return VICReg's v(Z) and c(Z) of projections, (n, p)."""
    n, p = z.shape
    centred = z - z.mean(dim=0)
    covariances = centred.T @ centred / max(n - 1, 1)
    own = covariances.diagonal()
    hinge = functional.relu(1 - torch.sqrt(own + _VARIANCE_FLOOR)).mean()
    return hinge, (covariances.square().sum() - own.square().sum()) / p
