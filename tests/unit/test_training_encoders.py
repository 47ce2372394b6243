"""The networks: shapes, symmetries and seeds."""

import pytest
import torch

from engines.errors import ParameterError
from tests.support_training import make_events, with_empty_events
from training.augment import rotate_to_met
from training.encoders import ARCHITECTURES, UNTRAINED, EncoderConfig, Model, build_model
from training.networks.heads import HEADS, DinoHead, make_head
from training.networks.physics_quantities import PhysicsQuantities
from training.networks.preprocess import InputConfig, Preprocess, measure_scaling

TRAINED = [arch for arch in ARCHITECTURES if arch not in UNTRAINED]
TRANSFORMERS = ["transformer", "vicreg-transformer"]


def make_model(arch: str = "mlp", *, n_classes: int = 0, seed: int = 0, **options: object) -> Model:
    config = EncoderConfig(arch=arch, **options)  # type: ignore[arg-type]
    return build_model(config, measure_scaling(make_events()), n_classes, seed).eval()


def rotate(particles: torch.Tensor, angle: float) -> torch.Tensor:
    turned = particles.clone()
    phi = turned[:, :, 2] + angle
    turned[:, :, 2] = torch.where(turned[:, :, 0] > 0, torch.atan2(phi.sin(), phi.cos()), 0.0)
    return turned


@pytest.mark.parametrize("arch", TRAINED)
def test_embedding_is_blind_to_a_rotation_about_the_beam(arch: str) -> None:
    particles = torch.from_numpy(make_events())
    encoder = make_model(arch, keep=("mt", "m_ll")).encoder
    turned = encoder(rotate(particles, 2.0))
    assert torch.allclose(encoder(particles), turned, atol=1e-5)
    assert torch.allclose(encoder(particles), encoder(rotate_to_met(particles)), atol=1e-5)
    plain = make_model(arch, inputs=InputConfig.parse("plain")).encoder
    assert not torch.allclose(plain(particles), plain(rotate(particles, 2.0)), atol=1e-3)


@pytest.mark.parametrize("arch", ["mlp", "transformer"])
@pytest.mark.parametrize("dim", [1, 4, 17])
def test_embeddings_have_the_dimension_asked_for(arch: str, dim: int) -> None:
    model = make_model(arch, dim=dim, keep=("met", "n_jets"))
    particles = torch.from_numpy(make_events(5))
    assert model.encoder.learned(particles).shape == (5, dim)
    assert model.encoder(particles).shape == (5, dim + 2)
    assert model(particles).embedding.shape == (5, dim)
    assert model(particles).projection.shape == (5, 64)


@pytest.mark.parametrize(
    ("arch", "dim"), [("vae", 6), ("raw", 57), ("leading-pt", 6), ("quantities", 0)]
)
def test_some_architectures_have_a_dimension_of_their_own(arch: str, dim: int) -> None:
    config = EncoderConfig(arch=arch, dim=4, keep=("ht",))
    assert (config.learned_dim, config.embedding_dim) == (dim, dim + 1)
    assert make_model(arch, keep=("ht",)).encoder(with_empty_events(9)).shape == (9, dim + 1)


def test_vae_follows_the_paper() -> None:
    model = make_model("vae", inputs=InputConfig.parse("plain"))
    shapes = [tuple(v.shape) for v in model.encoder.parameters() if v.ndim == 2]
    assert shapes == [(32, 57), (16, 32), (6, 16)]
    assert model.decoder is not None
    assert [tuple(v.shape) for v in model.decoder.parameters() if v.ndim == 2] == [
        *((16, 3), (32, 16), (57, 32))
    ]


def test_a_vae_samples_with_the_noise_it_is_given_and_decodes_its_means_otherwise() -> None:
    model = make_model("vae", n_classes=3)
    particles = with_empty_events()
    outputs = model(particles)
    assert outputs.inputs is not None
    assert outputs.reconstruction is not None
    assert outputs.reconstruction.shape == outputs.inputs.shape == (40, 19, 5)
    assert torch.equal(outputs.inputs, model.encoder.preprocess(particles))
    assert torch.equal(outputs.reconstruction, model(particles).reconstruction)
    assert model.decoder is not None
    assert torch.equal(outputs.reconstruction, model.decoder(outputs.embedding[:, :3]))
    noise = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    sampled = outputs.embedding[:, :3] + torch.exp(outputs.embedding[:, 3:] / 2) * noise
    assert torch.equal(model(particles, noise).reconstruction, model.decoder(sampled))


def test_baselines_pass_on_what_is_in_the_file() -> None:
    particles = torch.from_numpy(make_events())
    assert torch.equal(make_model("raw").encoder(particles), particles.reshape(-1, 57))
    leading = particles[:, [0, 5, 6, 1, 2, 9], 0]
    assert torch.equal(make_model("leading-pt", n_classes=3).encoder(particles), leading)
    assert not list(make_model("raw", n_classes=3).parameters())
    names = ("mt", "ht")
    kept = make_model("quantities", keep=names).encoder(particles)
    assert torch.equal(kept, PhysicsQuantities(names)(particles))


@pytest.mark.parametrize(
    ("arch", "mask"),
    [*((arch, False) for arch in ARCHITECTURES), *((arch, True) for arch in TRANSFORMERS)],
)
def test_an_event_does_not_see_its_batch_and_an_empty_one_is_finite(arch: str, mask: bool) -> None:
    encoder = make_model(arch, mask_absent=mask, keep=("m_leptons",)).encoder
    particles = with_empty_events()
    together = encoder(particles)
    alone = torch.cat([encoder(event[None]) for event in particles])
    assert torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.isfinite(encoder(torch.zeros(3, 19, 3))).all()


def test_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (make_model(seed=seed, head="dino") for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    particles = torch.from_numpy(make_events())
    assert torch.equal(first(particles).projection, again(particles).projection)
    assert not torch.equal(first(particles).embedding, other(particles).embedding)
    more = make_model(seed=1, head="expander", n_classes=4, keep=("met",))
    assert torch.equal(first(particles).embedding, more(particles).embedding)


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_classifier_have_their_shapes(head: str) -> None:
    outputs = make_model(head=head, n_classes=5)(with_empty_events())
    width = {"mlp": 64, "dino": 64, "expander": 128, "none": 4}[head]
    assert outputs.projection.shape == (40, width)
    assert outputs.logits.shape == (40, 5)
    assert outputs.reconstruction is outputs.inputs is None
    assert make_model(head=head)(with_empty_events()).logits is None
    with pytest.raises(ParameterError, match="head must be one of mlp, dino"):
        make_head("linear", 4)


def test_dino_head_follows_the_paper() -> None:
    head = DinoHead(4)
    shapes = [tuple(p.shape) for p in head.parameters() if p.ndim == 2]
    assert sorted(shapes) == [(64, 64), (64, 256), (256, 4), (256, 256)]
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in head.modules())
    z = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    bottleneck = head.layers(z)
    norms = bottleneck.norm(dim=1)[:, None] * head.rows.norm(dim=1)[None, :]
    assert torch.allclose(head(z), bottleneck @ head.rows.T / norms, atol=1e-6)


def test_a_masked_met_leaves_the_other_angles() -> None:
    particles = rotate_to_met(torch.from_numpy(make_events()))
    preprocess = Preprocess(measure_scaling(make_events()))
    without_met = particles.clone()
    without_met[:, 0] = 0
    assert torch.allclose(preprocess(particles)[:, 1:], preprocess(without_met)[:, 1:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arch": "cnn"}, "arch must be one of mlp, transformer"),
        ({"dim": 0}, "dim must be at least 1; got 0"),
        ({"dim": 1025}, "dim must be at most 1024; got 1025"),
        ({"head": "linear"}, "head must be one of mlp, dino, expander, none; got 'linear'"),
        ({"keep": ("met", "met")}, "got 'met' twice"),
        ({"arch": "mlp", "heads": 2}, "heads and mask_absent must go with a transformer"),
        ({"arch": "quantities"}, "keep must name what arch quantities is made of, some of met, "),
        ({"arch": "vae", "mask_absent": True}, "got arch vae; leave them out"),
        ({"arch": "transformer", "heads": 5}, "heads must divide the token width 64; got 5; use"),
        ({"arch": "transformer", "heads": 0}, "heads must divide the token width 64; got 0; use"),
        ({"arch": "vicreg-transformer", "dim": 6}, "got 6; give --heads, one of 1, 2, 3, 6"),
        ({"arch": "vicreg-transformer", "dim": 6, "heads": 4}, "must divide the token width 6"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        EncoderConfig(**wrong)  # type: ignore[arg-type]


def test_a_negative_number_of_classes_is_refused() -> None:
    with pytest.raises(ParameterError, match="n_classes must be 0 or more; got -1"):
        make_model(n_classes=-1)
