"""Options that were given and would change nothing: each is refused in one sentence.

An option that repeats its default is let pass, since a config.toml holds every option.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from engines.errors import ParameterError
from training.augment import parse_augmentations
from training.encoders import FIXED_DIMS, UNTRAINED
from training.networks.preprocess import InputConfig
from training.objective import Objective, parse_objective
from training.run.recipes import resolve

__all__ = ["check_effects", "check_views"]

#: What a study may give to all its encoders, such as epochs, passes for those that nothing trains.
_OF_TRAINING = ("loss", "inputs", "head", "augment")


def check_effects(given: Mapping[str, Any], settled: Mapping[str, Any]) -> None:
    """Refuse options that change nothing here.

    Args:
        given: options by name; None where the user said nothing.
        settled: all options.

    Raises:
        ParameterError: naming the first one.
    """
    arch, own = settled["arch"], FIXED_DIMS.get(settled["arch"])
    if own is not None and given["dim"] not in (None, own):
        msg = (
            f"--dim must be {own or 'left out'} with --arch {arch}, which leaves no choice; got "
            f"{given['dim']}; leave it out"
        )
        raise ParameterError(msg)
    for option, reason in _idle(given, settled):
        if not _repeats_default(option, given):
            msg = (
                f"--{option.replace('_', '-')} changes nothing with {reason}; got "
                f"{_shown(given[option])}; leave it out"
            )
            raise ParameterError(msg)


def _idle(given: Mapping[str, Any], settled: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options that change nothing, and what they do not go with."""
    arch = settled["arch"]
    if arch in UNTRAINED:
        for option in _OF_TRAINING:
            yield option, f"--arch {arch}, which trains nothing"
        return
    if arch in FIXED_DIMS:
        yield "head", f"--arch {arch}, which has none"
    objective = parse_objective(settled["loss"])
    with_loss = f"--loss {objective}"
    needed_by = {
        "temperature": ("supcon", "simclr"),
        "view_temperature": ("simclr",),
        "vicreg_weights": ("vicreg", "supvicreg"),
    }
    for option, losses in needed_by.items():
        if not any(map(objective.has, losses)):
            yield option, with_loss
    if not objective.needs_views:
        yield "mask_probability", with_loss
    elif given["augment"] is not None:
        yield "mask_probability", "--augment, where it is written as masking:P"
    if settled["schedule"] == "constant":
        yield "lr_end", "--schedule constant"


def _repeats_default(option: str, given: Mapping[str, Any]) -> bool:
    if given[option] is None:
        return True
    # A temperature that a config.toml holds was a default itself, perhaps.
    without = [{**given, option: None}, {**given, option: None, "temperature": None}]
    defaults = [resolve(options)[option] for options in without]
    if option == "augment":
        return parse_augmentations(given[option]) in map(parse_augmentations, defaults)
    if option == "inputs":
        return InputConfig.parse(given[option]) in map(InputConfig.parse, defaults)
    return given[option] in defaults


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def check_views(given: Mapping[str, Any], objective: Objective, augment: str, rotate: bool) -> None:
    """Refuse views that no loss looks at, and two views that the network cannot tell apart.

    Args:
        given: options by name; None where the user said nothing.
        objective: what training minimises.
        augment: what a view is.
        rotate: whether the network sees events turned to their MET.

    Raises:
        ParameterError: naming the augmentation.
    """
    views = parse_augmentations(augment)
    if not objective.needs_views:
        if views.steps and (views.resimulates or not _repeats_default("augment", given)):
            msg = (
                f"--augment {augment} must go with a loss of two views; got --loss {objective}; "
                "use simclr, vicreg, or add one of them to it"
            )
            raise ParameterError(msg)
        return
    names = [name for name, _ in views.steps]
    if not names:
        msg = (
            f"--loss {objective} must have two views that differ; got --augment none; name what "
            "they differ in, such as masking"
        )
        raise ParameterError(msg)
    if rotate and names == ["rotation"]:
        msg = (
            "--augment rotation must have inputs that are not turned to the MET, which undoes it; "
            "add another augmentation, or leave rotate out of --inputs"
        )
        raise ParameterError(msg)
