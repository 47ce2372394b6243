"""What training minimises: a sum of weighted losses, written such as `supcon+0.5*simclr`.

Supervised terms see each event as it is; self-supervised ones see two augmented views of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch.nn import functional

from engines.errors import ParameterError, SampleSizeError
from training.data import EventSet
from training.encoders import Outputs
from training.losses import (
    nt_xent_loss,
    supcon_loss,
    supervised_vicreg_loss,
    vae_loss,
    vicreg_loss,
)

__all__ = ["LossConfig", "Objective", "Term", "Views", "check_labels", "parse_objective"]


@dataclass(frozen=True)
class LossConfig:
    """Constants of the losses.

    Attributes:
        temperature: tau of `supcon`.
        view_temperature: tau of `simclr`.
        vicreg_weights: of invariance, variance and covariance.
        kl_weight: of the VAE's Kullback-Leibler term.
    """

    temperature: float = 0.1
    view_temperature: float = 0.5
    vicreg_weights: tuple[float, float, float] = (25.0, 25.0, 1.0)
    kl_weight: float = 0.8

    @property
    def vicreg(self) -> dict[str, float]:
        """The VICReg weights by name."""
        return dict(zip(("invariance", "variance", "covariance"), self.vicreg_weights, strict=True))


@dataclass(frozen=True)
class Views:
    """A model's outputs on one batch.

    Attributes:
        clean: of the events as they are; None if no term looks at them.
        first: of one augmented view; None if no term looks at views.
        second: of the other.
        targets: class of each event, (n,); None without labels.
    """

    clean: Outputs | None
    first: Outputs | None
    second: Outputs | None
    targets: torch.Tensor | None


def _of(outputs: Outputs | None) -> Outputs:
    if outputs is None:
        msg = "a loss looks at a view that was not computed"
        raise ValueError(msg)
    return outputs


def _some(tensor: torch.Tensor | None, what: str) -> torch.Tensor:
    if tensor is None:
        msg = f"a loss needs {what}, which this model or sample has not"
        raise ValueError(msg)
    return tensor


def _supcon(views: Views, config: LossConfig) -> torch.Tensor:
    targets = _some(views.targets, "labels")
    return supcon_loss(_of(views.clean).projection, targets, config.temperature)


def _simclr(views: Views, config: LossConfig) -> torch.Tensor:
    first, second = _of(views.first).projection, _of(views.second).projection
    return nt_xent_loss(first, second, config.view_temperature)


def _vicreg(views: Views, config: LossConfig) -> torch.Tensor:
    first, second = _of(views.first).projection, _of(views.second).projection
    return vicreg_loss(first, second, **config.vicreg)


def _supvicreg(views: Views, config: LossConfig) -> torch.Tensor:
    targets = _some(views.targets, "labels")
    return supervised_vicreg_loss(_of(views.clean).projection, targets, **config.vicreg)


def _cross_entropy(views: Views, _config: LossConfig) -> torch.Tensor:
    logits = _some(_of(views.clean).logits, "a classifier")
    return functional.cross_entropy(logits, _some(views.targets, "labels"))


def _vae(views: Views, config: LossConfig) -> torch.Tensor:
    clean = _of(views.clean)
    reconstruction = _some(clean.reconstruction, "a decoder")
    inputs = _some(clean.inputs, "a decoder")
    return vae_loss(reconstruction, inputs, clean.embedding, kl_weight=config.kl_weight)


@dataclass(frozen=True)
class _Kind:
    value: Callable[[Views, LossConfig], torch.Tensor]
    needs_labels: bool = False
    needs_views: bool = False


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "supcon": _Kind(_supcon, needs_labels=True),
        "simclr": _Kind(_simclr, needs_views=True),
        "vicreg": _Kind(_vicreg, needs_views=True),
        "supvicreg": _Kind(_supvicreg, needs_labels=True),
        "ce": _Kind(_cross_entropy, needs_labels=True),
        "vae": _Kind(_vae),
    }
)


@dataclass(frozen=True)
class Term:
    """One loss and its weight in the sum."""

    name: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME` or `WEIGHT*NAME`.

        Raises:
            ParameterError: on an unknown name, or a weight that is not a number above zero.
        """
        number, star, name = text.strip().rpartition("*")
        name = name.strip()
        if name not in _KINDS:
            msg = (
                f"loss must be one of {', '.join(_KINDS)}, or a sum such as supcon+0.5*simclr; "
                f"got {name!r}"
            )
            raise ParameterError(msg)
        try:
            weight = float(number) if star else 1.0
        except ValueError:
            weight = float("nan")
        if not 0 < weight < float("inf"):
            msg = f"the weight of {name} must be a number above zero; got {number.strip()!r}"
            raise ParameterError(msg)
        return cls(name, weight)

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return self.name if self.weight == 1 else f"{self.weight:g}*{self.name}"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        """Return what `parse_objective` reads."""
        return "+".join(map(str, self.terms))

    @property
    def needs_labels(self) -> bool:
        """Whether a term looks at the class of an event."""
        return any(_KINDS[term.name].needs_labels for term in self.terms)

    @property
    def needs_views(self) -> bool:
        """Whether a term looks at augmented views."""
        return any(_KINDS[term.name].needs_views for term in self.terms)

    @property
    def needs_clean(self) -> bool:
        """Whether a term looks at events as they are."""
        return not all(_KINDS[term.name].needs_views for term in self.terms)

    def has(self, name: str) -> bool:
        """Return whether a loss is part of the sum."""
        return any(term.name == name for term in self.terms)

    def value(self, views: Views, config: LossConfig) -> torch.Tensor:
        """Return the loss of one batch, a scalar."""
        values = [term.weight * _KINDS[term.name].value(views, config) for term in self.terms]
        return torch.stack(values).sum()


def parse_objective(text: str) -> Objective:
    """Read losses joined by `+`, each with a weight in front if it is not 1.

    Raises:
        ParameterError: on an unknown or repeated loss, or a weight that is no positive number.

    >>> objective = parse_objective("supcon+0.5*simclr")
    >>> str(objective), objective.needs_labels, objective.needs_views
    ('supcon+0.5*simclr', True, True)
    """
    terms = tuple(Term.parse(part) for part in text.split("+"))
    if len({term.name for term in terms}) < len(terms):
        msg = f"each loss may stand in the sum once; got {text!r}"
        raise ParameterError(msg)
    return Objective(terms)


def check_labels(events: EventSet, objective: Objective, sampling: str) -> None:
    """Refuse a loss or a sampling that needs labels which are not there.

    Raises:
        ParameterError: if a file has no labels.
        SampleSizeError: if there is only one class.
    """
    unsupervised = "vicreg" if objective.has("supvicreg") else "simclr"
    if events.unlabelled is not None and objective.needs_labels:
        msg = (
            f"--loss {objective} must have a label for every event; {events.unlabelled} has no "
            f"'process' or 'background_ID'; use --loss {unsupervised}, which needs none"
        )
        raise ParameterError(msg)
    if events.unlabelled is not None and sampling == "balanced":
        msg = (
            f"--sampling balanced must have a label for every event; {events.unlabelled} has none; "
            "use --sampling cocktail"
        )
        raise ParameterError(msg)
    if objective.needs_labels and len(events.classes) < 2:
        msg = (
            f"--loss {objective} must have two classes or more; got only class "
            f"{events.classes[0]}; add events of another, or use --loss {unsupervised}"
        )
        raise SampleSizeError(msg)
