"""Preprocessing: raw kinematics to numbers of order one, inside the graph that is exported."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from engines.errors import ParameterError
from engines.events import OBJECT_CLASSES
from engines.types import Float64Array, FloatArray

__all__ = ["InputConfig", "Preprocess", "Scaling", "measure_scaling"]

_WORDS = {"log": "log_pt", "rotate": "rotate", "presence": "presence"}
_PLAIN = "plain"
#: Standard deviation of an angle that is uniform from -pi to pi.
_PHI_STD = math.pi / math.sqrt(3)


@dataclass(frozen=True)
class InputConfig:
    """What the numbers of an object become; written `log,rotate,presence`, a part of it or `plain`.

    Attributes:
        log_pt: ln(1 + pT / GeV) standardised, which tames the tail of pT; else pT standardised.
        rotate: sine and cosine of phi - phi_MET, two numbers, which make the embedding blind to a
            rotation of the event about the beam; else phi / (pi / sqrt 3), one number.
        presence: a leading 1, which keeps a typical object apart from none.

    >>> InputConfig.parse("log,rotate") == InputConfig(presence=False)
    True
    >>> str(InputConfig()), str(InputConfig.parse("plain"))
    ('log,rotate,presence', 'plain')
    >>> InputConfig().n_inputs, InputConfig.parse("plain").n_inputs
    (5, 3)
    """

    log_pt: bool = True
    rotate: bool = True
    presence: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read words separated by commas, or `plain` for none of them.

        Raises:
            ParameterError: on an unknown or repeated word.
        """
        words = [] if text.strip() == _PLAIN else [word.strip() for word in text.split(",")]
        if not set(words) <= set(_WORDS) or len(set(words)) < len(words):
            msg = (
                f"inputs must be {_PLAIN} or some of {','.join(_WORDS)}, each once; got {text!r}; "
                f"try --inputs {','.join(_WORDS)}"
            )
            raise ParameterError(msg)
        return cls(**{field: word in words for word, field in _WORDS.items()})

    def __str__(self) -> str:
        """Return what `parse` reads."""
        chosen = [word for word, field in _WORDS.items() if getattr(self, field)]
        return ",".join(chosen) or _PLAIN

    @property
    def n_inputs(self) -> int:
        """Numbers that one object becomes."""
        return int(self.presence) + 2 + (2 if self.rotate else 1)


@dataclass(frozen=True)
class Scaling:
    """Constants of the preprocessing, one for each of the 19 objects.

    Attributes:
        log_pt_mean: mean of ln(1 + pT / GeV) of the objects that are present, (19,).
        log_pt_std: its standard deviation, (19,).
        eta_std: standard deviation of eta, (19,); its mean is zero by symmetry.
        pt_mean: mean of pT of the objects that are present, GeV, (19,).
        pt_std: its standard deviation, GeV, (19,).
    """

    log_pt_mean: Float64Array
    log_pt_std: Float64Array
    eta_std: Float64Array
    pt_mean: Float64Array
    pt_std: Float64Array


def measure_scaling(particles: FloatArray) -> Scaling:
    """Return the scaling constants of the training events.

    Objects of a kind (MET, electrons, muons, jets) share their constants: a slot that is almost
    never filled, such as a fourth muon, would otherwise have none that mean anything.

    Args:
        particles: the training events only, (n, 19, 3), pT in GeV.
    """
    constants = np.tile([[0.0], [1.0], [1.0], [0.0], [1.0]], len(OBJECT_CLASSES))
    for kind in np.unique(OBJECT_CLASSES):
        slots = np.equal(OBJECT_CLASSES, kind)
        objects = particles[:, slots][particles[:, slots, 0] > 0].astype(np.float64)
        if len(objects) < 2:
            continue
        pt, log_pt = objects[:, 0], np.log1p(objects[:, 0])
        eta_std = float(np.sqrt(np.mean(objects[:, 1] ** 2))) or 1.0
        measured = (log_pt.mean(), log_pt.std() or 1.0, eta_std, pt.mean(), pt.std() or 1.0)
        constants[:, slots] = np.array(measured)[:, None]
    return Scaling(*constants)


class Preprocess(nn.Module):
    """Raw kinematics, (n, 19, 3), to inputs of the backbone, (n, 19, n_inputs).

    An absent object becomes zeros. Angles relative to the MET have no seam at pi, since sine and
    cosine have none.

    Args:
        scaling: constants measured on the training events.
        inputs: which numbers an object becomes.
    """

    pt_mean: torch.Tensor
    pt_std: torch.Tensor
    eta_std: torch.Tensor

    def __init__(self, scaling: Scaling, inputs: InputConfig | None = None) -> None:
        """Keep the constants as buffers, so that they travel with the graph."""
        super().__init__()
        self.inputs = inputs or InputConfig()
        log = self.inputs.log_pt
        for name, constant in (
            ("pt_mean", scaling.log_pt_mean if log else scaling.pt_mean),
            ("pt_std", scaling.log_pt_std if log else scaling.pt_std),
            ("eta_std", scaling.eta_std),
        ):
            self.register_buffer(name, torch.as_tensor(constant, dtype=torch.float32))

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return the scaled inputs."""
        pt, eta, phi = particles[:, :, 0], particles[:, :, 1], particles[:, :, 2]
        present = (pt > 0).to(particles.dtype)
        size = torch.log(pt + 1) if self.inputs.log_pt else pt
        features = [(size - self.pt_mean) / self.pt_std, eta / self.eta_std]
        if self.inputs.rotate:
            angle = phi - phi[:, :1]
            features += [torch.sin(angle), torch.cos(angle)]
        else:
            features.append(phi / _PHI_STD)
        if self.inputs.presence:
            features.insert(0, present)
        return torch.stack(features, dim=2) * present.unsqueeze(2)
