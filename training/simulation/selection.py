"""Questions to a Pythia event: what of it could pass the trigger, and what can be seen of it."""

from typing import Any, TypeAlias

import numpy as np

from engines.types import Float64Array, IntArray
from training.simulation.particles import kinematics, wrapped

__all__ = [
    "SeenEvent",
    "hard_heavy_hadrons",
    "has_heavy_quark",
    "has_isolated_lepton",
    "has_lepton",
    "has_tau",
    "light_unstable",
    "visible",
]

#: Codes, (k,), and px, py, pz and energy in GeV, (k, 4), of one event.
SeenEvent: TypeAlias = tuple[IntArray, Float64Array]

#: A lepton that the detector measures above 23 GeV had more than this: three resolutions below.
_LEPTON_PT_GEV = 21.0
#: A hadron below hardly ever gives such a lepton that is isolated as well.
_HADRON_PT_GEV = 23.0
#: Ends of the acceptances of electrons and muons, with room for the angle's resolution.
_LEPTON_ETA = {11: 3.05, 13: 2.15}
_HEAVY_QUARKS = frozenset((4, 5))
_TAU = 15
_MAX_ETA = 6.0
#: A little looser than the detector's isolation, in the same cone.
_CONE, _ISOLATION = 0.3, 0.5


def light_unstable(pythia: Any) -> list[Any]:  # noqa: ANN401
    """Return what may decay, holds no heavy quark and is no tau."""
    data, pdg, found = pythia.particleData, 1, []
    while pdg:
        heavy = pdg == _TAU or abs(data.heaviestQuark(pdg)) in _HEAVY_QUARKS
        if data.mayDecay(pdg) and not heavy:
            found.append(data.findParticle(pdg))
        pdg = data.nextId(pdg)
    return found


def has_tau(event: Any) -> bool:  # noqa: ANN401
    """Whether there is a tau whose decay could give such a lepton."""
    return any(p.idAbs() == _TAU and p.isFinal() and p.pT() > _LEPTON_PT_GEV for p in event)


def has_heavy_quark(event: Any) -> bool:  # noqa: ANN401
    """Whether there is a hard bottom or charm quark."""
    return any(
        p.idAbs() in _HEAVY_QUARKS and p.isFinal() and p.pT() > _LEPTON_PT_GEV for p in event
    )


def hard_heavy_hadrons(pythia: Any) -> list[int]:  # noqa: ANN401
    """Return the indices of hadrons whose decay could give a lepton that the trigger could take."""
    quark = pythia.particleData.heaviestQuark
    return [
        i
        for i, p in enumerate(pythia.event)
        if p.isFinal() and p.pT() > _HADRON_PT_GEV and abs(quark(p.id())) in _HEAVY_QUARKS
    ]


def has_lepton(event: Any) -> bool:  # noqa: ANN401
    """Whether there is an electron or muon that the trigger could take."""
    for particle in event:
        end = _LEPTON_ETA.get(particle.idAbs())
        if (
            end is not None
            and particle.isFinal()
            and particle.pT() > _LEPTON_PT_GEV
            and abs(particle.eta()) < end
        ):
            return True
    return False


def visible(event: Any) -> SeenEvent:  # noqa: ANN401
    """Return the stable particles but neutrinos, within |eta| < 6."""
    rows = [(p.id(), p.px(), p.py(), p.pz(), p.e()) for p in event if p.isFinal() and p.isVisible()]
    table = np.array(rows, np.float64).reshape(-1, 5)
    pdg, p4 = table[:, 0].astype(np.int64), table[:, 1:]
    central = np.abs(p4[:, 2]) < np.hypot(p4[:, 0], p4[:, 1]) * np.sinh(_MAX_ETA)
    return pdg[central], p4[central]


def has_isolated_lepton(event: SeenEvent) -> bool:
    """Whether a lepton that the trigger could take is loosely isolated."""
    pdg, p4 = event
    pt, eta, phi = kinematics(p4).T
    end = np.select([np.abs(pdg) == kind for kind in _LEPTON_ETA], list(_LEPTON_ETA.values()))
    for i in np.flatnonzero((pt > _LEPTON_PT_GEV) & (np.abs(eta) < end)):
        near = (eta - eta[i]) ** 2 + wrapped(phi - phi[i]) ** 2 < _CONE**2
        if pt[near].sum() < (1.0 + _ISOLATION) * pt[i]:
            return True
    return False
