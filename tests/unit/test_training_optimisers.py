"""Optimisers: LARS against its formula, and names."""

import pytest
import torch
from torch import nn

from engines.errors import ParameterError
from training.optimisers import OPTIMISERS, make_optimiser


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def steps(model: nn.Module, optimiser: torch.optim.Optimizer, n_steps: int = 3) -> None:
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    for _ in range(n_steps):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()


class NaiveLars:
    """arXiv:1708.03888 Algorithm 1 on matrices, SGD with momentum on the rest."""

    def __init__(self, model: nn.Module, lr: float, decay: float) -> None:
        self.parameters, self.lr, self.decay = list(model.parameters()), lr, decay
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for parameter, velocity in zip(self.parameters, self.velocity, strict=True):
            update = parameter.grad
            assert update is not None
            if parameter.ndim > 1:
                size = float(parameter.norm())
                ratio = 0.001 * size / (float(update.norm()) + self.decay * size)
                update = ratio * (update + self.decay * parameter)
            velocity.mul_(0.9).add_(update)
            parameter.sub_(self.lr * velocity)


@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.5])
def test_lars_follows_its_formula(decay: float) -> None:
    ours, naive = small_model(), small_model()
    steps(ours, make_optimiser("lars", ours, 0.8, decay))
    steps(naive, NaiveLars(naive, 0.8, decay))  # type: ignore[arg-type]
    untouched = small_model()
    for a, b, start in zip(
        ours.parameters(), naive.parameters(), untouched.parameters(), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
        assert not torch.equal(a, start)


def test_lars_neither_decays_nor_scales_offsets_and_norms() -> None:
    decayed, free, sgd = small_model(), small_model(), small_model()
    steps(decayed, make_optimiser("lars", decayed, 0.1, 0.5), 1)
    steps(free, make_optimiser("lars", free, 0.1, 0.0), 1)
    steps(sgd, torch.optim.SGD(sgd.parameters(), 0.1, momentum=0.9), 1)
    for (name, a), b, c in zip(
        decayed.named_parameters(), free.parameters(), sgd.parameters(), strict=True
    ):
        assert torch.equal(a, b) == (a.ndim == 1), name
        assert torch.allclose(b, c, atol=1e-9) == (a.ndim == 1), name


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_goes_on_from_its_saved_state(name: str) -> None:
    whole, halves = small_model(), small_model()
    steps(whole, make_optimiser(name, whole, 0.1, 1e-3), 4)
    first = make_optimiser(name, halves, 0.1, 1e-3)
    steps(halves, first, 2)
    second = make_optimiser(name, halves, 0.5, 1e-3)
    second.load_state_dict(first.state_dict())
    steps(halves, second, 2)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adam_and_adamw_decay_as_they_should() -> None:
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimiser = make_optimiser(name, small_model(), 0.1, 0.02)
        assert type(optimiser) is kind
        assert optimiser.defaults["weight_decay"] == 0.02


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    next(model.parameters()).requires_grad = False
    optimiser = make_optimiser("lars", model, 0.1, 0)
    assert len(optimiser.param_groups[0]["params"]) == len(list(model.parameters())) - 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("sgd", 0.1, 0.0), "optimiser must be one of lars, adam, adamw; got 'sgd'"),
        (("lars", 0.0, 0.0), "lr must be above zero; got 0.0"),
        (("adam", float("nan"), 0.0), "lr must be above zero"),
        (("adam", 0.1, -1.0), "weight decay must be zero or above; got -1.0"),
    ],
)
def test_what_cannot_train_is_refused(wrong: tuple[str, float, float], message: str) -> None:
    name, lr, weight_decay = wrong
    with pytest.raises(ParameterError, match=message):
        make_optimiser(name, small_model(), lr, weight_decay)
