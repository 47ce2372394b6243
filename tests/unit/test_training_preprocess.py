"""What a network gets to see: input representations, scaling, and physics quantities kept."""

import numpy as np
import pytest
import torch

from engines.errors import ParameterError
from engines.types import AnyArray, Float64Array, FloatArray
from tests.support_training import make_events
from training.networks.physics_quantities import KEEP_NAMES, PhysicsQuantities, check_keep
from training.networks.preprocess import InputConfig, Preprocess, measure_scaling


def preprocess(particles: FloatArray, text: str) -> FloatArray:
    module = Preprocess(measure_scaling(particles), InputConfig.parse(text))
    inputs: FloatArray = module(torch.from_numpy(particles)).numpy()
    return inputs


def test_scaling_is_measured_on_present_objects_of_a_kind() -> None:
    particles = make_events(200)
    particles[:, 5:9] = 0
    scaling = measure_scaling(particles)
    jets = particles[:, 9:][particles[:, 9:, 0] > 0].astype(np.float64)
    assert scaling.log_pt_mean[9:] == pytest.approx(np.log1p(jets[:, 0]).mean())
    assert scaling.log_pt_std[18] == pytest.approx(np.log1p(jets[:, 0]).std())
    assert scaling.pt_mean[10] == pytest.approx(jets[:, 0].mean())
    assert scaling.pt_std[9] == pytest.approx(jets[:, 0].std())
    assert scaling.eta_std[12] == pytest.approx(np.sqrt(np.mean(jets[:, 1] ** 2)))
    assert scaling.pt_mean[5:9].tolist() == scaling.log_pt_mean[5:9].tolist() == [0.0] * 4
    assert scaling.pt_std[5:9].tolist() == [1.0] * 4
    assert scaling.eta_std[0] == 1.0


@pytest.mark.parametrize("text", ["log,rotate,presence", "plain", "log", "rotate,presence"])
def test_inputs_are_standardised_where_present_and_zero_where_not(text: str) -> None:
    particles = make_events(2000)
    config = InputConfig.parse(text)
    inputs = preprocess(particles, text)
    assert inputs.shape == (2000, 19, config.n_inputs)
    present = particles[:, :, 0] > 0
    assert (inputs[~present] == 0).all()
    jets = inputs[:, 9:][present[:, 9:]]
    if config.presence:
        assert (jets[:, 0] == 1).all()
        jets = jets[:, 1:]
    assert jets[:, 0].mean() == pytest.approx(0, abs=1e-5)
    assert jets[:, 0].std() == pytest.approx(1, abs=1e-4)
    assert jets[:, 1].std() == pytest.approx(1, abs=0.02)
    if config.rotate:
        assert np.hypot(jets[:, 2], jets[:, 3]) == pytest.approx(1, abs=1e-6)
    else:
        assert jets[:, 2].std() == pytest.approx(1, abs=0.03)


def test_log_pt_and_pt_are_the_two_scales() -> None:
    particles = make_events(500)
    pt = particles[:, 0, 0].astype(np.float64)
    assert preprocess(particles, "plain")[:, 0, 0] == pytest.approx(
        (pt - pt.mean()) / pt.std(), abs=1e-4
    )
    log = np.log1p(pt)
    assert preprocess(particles, "log")[:, 0, 0] == pytest.approx(
        (log - log.mean()) / log.std(), abs=1e-4
    )


@pytest.mark.parametrize("text", ["log,rotate,presence", "plain", "rotate", "log,presence"])
def test_input_config_is_read_back_from_its_text(text: str) -> None:
    assert str(InputConfig.parse(text)) == text


@pytest.mark.parametrize("text", ["", "ln", "log,log", "plain,log"])
def test_unknown_inputs_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="inputs must be plain or some of"):
        InputConfig.parse(text)


def quantities(particles: FloatArray, *names: str) -> Float64Array:
    """Kept quantities in GeV or counts, (n, len(names))."""
    kept = PhysicsQuantities(names)(torch.from_numpy(particles)).double().numpy()
    in_gev = [not name.startswith("n_") for name in names]
    values: Float64Array = np.where(in_gev, np.expm1(kept), kept)
    return values


def four_vectors(objects: AnyArray) -> Float64Array:
    """(E, px, py, pz) of massless objects, (..., 4)."""
    pt, eta, phi = np.moveaxis(objects.astype(np.float64), -1, 0)
    return np.stack((pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)), -1)


def mass(vectors: Float64Array) -> float:
    energy, *momentum = vectors.sum(axis=0)
    return float(np.sqrt(max(energy**2 - np.square(momentum).sum(), 0)))


def test_momenta_and_counts_are_those_of_the_objects() -> None:
    particles = make_events(50)
    names = ("met", "electron1_pt", "electron2_pt", "muon1_pt", "muon2_pt", "jet1_pt", "jet2_pt")
    slots = [0, 1, 2, 5, 6, 9, 10]
    assert quantities(particles, *names) == pytest.approx(particles[:, slots, 0], rel=1e-5)
    names = ("lepton1_pt", "lepton_sum_pt", "ht", "n_electrons", "n_muons", "n_leptons", "n_jets")
    pt = particles[:, :, 0].astype(np.float64)
    expected = [
        np.maximum(pt[:, 1], pt[:, 5]),
        pt[:, 1:9].sum(axis=1),
        pt[:, 9:].sum(axis=1),
        *((pt[:, a:b] > 0).sum(axis=1) for a, b in ((1, 5), (5, 9), (1, 9), (9, 19))),
    ]
    assert quantities(particles, *names) == pytest.approx(np.stack(expected, 1), rel=1e-5)


def test_masses_equal_those_of_four_vectors() -> None:
    particles = make_events(80, seed=3)
    computed = quantities(particles, "m_leptons", "m_ll", "mt")
    for event, values in zip(particles, computed, strict=True):
        assert values[0] == pytest.approx(mass(four_vectors(event[1:9])), rel=1e-4, abs=1e-3)
        pairs = [event[a : a + 2] for a in (1, 5) if event[a + 1, 0] > 0]
        best = max(pairs, key=lambda pair: pair[0, 0] + pair[1, 0], default=event[:2] * 0)
        assert values[1] == pytest.approx(mass(four_vectors(best)), rel=1e-4, abs=1e-3)
        lepton = event[1] if event[1, 0] >= event[5, 0] else event[5]
        transverse = np.stack((event[0], lepton)) * [1, 0, 1]
        assert values[2] == pytest.approx(mass(four_vectors(transverse)), rel=1e-4, abs=1e-3)


def test_one_lepton_has_no_mass_however_fast() -> None:
    particles = np.zeros((1, 19, 3), dtype=np.float32)
    particles[0, 1] = (500, 2.9, 1.0)
    assert quantities(particles, "m_leptons", "m_ll").tolist() == [[0.0, 0.0]]


def test_quantities_are_blind_to_rotations_and_finite_for_nothing() -> None:
    particles = make_events(100)
    turned = particles.copy()
    turned[:, :, 2] = np.where(particles[:, :, 0] > 0, particles[:, :, 2] + 1, 0)
    kept = PhysicsQuantities(KEEP_NAMES)
    first, second = kept(torch.from_numpy(particles)), kept(torch.from_numpy(turned))
    assert torch.allclose(first, second, atol=1e-4)
    assert kept(torch.zeros(2, 19, 3)).tolist() == [[0.0] * len(KEEP_NAMES)] * 2


def test_unknown_and_repeated_quantities_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"keep must be some of met, .*; got 'mass'"):
        check_keep(("met", "mass"))
    with pytest.raises(ParameterError, match="got 'met' twice"):
        PhysicsQuantities(("met", "ht", "met"))


def test_masses_are_finite_however_far_apart_leptons_are() -> None:
    particles = np.zeros((2, 19, 3), dtype=np.float32)
    particles[:, [1, 2], 0] = 1e4
    particles[:, 1, 1], particles[:, 2, 1] = (60.0, 15.0), (-60.0, -15.0)
    found = quantities(particles, "m_leptons", "m_ll")
    assert np.isfinite(found).all()
    assert found[0].tolist() == found[1].tolist()  # differences beyond 30 count as 30
    assert found[0, 0] == pytest.approx(1e4 * np.sqrt(2 * np.cosh(30.0) - 2), rel=1e-3)
