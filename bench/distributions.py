"""Quantities of events whose distributions are compared."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engines.types import AnyArray, Float64Array, FloatArray

__all__ = ["DISTRIBUTIONS", "Distribution"]

_ELECTRONS, _MUONS, _JETS = slice(1, 5), slice(5, 9), slice(9, 19)


@dataclass(frozen=True)
class Distribution:
    """A quantity and its bins.

    Attributes:
        name: of the quantity.
        text: for an axis.
        edges: of the bins, (b + 1,).
        values: the quantity of events, (n, 19, 3) to (k,); not every event needs to have it.
        ticks: of a logarithmic axis; none where it is linear.
    """

    name: str
    text: str
    edges: Float64Array
    values: Callable[[FloatArray], AnyArray]
    ticks: tuple[float, ...] = ()


def _leading_lepton(x: FloatArray) -> FloatArray:
    leptons = x[:, 1:9]
    hardest = leptons[:, :, 0].argmax(axis=1)
    return np.asarray(leptons[np.arange(len(x)), hardest])


def _leading_jet(x: FloatArray, column: int) -> FloatArray:
    return np.asarray(x[x[:, 9, 0] > 0, 9, column])


def _count(x: FloatArray, of: slice) -> AnyArray:
    return np.asarray((x[:, of, 0] > 0).sum(axis=1))


def _transverse_mass(x: FloatArray) -> FloatArray:
    lepton, met = _leading_lepton(x), x[:, 0]
    opening = 1.0 - np.cos(lepton[:, 2] - met[:, 2])
    return np.asarray(np.sqrt(2.0 * lepton[:, 0] * met[:, 0] * opening))


def _dilepton_mass(x: FloatArray) -> FloatArray:
    """Return the mass of the two hardest electrons, or else muons, of events that have two."""
    pairs = np.where((x[:, 2, 0] > 0)[:, None, None], x[:, 1:3], x[:, 5:7])
    a, b = np.moveaxis(pairs[pairs[:, 1, 0] > 0], 1, 0)
    opening = np.cosh(a[:, 1] - b[:, 1]) - np.cos(a[:, 2] - b[:, 2])
    return np.asarray(np.sqrt(2.0 * a[:, 0] * b[:, 0] * np.maximum(opening, 0.0)))


def _whole(last: int) -> Float64Array:
    return np.arange(-0.5, last + 1)


_PT = np.array([*range(15, 60, 3), 65, 75, 90, 120, 160, 250, 600], np.float64)
DISTRIBUTIONS = (
    Distribution(
        "met",
        "MET [GeV]",
        np.array([*range(0, 80, 4), 90, 105, 130, 180, 400], np.float64),
        lambda x: x[:, 0, 0],
    ),
    Distribution(
        "lepton_pt",
        "leading lepton pT [GeV]",
        np.array([*range(23, 61, 2), 66, 75, 90, 120, 200, 500], np.float64),
        lambda x: _leading_lepton(x)[:, 0],
        ticks=(25.0, 50.0, 100.0, 200.0),
    ),
    Distribution(
        "lepton_eta",
        "leading lepton eta",
        np.linspace(-3.0, 3.0, 25),
        lambda x: _leading_lepton(x)[:, 1],
    ),
    Distribution(
        "jet_pt",
        "leading jet pT [GeV]",
        _PT,
        lambda x: _leading_jet(x, 0),
        ticks=(20.0, 50.0, 100.0, 200.0),
    ),
    Distribution(
        "jet_eta", "leading jet eta", np.linspace(-4.0, 4.0, 25), lambda x: _leading_jet(x, 1)
    ),
    Distribution("n_electrons", "electrons", _whole(4), lambda x: _count(x, _ELECTRONS)),
    Distribution("n_muons", "muons", _whole(4), lambda x: _count(x, _MUONS)),
    Distribution("n_jets", "jets", _whole(10), lambda x: _count(x, _JETS)),
    Distribution(
        "mt",
        "mT(lepton, MET) [GeV]",
        np.array([*range(0, 120, 5), 140, 180, 300], np.float64),
        _transverse_mass,
    ),
    Distribution(
        "m_ll",
        "m(ee) or m(mumu) [GeV]",
        np.array([*range(0, 76, 5), *range(78, 106, 3), 110, 130, 200], np.float64),
        _dilepton_mass,
    ),
)
