"""VICReg, with and without labels, and the VAE's loss against loops and closed forms."""

import math

import pytest
import torch

from training.losses import supervised_vicreg_loss, vae_loss, vicreg_loss


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_spread(z: torch.Tensor) -> tuple[float, float]:
    """The variance and covariance terms of arXiv:2105.04906 Algorithm 1, number by number."""
    rows = z.tolist()
    n, p = len(rows), len(rows[0])
    means = [sum(row[k] for row in rows) / n for k in range(p)]
    hinge = covariance = 0.0
    for k in range(p):
        for m in range(p):
            c = sum((row[k] - means[k]) * (row[m] - means[m]) for row in rows) / (n - 1)
            if k == m:
                hinge += max(0.0, 1 - math.sqrt(c + 1e-4)) / p
            else:
                covariance += c * c / p
    return hinge, covariance


def naive_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """mse_loss of two projections: the mean over numbers."""
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def test_vicreg_equals_algorithm_1() -> None:
    first, second = 0.7 * normal(8, 10, 4), 0.7 * normal(9, 10, 4)
    distance = sum(naive_distance(a, b) for a, b in zip(first, second, strict=True)) / 10
    (v, c), (v_second, c_second) = naive_spread(first), naive_spread(second)
    assert v > 0.1
    expected = 25 * distance + 25 * (v + v_second) + (c + c_second)
    assert float(vicreg_loss(first, second)) == pytest.approx(expected, rel=1e-12)
    expected = 10 * distance + 3 * (v + v_second) + 2 * (c + c_second)
    loss = vicreg_loss(first, second, invariance=10, variance=3, covariance=2)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_supervised_vicreg_equals_a_loop_over_all_pairs_of_a_class() -> None:
    z, targets = 0.6 * normal(10, 12, 3), [0, 7, 1, 1, 7, 0, 2, 1, 1, 0, 7, 1]
    pairs = [(i, j) for i in range(12) for j in range(i) if targets[i] == targets[j]]
    distance = sum(naive_distance(z[i], z[j]) for i, j in pairs) / len(pairs)
    v, c = naive_spread(z)
    loss = supervised_vicreg_loss(z, torch.tensor(targets), covariance=5)
    assert float(loss) == pytest.approx(25 * distance + 50 * v + 10 * c, rel=1e-12)


def with_covariance(covariance: torch.Tensor, n: int = 64) -> torch.Tensor:
    """Projections whose sample covariance is exactly the one given."""
    white = normal(11, n, len(covariance))
    white = white - white.mean(dim=0)
    root = torch.linalg.cholesky(white.T @ white / (n - 1))
    rotation = torch.linalg.inv(root).T @ torch.linalg.cholesky(covariance).T
    result: torch.Tensor = white @ rotation
    return result


def test_vicreg_of_known_covariance_has_a_closed_form() -> None:
    covariance = torch.tensor([[0.25, 0.1], [0.1, 4.0]], dtype=torch.float64)
    z = with_covariance(covariance)
    hinge, squares = (1 - math.sqrt(0.2501)) / 2, 2 * 0.1**2 / 2
    assert float(vicreg_loss(z, z)) == pytest.approx(2 * (25 * hinge + squares), rel=1e-9)
    shifted = vicreg_loss(z, z + 3.0)
    assert float(shifted) == pytest.approx(25 * 9 + 2 * (25 * hinge + squares), rel=1e-9)
    white = with_covariance(torch.eye(3, dtype=torch.float64))
    assert float(vicreg_loss(white, white)) == pytest.approx(0, abs=1e-12)


def test_supervised_vicreg_of_two_tight_classes_has_a_closed_form() -> None:
    z = torch.tensor([[3.0], [3.0], [-3.0], [-3.0]], dtype=torch.float64)
    assert float(supervised_vicreg_loss(z, torch.tensor([0, 0, 1, 1]))) == 0
    mixed = supervised_vicreg_loss(z, torch.tensor([0, 1, 0, 1]))
    assert float(mixed) == pytest.approx(25 * 36)


def test_supervised_vicreg_with_two_events_a_class_is_invariant_as_vicreg() -> None:
    first, second = normal(12, 6, 4), normal(13, 6, 4)
    weights = {"variance": 0.0, "covariance": 0.0}
    supervised = supervised_vicreg_loss(
        torch.cat((first, second)), torch.arange(6).repeat(2), **weights
    )
    assert torch.isclose(supervised, vicreg_loss(first, second, **weights))


def test_vae_loss_equals_the_loop_and_vanishes_for_a_perfect_prior() -> None:
    inputs, wrong = normal(14, 5, 19, 3), normal(15, 5, 19, 3)
    inputs[:, 4:] = 0
    embedding = normal(16, 5, 6)
    expected = 0.0
    for event in range(5):
        error = sum(float((inputs[event, i] - wrong[event, i]).square().sum()) for i in range(4))
        kl = 0.0
        for k in range(3):
            m, log = float(embedding[event, k]), float(embedding[event, 3 + k])
            kl += (m * m + math.exp(log) - 1 - log) / 2
        expected += (error + 0.8 * kl) / 5
    assert float(vae_loss(wrong, inputs, embedding)) == pytest.approx(expected, rel=1e-12)
    wrong[:, :4] = inputs[:, :4]
    assert float(vae_loss(wrong, inputs, torch.zeros(5, 6))) == 0
    mean_one = torch.cat((torch.ones(5, 3), torch.zeros(5, 3)), dim=1)
    assert float(vae_loss(wrong, inputs, mean_one, kl_weight=2)) == pytest.approx(3)
