"""What a hundred simulated events must show."""

import numpy as np
import pytest

from bench.distributions import DISTRIBUTIONS
from engines.events import check_events
from engines.types import AnyArray, FloatArray

pytest.importorskip("fastjet", reason="needs the extra sim")
pytest.importorskip("pythia8mc", reason="needs the extra sim")

from training.simulation.chunk import Simulated, simulate_chunk
from training.simulation.detector import Detector
from training.simulation.detector_config import DetectorConfig
from training.simulation.generator import EventGenerator, soft_events
from training.simulation.plan import Chunk, make_plan
from training.simulation.processes import PROCESSES

CONFIG = DetectorConfig()
VALUES = {of.name: of.values for of in DISTRIBUTIONS}
SIZES = {"W": 150, "Z": 150, "A4l": 300, "QCD": 8}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(CONFIG, soft_events(100, 5))


@pytest.fixture(scope="module")
def simulated(detector: Detector) -> dict[str, Simulated]:
    return {
        name: simulate_chunk(Chunk(name, PROCESSES[name], n, (7, 8)), detector, 1)
        for name, n in SIZES.items()
    }


@pytest.fixture(params=SIZES)
def sample(request: pytest.FixtureRequest, simulated: dict[str, Simulated]) -> Simulated:
    return simulated[request.param]


def pairs_mass(objects: FloatArray) -> AnyArray:
    """Return the mass of all objects of each event, (n, k, 3), taken as massless."""
    pt, eta, phi = np.moveaxis(objects.astype(np.float64), -1, 0)
    axes = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
    momentum = np.sum([part.sum(axis=1) ** 2 for part in axes], axis=0)
    energy = (pt * np.cosh(eta)).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(energy**2 - momentum, 0.0)))


def test_layout(sample: Simulated) -> None:
    for x in (sample.particles, sample.realisations[:, 0]):
        check_events(x)
        pt = x[:, :, 0]
        assert not x[pt == 0].any()
        for first, last in ((1, 5), (5, 9), (9, 19)):
            assert (np.diff(pt[:, first:last], axis=1) <= 0).all()
        assert (x[:, 0, 1] == 0).all()
        assert (np.abs(x[:, :, 2]) <= np.float32(3.1418)).all()


def test_selection(sample: Simulated) -> None:
    for x in (sample.particles, sample.realisations[:, 0]):
        pt, eta = x[:, :, 0], np.abs(x[:, :, 1])
        assert (pt[:, 1:9].max(axis=1) > CONFIG.trigger_pt_gev).all()
        for slots, least, end in (
            (slice(1, 5), CONFIG.lepton_pt_gev, CONFIG.electron_eta),
            (slice(5, 9), CONFIG.lepton_pt_gev, CONFIG.muon_eta),
            (slice(9, 19), CONFIG.jet_pt_gev, CONFIG.jet_eta),
        ):
            present = pt[:, slots] > 0
            assert (pt[:, slots][present] >= least).all()
            assert (eta[:, slots][present] <= end).all()


def test_w_has_its_transverse_mass_edge(simulated: dict[str, Simulated]) -> None:
    mt = VALUES["mt"](simulated["W"].particles)
    assert 65 < np.median(mt) < 85
    assert (mt > 100).mean() < 0.1


def test_z_has_its_peak(simulated: dict[str, Simulated]) -> None:
    mass = VALUES["m_ll"](simulated["Z"].particles)
    assert len(mass) > 0.3 * SIZES["Z"]
    near = mass[np.abs(mass - 91) < 10]
    assert len(near) > 0.75 * len(mass)
    assert np.median(near) == pytest.approx(90.7, abs=0.8)


def test_four_leptons_stay_below_the_mass_of_a(simulated: dict[str, Simulated]) -> None:
    x = simulated["A4l"].particles
    leptons = x[:, 1:9]
    four = (leptons[:, :, 0] > 0).sum(axis=1) == 4
    mass = pairs_mass(leptons[four])
    # Of 3000 events, 24 % have four leptons: here 72 +- 7.
    assert 45 < len(mass) < 100
    # About one in a thousand has a lepton that is none of A's.
    assert (mass < 55).mean() > 0.97
    # Two thirds of the 3000 lie within 1 GeV of their median, 49.8: its error here is 0.15 GeV.
    assert np.median(mass) == pytest.approx(49.8, abs=0.6)


def test_heavy_flavour_has_jets_and_little_missing_momentum(
    simulated: dict[str, Simulated],
) -> None:
    qcd, w = simulated["QCD"].particles, simulated["W"].particles
    assert VALUES["n_jets"](qcd).mean() > VALUES["n_jets"](w).mean() + 0.3
    assert VALUES["met"](qcd).mean() < VALUES["met"](w).mean()


def test_realisations_differ_but_share_the_generated_event(
    simulated: dict[str, Simulated],
) -> None:
    first, again = simulated["Z"].particles, simulated["Z"].realisations[:, 0]
    assert (first != again).any(axis=(1, 2)).all()
    one, two = (VALUES["lepton_pt"](x).astype(np.float64) for x in (first, again))
    assert np.corrcoef(one, two)[0, 1] > 0.8
    # Events one further are strangers.
    assert np.corrcoef(one, np.roll(two, 1))[0, 1] < 0.4
    assert simulated["Z"].n_repeated == 0


def test_same_seeds_give_the_same_bits(detector: Detector, simulated: dict[str, Simulated]) -> None:
    chunk = Chunk("W", PROCESSES["W"], SIZES["W"], (7, 8))
    again = simulate_chunk(chunk, detector, 1)
    for name, value in vars(simulated["W"]).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    other = simulate_chunk(Chunk("W", PROCESSES["W"], 5, (8, 8)), detector, 0)
    assert not np.array_equal(other.particles, again.particles[:5])


def test_other_requests_with_the_same_seed_share_no_generated_event() -> None:
    plans = (make_plan(["W"], None, 300), make_plan([], "sm", 600))
    found = []
    for plan in plans:
        chunks = [chunk for chunk in plan.chunks() if chunk.name.startswith("W-")]
        blocks = [EventGenerator(PROCESSES["W"], c.seeds[0]).candidates(30).block for c in chunks]
        # The first particle of an event names it: no two have its momentum to the last bit.
        found.append({b.p4[i].tobytes() for b in blocks for i in b.offsets[:-1]})
    assert all(len(events) == 60 for events in found)
    assert not found[0] & found[1]


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_is_known_to_pythia(name: str) -> None:
    generator = EventGenerator(PROCESSES[name], 1)
    found = generator.candidates(2)
    assert len(found.block) == 2
    assert generator.cross_section_mb > 0
    assert found.n_generated[-1] == generator.n_generated


def test_repeated_decays_conserve_momentum() -> None:
    generator = EventGenerator(PROCESSES["QCD"], 2)
    generator.candidates(3)
    final = [p for p in generator._pythia.event if p.isFinal()]
    assert sum(p.e() for p in final) == pytest.approx(13_000.0, abs=1e-3)
    assert sum(p.px() for p in final) == pytest.approx(0.0, abs=1e-3)
    assert not any(p.idAbs() in (111, 511, 521, 421) for p in final)
