"""From the options of `train-encoder` to what is trained, and how."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from engines.errors import ParameterError
from engines.events import EventRange
from training.augment import parse_augmentations
from training.encoders import UNTRAINED, EncoderConfig
from training.fit_config import FitConfig
from training.networks.preprocess import InputConfig
from training.objective import LossConfig, Objective, parse_objective
from training.run.effects import check_effects, check_views
from training.run.recipes import resolve
from training.schedule import Schedule
from training.splits import check_reserve

__all__ = ["Plan"]

#: Options beside the recipe's that decide what is trained.
_OWN = ("without_process", "reserve", "validation_fraction", "folds", "precision", "seed")
#: Options that say where a training computes.
_PLACE = ("device", "compile", "threads")


@dataclass(frozen=True)
class Plan:
    """A training with every option settled.

    Attributes:
        settings: all options by name, as config.toml holds them.
        sources: the events as they were given.
        output: the `.onnx` file to write.
        run_dir: the run folder.
        encoder: which network.
        fit: how to train it.
    """

    settings: Mapping[str, Any]
    sources: tuple[EventRange, ...]
    output: Path
    run_dir: Path
    encoder: EncoderConfig
    fit: FitConfig

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Settle the options.

        Raises:
            ParameterError: if one is unknown or out of its range.
        """
        given = vars(options)
        settled = resolve(given)
        sources = tuple(EventRange.parse(text) for text in options.events)
        check_reserve(options.reserve)
        encoder, fit = _encoder(settled), _fit(settled, options.seed)
        check_effects(given, settled)
        settled["augment"], settled["inputs"] = fit.augment, str(encoder.inputs)
        del settled["mask_probability"]  # it is in `augment`
        settled["dim"] = encoder.learned_dim
        if settled["arch"] in UNTRAINED:
            settled["loss"] = "none"
        else:
            objective = parse_objective(fit.loss)
            _check_loss(objective, encoder)
            check_views(given, objective, fit.augment, fit.rotate)
        output = options.output
        places = {
            "events": [str(_absolute(source)) for source in sources],
            "output": str(output.absolute()),
        }
        rest = {name: given[name] for name in (*_OWN, *_PLACE)}
        if options.run_dir is not None:
            places["run_dir"] = str(options.run_dir.absolute())
        run_dir = options.run_dir or output.with_suffix(".run")
        return cls({**places, **settled, **rest}, sources, output, run_dir, encoder, fit)

    def for_fold(self, number: int, n_folds: int) -> "Plan":
        """Return the plan of one fold: files of its own, and which fold it is."""
        name = f"fold{number}"
        return replace(
            self,
            settings={**self.settings, "fold": f"{number} of {n_folds}"},
            output=self.output.with_stem(f"{self.output.stem}-{name}"),
            run_dir=self.run_dir / name,
        )

    @property
    def needs_labels(self) -> bool:
        """Whether training looks at the class of an event."""
        return self.objective is not None and self.objective.needs_labels

    @property
    def objective(self) -> Objective | None:
        """What training minimises; None for an encoder that nothing trains."""
        trained = self.encoder.arch not in UNTRAINED
        return parse_objective(self.fit.loss) if trained else None

    @property
    def attends(self) -> bool:
        """Whether the network is a transformer."""
        return "transformer" in self.encoder.arch


def _absolute(source: EventRange) -> EventRange:
    return EventRange(source.path.absolute(), source.start, source.stop)


def _encoder(settled: Mapping[str, Any]) -> EncoderConfig:
    return EncoderConfig(
        arch=settled["arch"],
        dim=settled["dim"],
        inputs=InputConfig.parse(settled["inputs"]),
        heads=settled["heads"],
        mask_absent=settled["mask_absent"],
        head=settled["head"],
        keep=tuple(settled["keep"]),
    )


def _fit(settled: Mapping[str, Any], seed: int) -> FitConfig:
    if not 0 <= settled["mask_probability"] < 1:
        msg = f"mask probability must be from 0 to below 1; got {settled['mask_probability']}"
        raise ParameterError(msg)
    invariance, variance, covariance = settled["vicreg_weights"]
    return FitConfig(
        loss=settled["loss"],
        losses=LossConfig(
            temperature=settled["temperature"],
            view_temperature=settled["view_temperature"],
            vicreg_weights=(invariance, variance, covariance),
        ),
        sampling=settled["sampling"],
        augment=str(parse_augmentations(settled["augment"])),
        mirror=settled["mirror"],
        rotate=InputConfig.parse(settled["inputs"]).rotate,
        schedule=Schedule(
            name=settled["schedule"],
            peak=settled["lr"],
            end=settled["lr_end"],
            warm_up=settled["warm_up"],
            epochs=settled["epochs"],
        ),
        batch_size=settled["batch_size"],
        optimiser=settled["optimiser"],
        weight_decay=settled["weight_decay"],
        seed=seed,
    )


def _check_loss(objective: Objective, encoder: EncoderConfig) -> None:
    """Refuse a loss that this network cannot have."""
    if objective.has("vae") and encoder.arch != "vae":
        msg = f"--loss {objective} must go with --arch vae; got --arch {encoder.arch}"
        raise ParameterError(msg)
