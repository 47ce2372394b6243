"""Isolated electrons and muons of many events."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from engines.types import BoolArray, Float64Array, IntArray
from training.simulation.detector_config import DetectorConfig
from training.simulation.particles import EventBlock, ranges, wrapped

__all__ = ["ELECTRON", "MUON", "Leptons", "find_leptons"]

ELECTRON, MUON = 11, 13


@dataclass(frozen=True)
class Leptons:
    """Reconstructed leptons of all events.

    Attributes:
        kind: 11 or 13, (k,).
        event: of each, (k,).
        particle: its index among the particles, (k,).
        motion: measured pT, eta, phi, (k, 3).
    """

    kind: IntArray
    event: IntArray
    particle: IntArray
    motion: Float64Array

    def take(self, chosen: BoolArray) -> Self:
        """Return some of them, `chosen` being (k,)."""
        return type(self)(
            self.kind[chosen], self.event[chosen], self.particle[chosen], self.motion[chosen]
        )


def find_leptons(
    block: EventBlock,
    motion: Float64Array,
    seen: BoolArray,
    config: DetectorConfig,
    rng: np.random.Generator,
) -> Leptons:
    """Measure electrons and muons; keep those in the acceptance, reconstructed and isolated.

    Args:
        block: particles of n events.
        motion: their pT, eta, phi, (m, 3).
        seen: which of them count in the isolation cone, (m,).
        config: the detector's.
        rng: draws efficiency and resolution.
    """
    code = np.abs(block.pdg)
    index = np.flatnonzero((code == ELECTRON) | (code == MUON))
    kind, measured = code[index], motion[index].copy()
    electron, far = kind == ELECTRON, np.abs(measured[:, 1])
    barrel = far < config.electron_barrel_eta
    at_zero, slope = config.muon_resolution
    width = np.where(electron, np.where(barrel, *config.electron_resolution), at_zero + slope * far)
    soft = electron & (measured[:, 0] < config.soft_electron_gev)
    measured[:, 0] *= 1.0 + width * rng.standard_normal(len(index))
    efficiency = np.where(
        electron, np.where(barrel, *config.electron_efficiency), config.muon_efficiency
    )
    efficiency[soft] *= config.soft_electron_efficiency
    acceptance = np.where(electron, config.electron_eta, config.muon_eta)
    passes = (
        (rng.random(len(index)) < efficiency)
        & (far < acceptance)
        & (measured[:, 0] > config.lepton_pt_gev)
    )
    leptons = Leptons(kind, block.events[index], index, measured).take(passes)
    around = _sum_around(block, motion, seen, leptons, config.isolation_radius)
    return leptons.take(around < config.isolation_max * leptons.motion[:, 0])


def _sum_around(
    block: EventBlock, motion: Float64Array, seen: BoolArray, leptons: Leptons, radius: float
) -> Float64Array:
    """Return the sum of the pT of what else is seen in the cone about each lepton, (k,)."""
    counts = block.counts[leptons.event]
    other = ranges(block.offsets[:-1][leptons.event], counts)
    lepton = np.repeat(np.arange(len(counts)), counts)
    axis = motion[leptons.particle][lepton]
    d_eta = motion[other, 1] - axis[:, 1]
    d_phi = wrapped(motion[other, 2] - axis[:, 2])
    inside = (d_eta**2 + d_phi**2 < radius**2) & seen[other] & (other != leptons.particle[lepton])
    sums = np.bincount(lepton, motion[other, 0] * inside, minlength=len(counts))
    return np.asarray(sums, np.float64)
