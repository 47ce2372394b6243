"""What is exported computes what was trained, or is not written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines.artifact import EngineFacts, SampleFacts, fingerprint, load_onnx, read_facts
from engines.engine import open_engine
from engines.errors import ArtifactError, ParityError
from engines.event_files import read_events
from engines.events import EventRange
from engines.samples import sample_path
from engines.types import FloatArray
from training.encoders import Encoder, EncoderConfig, build_model
from training.evaluate import embed_events
from training.export import PARITY_TOLERANCE, check_output_path, export_encoder
from training.networks.physics_quantities import KEEP_NAMES
from training.networks.preprocess import InputConfig, measure_scaling

PLAIN_OPERATORS = {
    *("Add", "Sub", "Mul", "Div", "Log", "Sin", "Cos", "Greater", "Cast", "Gather", "Slice"),
    *("Unsqueeze", "Concat", "Reshape", "Gemm", "LeakyRelu", "MatMul", "Transpose", "Softmax"),
    *("LayerNormalization", "Relu", "Pad", "Not"),
    *("Pow", "ReduceMean", "Sqrt", "Reciprocal"),  # norm by the root mean square
    *("Abs", "GreaterOrEqual", "ReduceSum", "Sinh", "Where", "Clip"),  # physics quantities
}
CONFIGS = {
    "mlp": EncoderConfig(dim=3),
    "transformer": EncoderConfig("transformer", 3),
    "transformer, absent masked, two kept": EncoderConfig(
        "transformer", 3, mask_absent=True, keep=("mt", "n_jets")
    ),
    "vicreg-transformer, absent masked": EncoderConfig("vicreg-transformer", 4, mask_absent=True),
    "vae": EncoderConfig("vae", inputs=InputConfig.parse("plain")),
    "raw": EncoderConfig("raw"),
    "leading-pt, all kept": EncoderConfig("leading-pt", keep=KEEP_NAMES),
    "quantities, two": EncoderConfig("quantities", keep=("mt", "n_jets")),
}


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    """The SM, signal events with many leptons, the MET alone, and nothing."""
    many = read_events(EventRange(sample_path("A4l"), 0, 50))
    particles = np.concatenate((read_events(EventRange(sample_path("sm_cocktail"), 0, 250)), many))
    particles[2, 1:] = 0
    particles[5] = 0
    return particles


def make_encoder(config: EncoderConfig, particles: FloatArray) -> Encoder:
    encoder = build_model(config, measure_scaling(particles), 0, seed=0).encoder
    encoder.train()
    with torch.no_grad():
        encoder(torch.from_numpy(particles))  # moves the batch norms off their first state
    return encoder


@pytest.mark.parametrize("name", CONFIGS)
def test_exported_encoder_equals_torch_at_every_batch_size(
    name: str, particles: FloatArray, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    encoder = make_encoder(config, particles)
    dim = config.embedding_dim
    facts = EngineFacts(arch=config.arch, dim=dim, trained_on=(SampleFacts("a.h5", "id", 0, 9),))
    exported = export_encoder(encoder, tmp_path / "e.onnx", particles, facts)
    with open_engine(tmp_path / "e.onnx") as engine:
        assert engine.dim == dim
        assert engine.fingerprint == exported.fingerprint
        assert engine.facts.trained_on == facts.trained_on
        assert engine.facts.metrics == {"parity": exported.parity}
        for size in (1, 3, 31, 300):
            expected = embed_events(encoder, particles[:size])
            assert np.isfinite(expected).all()
            assert np.abs(engine.embed(particles[:size]) - expected).max() <= PARITY_TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == ["e.onnx"]
    check_graph(tmp_path / "e.onnx", dim)


def check_graph(path: Path, dim: int) -> None:
    """Plain operators, the agreed names and shapes, no trace of this machine."""
    model = load_onnx(path)
    assert {node.op_type for node in model.graph.node} <= PLAIN_OPERATORS
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    text = onnx.printer.to_text(model)
    assert "float[n,19,3] particles" in text
    assert f"float[n,{dim}] embeddings" in text
    assert "site-packages" not in text


def test_fingerprint_does_not_see_time_or_provenance(particles: FloatArray, tmp_path: Path) -> None:
    first, again = (
        export_encoder(
            make_encoder(CONFIGS["mlp"], particles), tmp_path / "e.onnx", particles[:9], facts
        )
        for facts in (EngineFacts(created="now"), EngineFacts(created="later"))
    )
    assert first.fingerprint == again.fingerprint
    model = load_onnx(tmp_path / "e.onnx")
    assert fingerprint(model) == first.fingerprint
    assert read_facts(model).created == "later"


class Doctored(torch.nn.Module):
    """Computes something else while it is being exported."""

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        offset = 1e-3 if torch.compiler.is_exporting() else 0.0
        return particles[:, :2, 0] + offset


def test_an_export_that_differs_is_refused_and_leaves_nothing_new(
    particles: FloatArray, tmp_path: Path
) -> None:
    (tmp_path / "old.onnx").write_bytes(b"older")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(ParityError, match=r"differs by 0\.00") as caught:
            export_encoder(Doctored(), tmp_path / name, particles, EngineFacts())
        assert caught.value.exit_code == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("d4.plan", "the output must end in .onnx"),
        ("missing/d4.onnx", r"missing/d4.onnx \(No such file or directory\)"),
        ("folder.onnx", "folder.onnx: it is a folder"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ArtifactError, match=said):
        check_output_path(tmp_path / name)
