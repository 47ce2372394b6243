"""The settings of the fast detector response."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DetectorConfig"]


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector does.

    The values marked (text) are those that the reference sample states; those marked (tuned) were
    chosen so that the distributions agree with it; see `bench-simulation`.

    Attributes:
        n_soft: soft events laid over each hard one (text).
        max_boost: largest change of their rapidity (text).
        max_eta: end of the calorimeters (tuned).
        charged_pt_gev: least pT of a charged hadron that is seen (tuned).
        neutral_pt_gev: least pT of a neutral particle that is seen (tuned).
        muon_seen_eta: a muon beyond is seen by nothing; one before it that is not reconstructed
            goes into jets and missing momentum as any particle does (tuned).
        hadron_resolution: a hadron's energy has the relative width a / sqrt(E / GeV) (tuned).
        photon_resolution: a photon's and an electron's have this a (tuned).
        lepton_pt_gev: least pT of a lepton (text).
        electron_eta: end of the electron's acceptance (text).
        muon_eta: end of the muon's acceptance (text).
        electron_barrel_eta: where the barrel ends for electrons (tuned).
        electron_efficiency: in the barrel and outside (text).
        soft_electron_gev: below this pT an electron is found less often (tuned to A -> 4 leptons).
        soft_electron_efficiency: factor on the efficiency there (tuned to A -> 4 leptons).
        muon_efficiency: everywhere (text).
        electron_resolution: relative width of pT, in the barrel and outside (tuned to the Z peak).
        muon_resolution: relative width of pT, at eta = 0 and how much it grows with |eta| (tuned to
            the Z peak).
        isolation_radius: of the cone about a lepton (text).
        isolation_max: largest sum of pT in the cone over the lepton's (text).
        jet_radius: of anti-kT (text).
        jet_pt_gev: least pT of a jet, after scale and noise (text).
        jet_eta: end of the jets' acceptance (text).
        jet_scale: factor on the pT of a jet (text).
        jet_noise_gev: Gaussian width of the noise on a jet's pT, in place of pile-up (text).
        met_noise_gev: the same on each component of the missing momentum (text).
        trigger_pt_gev: at least one electron or muon has more pT than this (text).
        mantissa_bits: to which the values are rounded, so that files compress (text).
    """

    n_soft: int = 2
    max_boost: float = 0.6
    max_eta: float = 4.5
    charged_pt_gev: float = 0.4
    neutral_pt_gev: float = 0.4
    muon_seen_eta: float = 2.4
    hadron_resolution: float = 0.8
    photon_resolution: float = 0.1
    lepton_pt_gev: float = 3.0
    electron_eta: float = 3.0
    muon_eta: float = 2.1
    electron_barrel_eta: float = 1.5
    electron_efficiency: tuple[float, float] = (0.90, 0.78)
    soft_electron_gev: float = 10.0
    soft_electron_efficiency: float = 0.85
    muon_efficiency: float = 0.95
    electron_resolution: tuple[float, float] = (0.031, 0.035)
    muon_resolution: tuple[float, float] = (0.005, 0.015)
    isolation_radius: float = 0.3
    isolation_max: float = 0.45
    jet_radius: float = 0.4
    jet_pt_gev: float = 15.0
    jet_eta: float = 4.0
    jet_scale: float = 1.08
    jet_noise_gev: float = 2.0
    met_noise_gev: float = 8.0
    trigger_pt_gev: float = 23.0
    mantissa_bits: int = 14

    def describe(self) -> dict[str, Any]:
        """Return the settings, JSON-able."""
        return asdict(self)
