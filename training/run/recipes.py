"""Named recipes: defaults of `train-encoder` that the command line and `--config` override.

The `paper-` recipes follow the training code that the authors of arXiv:2502.15926 published
(github.com/ksmetzger/cl4ad). How many epochs it ran is not published: the numbers here are ours,
except for the transformers', whose schedule spells out 30.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from engines.errors import ParameterError

__all__ = ["DEFAULT_RECIPES", "RECIPES", "Recipe", "describe_recipes", "resolve"]

Settings = Mapping[str, Any]
#: A default, or how it follows from what is settled already.
Default = Any | Callable[[Settings], Any]

_SUPERVISED = ("supcon", "supvicreg", "ce")


def _losses(settings: Settings) -> list[str]:
    """Return the names in a loss such as `supcon+0.5*simclr`."""
    return [term.rpartition("*")[2].strip() for term in str(settings["loss"]).split("+")]


def _sampling(settings: Settings) -> str:
    return "balanced" if set(_losses(settings)) & set(_SUPERVISED) else "cocktail"


def _head(settings: Settings) -> str:
    losses = _losses(settings)
    if losses in (["vae"], ["ce"], ["ce", "vae"], ["vae", "ce"]):
        return "none"
    return "expander" if {"vicreg", "supvicreg"} & set(losses) else "mlp"


def _augment(settings: Settings) -> str:
    return f"masking:{settings['mask_probability']}"


def _augment_numbers(settings: Settings) -> str:
    return f"feature-masking:{settings['mask_probability']}"


def _by_dimension(settings: Settings) -> float:
    """The paper's temperature of SimCLR at the nearest dimension listed, unless one is given."""
    from training.losses import SIMCLR_TEMPERATURES

    if settings["given_temperature"] is not None:
        return float(settings["given_temperature"])
    nearest = min(SIMCLR_TEMPERATURES, key=lambda dim: abs(dim - settings["dim"]))
    return SIMCLR_TEMPERATURES[nearest]


def _view_temperature(settings: Settings) -> float:
    """The temperature given for all losses, else SimCLR's usual one."""
    given = settings["given_temperature"]
    return 0.5 if given is None else float(given)


#: What every recipe starts from, in the order in which it is settled.
_BASE: dict[str, Default] = {
    "arch": "mlp",
    "dim": 4,
    "loss": "supcon",
    "inputs": "log,rotate,presence",
    "keep": [],
    "heads": None,
    "mask_absent": False,
    "head": _head,
    "mask_probability": 0.5,
    "augment": _augment,
    "mirror": True,
    "sampling": _sampling,
    "epochs": 20,
    "batch_size": 512,
    "optimiser": "adamw",
    "lr": 1e-2,
    "lr_end": 0.0,
    "schedule": "cosine",
    "warm_up": lambda settings: settings["epochs"] / 10,
    "weight_decay": 1e-2,
    "temperature": 0.1,
    "view_temperature": _view_temperature,
    "vicreg_weights": [25.0, 25.0, 1.0],
}

#: What `bench-physics select bench/studies/select.toml` ranks first of what is learned, with the
#: epochs of that ranking; trained for longer they found less (docs/encoders.md).
_MLP: dict[str, Default] = {"loss": "supcon+0.5*simclr", "epochs": 8}
_PAPER: dict[str, Default] = {
    "inputs": "plain",
    "mirror": False,
    "batch_size": 1024,
    "temperature": 0.07,
    "view_temperature": _by_dimension,
    "augment": _augment_numbers,
}
_PAPER_MLP: dict[str, Default] = {
    **_PAPER,
    "arch": "mlp",
    "optimiser": "lars",
    "lr": lambda settings: 0.2 * settings["batch_size"] / 256,
    "lr_end": 1e-3,
    "weight_decay": 1e-6,
    "epochs": 50,
    "warm_up": lambda settings: min(10.0, settings["epochs"] / 2),
}
_PAPER_TRANSFORMER: dict[str, Default] = {
    **_PAPER,
    "arch": "transformer",
    "head": "dino",
    "optimiser": "adam",
    "lr": 1e-4,
    "lr_end": 0.1,
    "weight_decay": 1e-3,
    "schedule": "plateau",
    "epochs": 30,
    "warm_up": 0.0,
}
_PAPER_VICREG: dict[str, Default] = {
    **_PAPER_TRANSFORMER,
    "arch": "vicreg-transformer",
    "head": "expander",
    # That code weighs half the sum of both views' hinges by 25; `vicreg_loss` takes the sum.
    "vicreg_weights": [25.0, 12.5, 25.0],
}


@dataclass(frozen=True)
class Recipe:
    """Defaults under a name, and one line that says what they are."""

    line: str
    defaults: Mapping[str, Default]


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "mlp": Recipe(
            "our default: SupCon + 0.5 SimCLR; of what is learned, the best by left-out processes",
            _MLP,
        ),
        "hybrid-mlp": Recipe(
            "the same beside mt, lepton pT and HT; the best of all by left-out processes",
            {**_MLP, "keep": ["mt", "lepton1_pt", "lepton_sum_pt", "ht"]},
        ),
        "quick-mlp": Recipe("SupCon alone, AdamW, half a minute on one core", {}),
        "quick-transformer": Recipe(
            "as quick-mlp with a transformer and a tenth of its learning rate",
            {"arch": "transformer", "lr": 1e-3},
        ),
        "paper-mlp-supcon": Recipe(
            "supervised MLP: LARS, batch 1024, lr 0.2 x batch/256, tau 0.07",
            {**_PAPER_MLP, "loss": "supcon"},
        ),
        "paper-mlp-simclr": Recipe(
            "self-supervised MLP: as above, numbers masked at 0.5, tau by dimension",
            {**_PAPER_MLP, "loss": "simclr"},
        ),
        "paper-transformer-supcon": Recipe(
            "supervised transformer: Adam 1e-4, weight decay 1e-3, DINO-style head",
            {**_PAPER_TRANSFORMER, "loss": "supcon"},
        ),
        "paper-transformer-simclr": Recipe(
            "self-supervised transformer: as above, numbers masked, tau by dimension",
            {**_PAPER_TRANSFORMER, "loss": "simclr"},
        ),
        "paper-vicreg": Recipe(
            "self-supervised VICReg transformer, numbers masked, weights 25, 12.5, 25",
            {**_PAPER_VICREG, "loss": "vicreg"},
        ),
        "paper-vicreg-10": Recipe(
            "the same with weights 10, 12.5, 10, of another version of that code",
            {**_PAPER_VICREG, "loss": "vicreg", "vicreg_weights": [10.0, 12.5, 10.0]},
        ),
        "paper-supvicreg": Recipe(
            "supervised VICReg transformer with cross entropy, weights 25, 12.5, 25",
            {**_PAPER_VICREG, "loss": "supvicreg+ce"},
        ),
        "paper-vae": Recipe(
            "6-dimensional VAE, 57 -> 32 -> 16, KL weight 0.8; Adam 1e-3 is our choice",
            {
                **_PAPER,
                "arch": "vae",
                "loss": "vae",
                "dim": 6,
                "optimiser": "adam",
                "lr": 1e-3,
                "weight_decay": 0.0,
                "epochs": 50,
            },
        ),
    }
)

#: The recipe of an architecture where none is named.
DEFAULT_RECIPES: Mapping[str, str] = MappingProxyType(
    {
        "mlp": "mlp",
        "transformer": "quick-transformer",
        "vicreg-transformer": "paper-vicreg",
        "vae": "paper-vae",
        "raw": "quick-mlp",
        "leading-pt": "quick-mlp",
        "quantities": "quick-mlp",
    }
)


def describe_recipes() -> str:
    """Return one line for each recipe, for `--help`."""
    width = max(map(len, RECIPES))
    lines = [f"  {name:{width}}  {recipe.line}" for name, recipe in RECIPES.items()]
    return "recipes:\n" + "\n".join(lines)


def resolve(given: Settings) -> dict[str, Any]:
    """Return every option of the training: as given, else by the recipe, else by the base.

    Args:
        given: options by name; None where the user said nothing. `recipe` may name one; without
            it the architecture chooses.

    Raises:
        ParameterError: on an unknown recipe.
    """
    name = given.get("recipe") or DEFAULT_RECIPES.get(given.get("arch") or "mlp", "mlp")
    if name not in RECIPES:
        msg = f"recipe must be one of {', '.join(RECIPES)}; got {name!r}"
        raise ParameterError(msg)
    settled: dict[str, Any] = {"given_temperature": given.get("temperature")}
    for option, default in (_BASE | dict(RECIPES[name].defaults)).items():
        value = given.get(option)
        if value is None:
            value = default(settled) if callable(default) else default
        settled[option] = value
    del settled["given_temperature"]
    return {"recipe": name, **settled}
