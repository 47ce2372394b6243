"""The transformers: the paper's shapes, and packing against masking."""

import pytest
import torch

from tests.support_training import make_events, with_empty_events
from training.encoders import EncoderConfig, Model, Outputs, build_model
from training.networks.packing import PackedTokens
from training.networks.preprocess import measure_scaling
from training.networks.transformer import VICREG_HEADS, TransformerEncoder

TRANSFORMERS = ["transformer", "vicreg-transformer"]


def make_model(arch: str = "transformer", **options: object) -> Model:
    config = EncoderConfig(arch=arch, **options)  # type: ignore[arg-type]
    return build_model(config, measure_scaling(make_events()), 0, seed=0).eval()


@pytest.mark.parametrize("dim", VICREG_HEADS)
def test_vicreg_transformer_has_tokens_of_the_dimension(dim: int) -> None:
    backbone = make_model("vicreg-transformer", dim=dim).encoder.backbone
    assert isinstance(backbone, TransformerEncoder)
    assert backbone.slots.shape == (20, dim)
    assert len(backbone.layers) == 4
    assert {module.heads for module in backbone.modules() if hasattr(module, "heads")} == {
        VICREG_HEADS[dim]
    }


def test_a_token_of_two_numbers_carries_more_than_signs() -> None:
    encoder = make_model("vicreg-transformer", dim=2).encoder
    particles = torch.from_numpy(make_events(200))
    harder = particles.clone()
    harder[:, :, 0] *= 1.02
    embeddings = encoder(particles).detach()
    moved = (encoder(harder).detach() - embeddings).norm(dim=1).median()
    assert moved > 0.01 * embeddings.std(dim=0).norm()


def test_transformer_follows_the_paper() -> None:
    backbone = make_model("transformer").encoder.backbone
    shapes = {name: tuple(value.shape) for name, value in backbone.named_parameters()}
    assert shapes["slots"] == (20, 64)
    assert shapes["layers.3.feed.0.weight"] == (256, 64)
    assert "layers.4.feed.0.weight" not in shapes


def outputs_and_gradients(model: Model, particles: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    outputs: Outputs = model(particles)
    (outputs.projection.square().sum() + outputs.embedding.sin().sum()).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return [outputs.embedding, *gradients]


@pytest.mark.parametrize("arch", TRANSFORMERS)
def test_packing_equals_masking_in_values_and_gradients(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(arch, dim=8, mask_absent=True).double()
    particles = with_empty_events().double()
    packed = outputs_and_gradients(model, particles)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    masked = outputs_and_gradients(model, particles)
    for a, b in zip(packed, masked, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    unmasked = make_model(arch, dim=8).double()
    assert not torch.allclose(unmasked(particles).embedding, packed[0], atol=1e-3)


def test_packing_equals_masking_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("transformer", mask_absent=True)
    particles = with_empty_events()
    exact = model(particles).embedding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed = model(particles).embedding
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
        masked = model(particles).embedding
    assert (packed - exact).abs().max() < 0.03
    assert (masked - exact).abs().max() < 0.03


def test_a_compiled_transformer_is_one_graph_of_the_same_numbers() -> None:
    model = make_model("transformer", mask_absent=True)
    particles = with_empty_events()
    compiled = torch.compile(model.encoder, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(particles), model.encoder(particles), atol=1e-5)


def test_packing_sorts_events_and_wastes_no_token() -> None:
    present = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 1, 1], [1, 0, 0, 1]]).bool()
    layout = PackedTokens.of(present)
    assert layout.indices.tolist() == [4, 12, 15, 0, 1, 2, 8, 10, 11]
    assert layout.groups == ((1, 1), (1, 2), (2, 3))
    assert layout.starts.tolist() == [0, 1, 3, 6]
    assert layout.rank.tolist() == [2, 0, 3, 1]


def test_absent_objects_are_as_if_they_had_never_been() -> None:
    backbone = make_model("transformer", mask_absent=True).encoder.backbone
    inputs = torch.randn(6, 19, 5, generator=torch.Generator().manual_seed(0))
    present = torch.from_numpy(make_events(6)[:, :, 0] > 0)
    noise = inputs + 9 * ~present[:, :, None]
    assert torch.equal(backbone(inputs, present), backbone(noise, present))
