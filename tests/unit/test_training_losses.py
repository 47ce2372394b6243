"""Contrastive losses against double loops and closed forms; every loss at its limits."""

import math
from collections.abc import Callable

import pytest
import torch

from training.losses import (
    SIMCLR_TEMPERATURES,
    nt_xent_loss,
    supcon_loss,
    supervised_vicreg_loss,
    vae_loss,
    vicreg_loss,
)


def unit(vector: torch.Tensor) -> list[float]:
    norm = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / norm for x in vector]


def similarities(projections: torch.Tensor, temperature: float) -> list[list[float]]:
    z = [unit(vector) for vector in projections]
    return [
        [math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature) for b in z]
        for a in z
    ]


def naive_supcon(projections: torch.Tensor, targets: list[int], temperature: float) -> float:
    """arXiv:2004.11362 Eq. 2, over the anchors that have a positive."""
    e = similarities(projections, temperature)
    n = len(targets)
    losses = []
    for i in range(n):
        positives = [p for p in range(n) if p != i and targets[p] == targets[i]]
        if not positives:
            continue
        others = sum(e[i][a] for a in range(n) if a != i)
        losses.append(-sum(math.log(e[i][p] / others) for p in positives) / len(positives))
    return sum(losses) / len(losses)


def naive_nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """arXiv:2002.05709 Eq. 1, averaged over both views."""
    e = similarities(torch.cat((first, second)), temperature)
    n = len(first)
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        losses.append(-math.log(e[i][j] / sum(e[i][k] for k in range(2 * n) if k != i)))
    return sum(losses) / len(losses)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_supcon_equals_the_double_loop(temperature: float) -> None:
    z, targets = normal(1, 12, 5), [0, 0, 1, 2, 1, 0, 2, 2, 0, 1, 3, 0]
    loss = supcon_loss(z, torch.tensor(targets), temperature)
    assert float(loss) == pytest.approx(naive_supcon(z, targets, temperature), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_equals_the_double_loop(temperature: float) -> None:
    first, second = normal(2, 9, 4), normal(3, 9, 4)
    loss = nt_xent_loss(first, second, temperature)
    assert float(loss) == pytest.approx(naive_nt_xent(first, second, temperature), rel=1e-12)


def test_supcon_of_equal_projections_is_the_logarithm_of_the_others() -> None:
    z = torch.ones(8, 3, dtype=torch.float64)
    loss = supcon_loss(z, torch.tensor([0, 1] * 4), temperature=0.1)
    assert float(loss) == pytest.approx(math.log(7))


def test_nt_xent_of_opposite_pairs_has_a_closed_form() -> None:
    views = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = nt_xent_loss(views, views, temperature=0.5)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-4)))


def test_supcon_with_two_events_a_class_is_nt_xent() -> None:
    first, second = normal(4, 6, 5), normal(5, 6, 5)
    targets = torch.arange(6).repeat(2)
    supervised = supcon_loss(torch.cat((first, second)), targets, 0.3)
    assert float(supervised) == pytest.approx(float(nt_xent_loss(first, second, 0.3)), rel=1e-12)


def test_losses_do_not_see_order_or_scale() -> None:
    z, targets = normal(6, 10, 4), torch.tensor([0, 1] * 5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.isclose(supcon_loss(z, targets, 0.2), supcon_loss(z[order], targets[order], 0.2))
    assert torch.isclose(supcon_loss(z, targets, 0.2), supcon_loss(7 * z, targets, 0.2))
    first, second = z[:5], z[5:]
    swapped = nt_xent_loss(second.flip(0), first.flip(0), 0.2)
    assert torch.isclose(nt_xent_loss(first, second, 0.2), swapped)


def test_supcon_without_any_pair_is_zero_with_a_finite_gradient() -> None:
    z = normal(7, 4, 3).requires_grad_()
    loss = supcon_loss(z, torch.arange(4), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_simclr_of_orthogonal_events_has_a_closed_form() -> None:
    views = torch.eye(5, dtype=torch.float64)
    for temperature in SIMCLR_TEMPERATURES.values():
        expected = math.log(1 + 8 * math.exp(-1 / temperature))
        assert float(nt_xent_loss(views, 3 * views, temperature)) == pytest.approx(expected)
        supervised = supcon_loss(views.repeat(2, 1), torch.arange(5).repeat(2), temperature)
        assert float(supervised) == pytest.approx(expected)


Loss = Callable[[torch.Tensor], torch.Tensor]
_SAME, _ALONE = torch.zeros(8, dtype=torch.int64), torch.arange(8)
_LOSSES: dict[str, Loss] = {
    "supcon, one class": lambda z: supcon_loss(z, _SAME, 0.01),
    "supcon, one event a class": lambda z: supcon_loss(z, _ALONE, 0.01),
    "nt_xent": lambda z: nt_xent_loss(z[:4], z[4:], 0.01),
    "vicreg": lambda z: vicreg_loss(z[:4], z[4:]),
    "supervised vicreg, one class": lambda z: supervised_vicreg_loss(z, _SAME),
    "supervised vicreg, one event a class": lambda z: supervised_vicreg_loss(z, _ALONE),
}


@pytest.mark.parametrize("name", _LOSSES)
@pytest.mark.parametrize("kind", ["normal", "identical", "zero", "opposite", "huge"])
def test_degenerate_batches_have_finite_losses_and_gradients(name: str, kind: str) -> None:
    z = normal(17, 8, 3).float()
    batches = {
        "identical": z[:1].repeat(8, 1),
        "zero": torch.zeros(8, 3),
        "opposite": torch.cat((z[:4], -z[:4])),
        "huge": 1e8 * z,
    }
    batch = batches.get(kind, z).requires_grad_()
    loss = _LOSSES[name](batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert batch.grad is not None
    assert torch.isfinite(batch.grad).all()


def test_a_batch_of_one_is_finite() -> None:
    z = normal(18, 1, 3).requires_grad_()
    one = torch.zeros(1, dtype=torch.int64)
    loss = supcon_loss(z, one, 0.1) + nt_xent_loss(z, z, 0.1)
    loss = loss + vicreg_loss(z, z) + supervised_vicreg_loss(z, one)
    loss.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5])
def test_contrastive_losses_are_right_in_float32_and_under_autocast(temperature: float) -> None:
    exact, targets = normal(19, 64, 16), torch.arange(64) % 4
    z = exact.float()
    for loss, reference in (
        (supcon_loss(z, targets, temperature), supcon_loss(exact, targets, temperature)),
        (
            nt_xent_loss(z[:32], z[32:], temperature),
            nt_xent_loss(exact[:32], exact[32:], temperature),
        ),
    ):
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(float(reference), rel=2e-5)
    plain = supcon_loss(z, targets, temperature), nt_xent_loss(z[:32], z[32:], temperature)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = supcon_loss(z, targets, temperature), nt_xent_loss(z[:32], z[32:], temperature)
    assert [float(value) for value in cast] == [float(value) for value in plain]


def test_losses_of_half_precision_are_computed_in_float32() -> None:
    z, targets = normal(20, 32, 8).bfloat16(), torch.arange(32) % 2
    wide = z.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [
            supcon_loss(z, targets, 0.01),
            nt_xent_loss(z[:16], z[16:], 0.01),
            vicreg_loss(z[:16], z[16:]),
            supervised_vicreg_loss(z, targets),
            vae_loss(z[:, None], wide[:, None], z),
        ]
    full = [
        supcon_loss(wide, targets, 0.01),
        nt_xent_loss(wide[:16], wide[16:], 0.01),
        vicreg_loss(wide[:16], wide[16:]),
        supervised_vicreg_loss(wide, targets),
        vae_loss(wide[:, None], wide[:, None], wide),
    ]
    assert [float(value) for value in half] == [float(value) for value in full]
