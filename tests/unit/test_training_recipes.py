"""Recipes: defaults that what is given overrides."""

import pytest

from engines.errors import ParameterError
from training.run.recipes import DEFAULT_RECIPES, RECIPES, describe_recipes, resolve
from training.train_encoder import main


def test_without_a_recipe_the_architecture_chooses() -> None:
    settled = resolve({})
    assert (settled["recipe"], settled["arch"], settled["lr"]) == ("mlp", "mlp", 1e-2)
    assert settled["loss"] == "supcon+0.5*simclr"
    settled = resolve({"arch": "transformer"})
    assert (settled["recipe"], settled["lr"], settled["epochs"]) == ("quick-transformer", 1e-3, 20)
    assert resolve({"arch": "vae"})["loss"] == "vae"
    assert set(DEFAULT_RECIPES.values()) <= set(RECIPES)


def test_what_is_given_overrides_a_recipe() -> None:
    given = {"recipe": "paper-mlp-supcon", "epochs": 7, "lr": 0.3, "mirror": True, "dim": None}
    settled = resolve(given)
    assert [settled[name] for name in ("epochs", "lr", "mirror", "dim")] == [7, 0.3, True, 4]
    assert (settled["optimiser"], settled["temperature"], settled["inputs"]) == (
        *("lars", 0.07, "plain"),
    )


def test_the_learning_rate_of_lars_grows_with_the_batch() -> None:
    assert resolve({"recipe": "paper-mlp-supcon"})["lr"] == pytest.approx(0.8)
    assert resolve({"recipe": "paper-mlp-supcon", "batch_size": 256})["lr"] == pytest.approx(0.2)


@pytest.mark.parametrize(("dim", "temperature"), [(4, 0.9), (6, 0.8), (12, 0.6), (64, 0.3)])
def test_the_paper_chooses_the_temperature_by_dimension(dim: int, temperature: float) -> None:
    settled = resolve({"recipe": "paper-mlp-simclr", "dim": dim})
    assert settled["view_temperature"] == temperature
    given = resolve({"recipe": "paper-mlp-simclr", "dim": dim, "temperature": 0.2})
    assert given["view_temperature"] == 0.2


@pytest.mark.parametrize(
    ("loss", "sampling", "head"),
    [
        ("supcon", "balanced", "mlp"),
        ("simclr", "cocktail", "mlp"),
        ("supcon+0.5*simclr", "balanced", "mlp"),
        ("vicreg", "cocktail", "expander"),
        ("0.2*supvicreg+ce", "balanced", "expander"),
        ("ce", "balanced", "none"),
    ],
)
def test_sampling_and_head_follow_from_the_loss(loss: str, sampling: str, head: str) -> None:
    settled = resolve({"loss": loss})
    assert (settled["sampling"], settled["head"]) == (sampling, head)
    assert resolve({"loss": loss, "head": "dino"})["head"] == "dino"


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(ParameterError, match=r"recipe must be one of mlp, .*; got 'slow'"):
        resolve({"recipe": "slow"})


def test_help_shows_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert describe_recipes() in printed
    assert all(name in printed for name in RECIPES)


@pytest.mark.parametrize(
    "recipe",
    ["paper-mlp-simclr", "paper-transformer-simclr", "paper-vicreg", "paper-vicreg-10"],
)
def test_self_supervised_recipes_mask_numbers_as_the_authors_do(recipe: str) -> None:
    settled = resolve({"recipe": recipe})
    assert (settled["augment"], settled["inputs"]) == ("feature-masking:0.5", "plain")
    assert resolve({"loss": "simclr"})["augment"] == "masking:0.5"
