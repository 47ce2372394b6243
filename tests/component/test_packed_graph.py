"""A masked transformer computes what is there alone, and the same numbers; no other one changes."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from engines.artifact import EngineFacts, fingerprint, load_onnx
from engines.engine import open_engine
from engines.packed_graph import TOKENS, with_packing
from engines.pretrained import pretrained_path
from engines.types import FloatArray
from tests.support_training import make_events, with_empty_events
from training.encoders import EncoderConfig, build_model
from training.export import export_encoder
from training.networks.physics_quantities import KEEP_NAMES
from training.networks.preprocess import InputConfig, measure_scaling

MASKED = {
    "transformer": EncoderConfig("transformer", 3, mask_absent=True),
    "plain inputs, all kept": EncoderConfig(
        "transformer", 4, InputConfig.parse("plain"), mask_absent=True, keep=KEEP_NAMES
    ),
    "vicreg-transformer": EncoderConfig("vicreg-transformer", 4, mask_absent=True),
}
OTHERS = {
    "transformer": EncoderConfig("transformer", 3),
    "raw, all kept": EncoderConfig("raw", keep=KEEP_NAMES),
}


def export(config: EncoderConfig, path: Path) -> Path:
    encoder = build_model(config, measure_scaling(make_events()), 0, seed=0).encoder
    export_encoder(encoder, path, make_events(9), EngineFacts())
    return path


@pytest.fixture(scope="module", params=MASKED)
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(MASKED[request.param], tmp_path_factory.mktemp("masked") / "e.onnx")


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    events: FloatArray = with_empty_events(700).numpy()
    return events


def dense(path: Path, particles: FloatArray) -> FloatArray:
    """Return what the graph gives as it is in the file."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    embeddings: FloatArray = session.run(None, {"particles": particles})[0]
    return embeddings


@pytest.mark.parametrize("n", [1, 5, 6, 64, 700])
def test_the_engine_gives_what_the_whole_graph_gives(
    masked: Path, particles: FloatArray, n: int
) -> None:
    with open_engine(masked, max_batch=512) as engine:
        there = engine.embed(particles[:n])
        assert engine.fingerprint == fingerprint(load_onnx(masked))
    np.testing.assert_allclose(there, dense(masked, particles[:n]), rtol=0, atol=1e-5)


def test_tokens_that_are_not_named_are_not_computed(masked: Path, particles: FloatArray) -> None:
    packed = with_packing(load_onnx(masked))
    assert packed is not None
    onnx.checker.check_model(packed, full_check=True)
    session = ort.InferenceSession(packed.SerializeToString(), providers=["CPUExecutionProvider"])
    event = particles[7:8]  # all objects are there
    without_last = event.copy()
    without_last[0, 18] = 0
    tokens = np.arange(19)[None]
    given = {"particles": event, TOKENS: tokens}
    learned = session.run(None, given)[0][:, :3]
    expected = dense(masked, without_last)[:, :3]
    np.testing.assert_allclose(learned, expected, rtol=0, atol=1e-5)


def test_the_model_that_is_given_stays_as_it_is(masked: Path) -> None:
    model = load_onnx(masked)
    before = model.SerializeToString(deterministic=True)
    assert with_packing(model) is not None
    assert model.SerializeToString(deterministic=True) == before


def test_tensorrt_reads_both_forms(masked: Path, tensorrt: ModuleType) -> None:
    model = load_onnx(masked)
    packed = with_packing(model)
    assert packed is not None
    for form, n_inputs in ((model, 1), (packed, 2)):
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        network = tensorrt.Builder(logger).create_network(0)
        parser = tensorrt.OnnxParser(network, logger)
        assert parser.parse(form.SerializeToString())
        assert network.num_inputs == n_inputs


@pytest.fixture
def tensorrt() -> ModuleType:
    module: ModuleType = pytest.importorskip("tensorrt_rtx")
    return module


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_have_nothing_to_pack(name: str, tmp_path: Path) -> None:
    assert with_packing(load_onnx(export(OTHERS[name], tmp_path / "e.onnx"))) is None


def test_the_bundled_encoders_have_nothing_to_pack() -> None:
    assert with_packing(load_onnx(pretrained_path("d4"))) is None
