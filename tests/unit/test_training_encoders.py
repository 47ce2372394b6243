"""Preprocessing, augmentation and the networks."""

import numpy as np
import pytest
import torch

from engines.errors import ParameterError
from engines.types import FloatArray
from training.augment import mask_objects, mirror_events, rotate_to_met
from training.data import measure_scaling
from training.encoders import ARCHITECTURES, Encoder, Preprocess, build_encoder


def make_events(n: int = 64, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    particles = rng.uniform(20, 90, (n, 19, 3)).astype(np.float32)
    particles[:, :, 1] = rng.normal(0, 1, (n, 19))
    particles[:, :, 2] = rng.uniform(-np.pi, np.pi, (n, 19))
    particles[:, 1:][rng.random((n, 18)) < 0.6] = 0
    particles[:, 0, 1] = 0
    return particles


def trained(arch: str, dim: int = 4) -> Encoder:
    encoder, _ = build_encoder(arch, dim, measure_scaling(make_events()), seed=0)
    return encoder.eval()


def rotate(particles: torch.Tensor, angle: float) -> torch.Tensor:
    turned = particles.clone()
    phi = turned[:, :, 2] + angle
    turned[:, :, 2] = torch.where(turned[:, :, 0] > 0, torch.atan2(phi.sin(), phi.cos()), 0.0)
    return turned


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_preprocess_standardises_what_is_present_and_zeroes_what_is_not() -> None:
    particles = make_events(2000)
    inputs = Preprocess(measure_scaling(particles))(torch.from_numpy(particles)).numpy()
    present = particles[:, :, 0] > 0
    assert (inputs[~present] == 0).all()
    assert (inputs[present][:, 0] == 1).all()
    jets = inputs[:, 9:][present[:, 9:]]
    assert jets[:, 1].mean() == pytest.approx(0, abs=1e-5)
    assert jets[:, 1].std() == pytest.approx(1, abs=1e-4)
    assert jets[:, 2].std() == pytest.approx(1, abs=0.02)
    assert np.hypot(jets[:, 3], jets[:, 4]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_embedding_is_blind_to_a_rotation_about_the_beam(arch: str) -> None:
    particles = torch.from_numpy(make_events())
    encoder = trained(arch)
    turned = encoder(rotate(particles, 2.0))
    assert torch.allclose(encoder(particles), turned, atol=1e-5)
    assert torch.allclose(encoder(particles), encoder(rotate_to_met(particles)), atol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dim", [1, 4, 17])
def test_embeddings_have_the_shape_asked_for(arch: str, dim: int) -> None:
    encoder, head = build_encoder(arch, dim, measure_scaling(make_events()), seed=0)
    encoder.eval()
    embeddings = encoder(torch.from_numpy(make_events(5)))
    assert embeddings.shape == (5, dim)
    assert head(embeddings).ndim == 2


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_event_does_not_see_its_batch_and_an_empty_one_is_finite(arch: str) -> None:
    encoder = trained(arch)
    particles = torch.from_numpy(make_events(6))
    assert torch.allclose(encoder(particles)[2:3], encoder(particles[2:3]), atol=1e-6)
    assert torch.isfinite(encoder(torch.zeros(1, 19, 3))).all()


def test_transformer_follows_the_paper() -> None:
    backbone = trained("transformer").backbone
    shapes = {name: tuple(value.shape) for name, value in backbone.named_parameters()}
    assert shapes["slots"] == (20, 64)
    assert shapes["layers.3.feed.0.weight"] == (256, 64)
    assert "layers.4.feed.0.weight" not in shapes


def test_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    scaling = measure_scaling(make_events())
    before = torch.random.get_rng_state()
    first, again, other = (build_encoder("mlp", 4, scaling, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    particles = torch.from_numpy(make_events())
    for encoder in (first, again, other):
        encoder.eval()
    assert torch.equal(first(particles), again(particles))
    assert not torch.equal(first(particles), other(particles))


def test_unknown_architecture_and_dim_are_refused() -> None:
    scaling = measure_scaling(make_events())
    with pytest.raises(ParameterError, match="one of mlp, transformer"):
        build_encoder("cnn", 4, scaling, seed=0)
    with pytest.raises(ParameterError, match="dim must be at least 1"):
        build_encoder("mlp", 0, scaling, seed=0)


def test_masking_hides_whole_objects_at_the_rate_asked_for() -> None:
    particles = torch.from_numpy(make_events(4000))
    masked = mask_objects(particles, 0.3, generator())
    present = particles[:, :, 0] > 0
    hidden = present & (masked == 0).all(dim=2)
    n_present = int(present.sum())
    share = int(hidden.sum()) / n_present
    assert share == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / n_present))
    assert torch.equal(masked[present & ~hidden], particles[present & ~hidden])
    assert (masked[~present] == 0).all()


def test_masking_follows_its_generator_and_zero_probability_hides_nothing() -> None:
    particles = torch.from_numpy(make_events())
    first, again, other = (mask_objects(particles, 0.5, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(mask_objects(particles, 0.0, generator()), particles)


def test_a_masked_met_leaves_the_other_angles() -> None:
    particles = rotate_to_met(torch.from_numpy(make_events()))
    preprocess = Preprocess(measure_scaling(make_events()))
    without_met = particles.clone()
    without_met[:, 0] = 0
    assert torch.allclose(preprocess(particles)[:, 1:], preprocess(without_met)[:, 1:])


def test_mirrors_keep_pt_and_flip_whole_events() -> None:
    particles = torch.from_numpy(make_events(4000))
    mirrored = mirror_events(particles, generator())
    assert torch.equal(mirrored[:, :, 0], particles[:, :, 0])
    assert torch.equal(mirrored.abs(), particles.abs())
    flipped = (mirrored[:, 0, 2] * particles[:, 0, 2]) < 0
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(4000))
    assert torch.equal(mirrored[flipped][:, :, 2], -particles[flipped][:, :, 2])
