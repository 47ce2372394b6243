"""Sums of losses: how they are written, what they need, what they are worth."""

import pytest
import torch

from engines.errors import ParameterError
from training.encoders import Outputs
from training.losses import nt_xent_loss, supcon_loss, supervised_vicreg_loss, vicreg_loss
from training.objective import LossConfig, Objective, Term, Views, parse_objective

CONFIG = LossConfig(temperature=0.2, view_temperature=0.7, vicreg_weights=(1.0, 2.0, 3.0))


def outputs(seed: int, n: int = 12) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    embedding, projection = (torch.randn(n, size, generator=generator) for size in (4, 8))
    return Outputs(embedding, projection, torch.randn(n, 3, generator=generator), None, None)


def views() -> Views:
    return Views(outputs(0), outputs(1), outputs(2), torch.arange(12) % 3)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("supcon", (True, False, True)),
        ("simclr", (False, True, False)),
        ("vicreg", (False, True, False)),
        ("supvicreg+ce", (True, False, True)),
        ("supcon+0.5*simclr", (True, True, True)),
        ("vae", (False, False, True)),
    ],
)
def test_an_objective_says_what_it_looks_at(text: str, needs: tuple[bool, bool, bool]) -> None:
    objective = parse_objective(text)
    assert str(objective) == text
    assert (objective.needs_labels, objective.needs_views, objective.needs_clean) == needs


def test_spaces_and_weights_are_read() -> None:
    expected = Objective((Term("supcon"), Term("ce", 0.25)))
    assert parse_objective(" supcon + 0.25 * ce ") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("barlow", "loss must be one of supcon, simclr"),
        ("", "loss must be one of"),
        ("supcon+", "loss must be one of"),
        ("supcon+supcon", "stand in the sum once"),
        ("0*simclr", "weight of simclr must be a number above zero"),
        ("-1*simclr", "weight of simclr"),
        ("x*simclr", "weight of simclr must be a number above zero; got 'x'"),
        ("inf*simclr", "weight of simclr"),
    ],
)
def test_what_is_no_objective_is_refused(text: str, said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_objective(text)
    assert said in str(caught.value)


def test_value_is_the_weighted_sum_of_its_terms() -> None:
    seen = views()
    assert seen.clean is not None
    assert seen.first is not None
    assert seen.second is not None
    assert seen.targets is not None
    first, second = seen.first.projection, seen.second.projection
    supcon = supcon_loss(seen.clean.projection, seen.targets, 0.2)
    simclr = nt_xent_loss(first, second, 0.7)
    assert parse_objective("supcon+0.5*simclr").value(seen, CONFIG) == supcon + 0.5 * simclr
    expected = vicreg_loss(first, second, invariance=1.0, variance=2.0, covariance=3.0)
    assert parse_objective("vicreg").value(seen, CONFIG) == expected
    supervised = supervised_vicreg_loss(
        seen.clean.projection, seen.targets, invariance=1.0, variance=2.0, covariance=3.0
    )
    logits = torch.log_softmax(seen.clean.logits, dim=1)  # type: ignore[arg-type]
    cross_entropy = -logits[torch.arange(12), seen.targets].mean()
    mixed = parse_objective("supvicreg+2*ce").value(seen, CONFIG)
    assert float(mixed) == pytest.approx(float(supervised + 2 * cross_entropy), rel=1e-6)
