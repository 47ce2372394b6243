"""The fast detector response: stable particles in, the 19 objects of an event out.

No material and no tracking is simulated. Particles are measured with a resolution each; electrons
and muons get an efficiency, a resolution and an isolation; the rest is clustered into jets; what
balances everything seen is the missing transverse momentum. Gaussian noise stands in for pile-up.
"""

import numpy as np

from engines.events import N_FEATURES, N_OBJECTS
from engines.types import BoolArray, Float64Array, FloatArray, IntArray
from training.simulation.detector_config import DetectorConfig
from training.simulation.jets import find_jets
from training.simulation.leptons import ELECTRON, MUON, Leptons, find_leptons
from training.simulation.overlay import overlay
from training.simulation.particles import EventBlock, kinematics, ranges

__all__ = ["Detector"]

_FIRST_OF_LEPTONS = {ELECTRON: 1, MUON: 5}
_N_LEPTONS, _FIRST_JET, _N_JETS = 4, 9, 10
_PHOTON = 22
#: Stable charged particles, the long-lived hyperons among them.
_CHARGED = (ELECTRON, MUON, 211, 321, 2212, 3112, 3222, 3312, 3334)


class Detector:
    """Turns particles into objects.

    Args:
        config: what it does.
        pool: soft events to lay over the hard ones.
    """

    def __init__(self, config: DetectorConfig, pool: EventBlock) -> None:
        """Hold both."""
        self._config = config
        self._pool = pool

    def respond(self, hard: EventBlock, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        """Draw one response to each event.

        Args:
            hard: n events.
            rng: draws the soft events, the resolutions, the efficiencies and the noise.

        Returns:
            Particles, (n, 19, 3) float32, and which events the trigger accepts, (n,).
        """
        config = self._config
        block = overlay(hard, self._pool, config.n_soft, config.max_boost, rng)
        true = kinematics(block.p4)
        block = EventBlock(block.pdg, self._measured(block, rng), block.offsets)
        motion = kinematics(block.p4)
        seen = self._seen(block, true)
        leptons = find_leptons(block, motion, seen, config, rng)
        particles = np.zeros((len(block), N_OBJECTS, N_FEATURES))
        for kind, first in _FIRST_OF_LEPTONS.items():
            chosen = leptons.take(leptons.kind == kind)
            _fill(particles, first, _N_LEPTONS, chosen.event, chosen.motion)
        in_jets = seen.copy()
        in_jets[leptons.particle] = False
        self._add_jets(particles, block, in_jets, rng)
        self._add_missing(particles, block, seen, leptons, rng)
        rounded = _rounded(particles, config.mantissa_bits)
        hardest = rounded[:, 1:_FIRST_JET, 0].max(axis=1)
        return rounded, hardest > config.trigger_pt_gev

    def _measured(self, block: EventBlock, rng: np.random.Generator) -> Float64Array:
        """Return momenta with the resolution of the calorimeters; leptons get theirs later."""
        code, energy = np.abs(block.pdg), block.p4[:, 3]
        term = np.where(
            code == _PHOTON, self._config.photon_resolution, self._config.hadron_resolution
        )
        term[(code == ELECTRON) | (code == MUON)] = 0.0
        factor = 1.0 + term / np.sqrt(energy) * rng.standard_normal(len(energy))
        return np.asarray(block.p4 * np.maximum(factor, 0.0)[:, None])

    def _seen(self, block: EventBlock, true: Float64Array) -> BoolArray:
        """Return which particles leave a signal at all, (m,)."""
        config, code = self._config, np.abs(block.pdg)
        charged = np.isin(code, _CHARGED)
        least = np.where(charged, config.charged_pt_gev, config.neutral_pt_gev)
        end = np.where(code == MUON, config.muon_seen_eta, config.max_eta)
        return np.asarray((true[:, 0] > least) & (np.abs(true[:, 1]) < end))

    def _add_jets(
        self,
        particles: Float64Array,
        block: EventBlock,
        used: BoolArray,
        rng: np.random.Generator,
    ) -> None:
        config = self._config
        # Noise of five widths is allowed for.
        least = (config.jet_pt_gev - 5.0 * config.jet_noise_gev) / config.jet_scale
        event, p4 = find_jets(block, used, config.jet_radius, least)
        jets = kinematics(p4)
        jets[:, 0] *= config.jet_scale
        jets[:, 0] += config.jet_noise_gev * rng.standard_normal(len(jets))
        chosen = (jets[:, 0] > config.jet_pt_gev) & (np.abs(jets[:, 1]) < config.jet_eta)
        _fill(particles, _FIRST_JET, _N_JETS, event[chosen], jets[chosen])

    def _add_missing(
        self,
        particles: Float64Array,
        block: EventBlock,
        seen: BoolArray,
        leptons: Leptons,
        rng: np.random.Generator,
    ) -> None:
        """Balance what is seen, with the leptons as they were measured."""
        n = len(block)
        noise = self._config.met_noise_gev * rng.standard_normal((n, 2))
        measured = block.p4[:, :2] * seen[:, None]
        pt, _, phi = leptons.motion.T
        measured[leptons.particle] = np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=1)
        total = [np.bincount(block.events, measured[:, axis], minlength=n) for axis in (0, 1)]
        missing = noise - np.stack(total, axis=1)
        met = np.hypot(*missing.T)
        particles[:, 0, 0] = met
        particles[:, 0, 2] = np.where(met > 0, np.arctan2(missing[:, 1], missing[:, 0]), 0.0)


def _fill(
    particles: Float64Array, first: int, slots: int, event: IntArray, objects: Float64Array
) -> None:
    """Put the objects of each event, hardest first, into its slots; what is too many is left out.

    Args:
        particles: to fill, (n, 19, 3).
        first: the first slot.
        slots: how many.
        event: of each object, (k,).
        objects: pT, eta, phi, (k, 3).
    """
    order = np.lexsort((-objects[:, 0], event))
    event, objects = event[order], objects[order]
    counts = np.bincount(event, minlength=len(particles))
    rank = ranges(np.zeros_like(counts), counts)
    kept = rank < slots
    particles[event[kept], first + rank[kept]] = objects[kept]


def _rounded(values: Float64Array, bits: int) -> FloatArray:
    """Return values with so many bits of mantissa; their order stays."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits), np.float32)
