"""Physics quantities that an encoder can keep beside its learned coordinates.

Each is invariant under rotations about the beam, zero where its objects are absent, and made of
operations that export to plain ONNX. Momenta and masses enter as ln(1 + x / GeV), which tames
their tails; counts enter as they are. Leptons are electrons and muons, taken as massless.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from engines.errors import ParameterError

__all__ = ["KEEP_NAMES", "PhysicsQuantities", "check_keep"]

_MET, _ELECTRONS, _MUONS = 0, slice(1, 5), slice(5, 9)
_LEPTONS, _JETS = slice(1, 9), slice(9, 19)
#: Largest difference in eta within a mass: sinh^2(15) = 3e12 leaves room for any pT^2 in float32.
_MOST_ETA = 30.0


def _pt(slot: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda particles: particles[:, slot, 0]


def _sum_pt(slots: slice) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda particles: particles[:, slots, 0].sum(dim=1)


def _count(slots: slice) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda particles: (particles[:, slots, 0] > 0).to(particles.dtype).sum(dim=1)


def _mass(particles: torch.Tensor) -> torch.Tensor:
    """Return the invariant mass, (n,) GeV, of massless objects, (n, k, 3).

    m^2 = sum_ij pT_i pT_j (cosh(eta_i - eta_j) - cos(phi_i - phi_j)) over all ordered pairs,
    written as 2 sinh^2 + 2 sin^2 of half the differences: no term is negative and none cancels.
    Differences in eta beyond 30, which no detector measures, count as 30: float32 would overflow.
    """
    pt, half_eta, half_phi = particles[:, :, 0], particles[:, :, 1] / 2, particles[:, :, 2] / 2
    d_eta = (half_eta.unsqueeze(2) - half_eta.unsqueeze(1)).clamp(-_MOST_ETA / 2, _MOST_ETA / 2)
    d_phi = half_phi.unsqueeze(2) - half_phi.unsqueeze(1)
    sinh, sin = torch.sinh(d_eta), torch.sin(d_phi)
    pairs = pt.unsqueeze(2) * pt.unsqueeze(1) * 2 * (sinh * sinh + sin * sin)
    return torch.sqrt(pairs.sum(dim=(1, 2)))


def _leading_lepton(particles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pT and phi, (n,) each, of the electron or muon of largest pT."""
    electron, muon = particles[:, 1], particles[:, 5]
    leading = torch.where((electron[:, 0] >= muon[:, 0]).unsqueeze(1), electron, muon)
    return leading[:, 0], leading[:, 2]


def _transverse_mass(particles: torch.Tensor) -> torch.Tensor:
    """Return sqrt(2 pT MET (1 - cos dphi)) of the leading lepton and the MET, (n,) GeV."""
    pt, phi = _leading_lepton(particles)
    half = torch.sin((phi - particles[:, _MET, 2]) / 2)
    return 2 * torch.sqrt(pt * particles[:, _MET, 0]) * torch.abs(half)


def _pair_mass(particles: torch.Tensor) -> torch.Tensor:
    """Return the mass of the two leading electrons or the two leading muons, (n,) GeV.

    Of two such pairs, the one of larger summed pT counts; it is zero if there is no pair.
    """
    masses, sums = [], []
    for slots in (slice(1, 3), slice(5, 7)):
        pair = particles[:, slots]
        complete = (pair[:, 1, 0] > 0).to(particles.dtype)
        masses.append(_mass(pair) * complete)
        sums.append((pair[:, 0, 0] + pair[:, 1, 0]) * complete)
    return torch.where(sums[0] >= sums[1], masses[0], masses[1])


_GEV: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "met": _pt(_MET),
    "electron1_pt": _pt(1),
    "electron2_pt": _pt(2),
    "muon1_pt": _pt(5),
    "muon2_pt": _pt(6),
    "jet1_pt": _pt(9),
    "jet2_pt": _pt(10),
    "lepton1_pt": lambda particles: _leading_lepton(particles)[0],
    "lepton_sum_pt": _sum_pt(_LEPTONS),
    "ht": _sum_pt(_JETS),
    "mt": _transverse_mass,
    "m_ll": _pair_mass,
    "m_leptons": lambda particles: _mass(particles[:, _LEPTONS]),
}
_COUNTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "n_electrons": _count(_ELECTRONS),
    "n_muons": _count(_MUONS),
    "n_leptons": _count(_LEPTONS),
    "n_jets": _count(_JETS),
}
#: `ht` sums jets; `lepton_sum_pt` leptons; `mt` is of the leading lepton and the MET; `m_ll` of the
#: two leading leptons of one flavour; `m_leptons` of all leptons.
KEEP_NAMES = (*_GEV, *_COUNTS)


def check_keep(names: Sequence[str]) -> None:
    """Refuse unknown and repeated quantities.

    Raises:
        ParameterError: with the names that exist.
    """
    for index, name in enumerate(names):
        if name not in KEEP_NAMES:
            msg = f"keep must be some of {', '.join(KEEP_NAMES)}; got {name!r}"
            raise ParameterError(msg)
        if name in names[:index]:
            msg = f"keep must name each quantity once; got {name!r} twice; remove one"
            raise ParameterError(msg)


class PhysicsQuantities(nn.Module):
    """Raw kinematics, (n, 19, 3), to the named quantities, (n, len(names)).

    Args:
        names: some of `KEEP_NAMES`; the order of the columns.

    Raises:
        ParameterError: on an unknown or repeated name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Check and keep the names."""
        super().__init__()
        check_keep(names)
        self.names = tuple(names)

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return ln(1 + x / GeV) of momenta and masses, and counts as they are."""
        columns = [
            _COUNTS[name](particles) if name in _COUNTS else torch.log(_GEV[name](particles) + 1)
            for name in self.names
        ]
        return torch.stack(columns, dim=1)
