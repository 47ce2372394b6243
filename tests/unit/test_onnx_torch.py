"""torch computes an exported graph as ONNX Runtime does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from engines.artifact import load_onnx
from engines.engine import open_engine
from engines.errors import ArtifactError
from engines.event_files import read_events
from engines.events import EventRange
from engines.gpu.onnx_torch import OnnxModule
from engines.pretrained import pretrained_path
from engines.samples import sample_path
from engines.types import FloatArray

TOLERANCE = 1e-5
HEAD = '<ir_version: 9, opset_import: ["" : 18]>'


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    """Events of the SM and with many leptons, and nothing at all."""
    many = read_events(EventRange(sample_path("A4l"), 0, 100))
    cocktail = read_events(EventRange(sample_path("sm_cocktail"), 0, 300))
    return np.concatenate((cocktail, many, np.zeros((1, 19, 3), dtype=np.float32)))


@pytest.fixture(scope="module", params=["d4", "hybrid"])
def path(request: pytest.FixtureRequest) -> Path:
    return pretrained_path(request.param)


def test_embeddings_are_those_of_onnx_runtime(path: Path, particles: FloatArray) -> None:
    module = OnnxModule(load_onnx(path))
    with open_engine(path) as engine, torch.inference_mode():
        for size in (1, 3, len(particles)):
            expected = engine.embed(particles[:size])
            there = module(torch.from_numpy(particles[:size])).numpy()
            np.testing.assert_allclose(there, expected, rtol=0, atol=TOLERANCE)


def test_nothing_is_read_back_as_it_computes(path: Path) -> None:
    """A meta tensor has no values: whatever reads one fails, as it would in a CUDA graph."""
    module = OnnxModule(load_onnx(path)).to("meta")
    embeddings = module(torch.empty((5, 19, 3), device="meta"))
    assert embeddings.shape[0] == 5


def test_torch_traces_it_whole(particles: FloatArray) -> None:
    module = OnnxModule(load_onnx(pretrained_path("d4")))
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    events = torch.from_numpy(particles[:8])
    with torch.inference_mode():
        torch.testing.assert_close(compiled(events), module(events))


# Uses that the exports have none of, each a graph of its own: x (n, 3, 4) to y.
BODIES = {
    "reshape with 0 and -1": "s = Constant<value = int64[2] {0, -1}>() y = Reshape(x, s)",
    "slice with steps from the back": (
        "a = Constant<value = int64[1] {-4}>() b = Constant<value = int64[1] {9223372036854775807}>"
        "() c = Constant<value = int64[1] {-1}>() d = Constant<value = int64[1] {2}>() "
        "y = Slice(x, a, b, c, d)"
    ),
    "pad of one axis": (
        "p = Constant<value = int64[2] {1, 2}>() v = Constant<value = float {7.0}>() "
        "a = Constant<value = int64[1] {1}>() y = Pad(x, p, v, a)"
    ),
    "unsqueeze of two axes": "a = Constant<value = int64[2] {-1, 1}>() y = Unsqueeze(x, a)",
    "reduction of everything": "y = ReduceMax<keepdims = 1>(x)",
    "reduction of nothing": "y = ReduceSum<noop_with_empty_axes = 1>(x)",
    "gather from the back": "i = Constant<value = int64[2] {-1, 0}>() y = Gather<axis = -2>(x, i)",
    "clip from above only": "v = Constant<value = float {0.5}>() y = Clip(x, , v)",
    "gemm with factors": (
        "s = Constant<value = int64[2] {-1, 12}>() m = Reshape(x, s) "
        "y = Gemm<alpha = 0.5, beta = 2.0, transA = 1>(m, m, m_0) "
        "m_0 = Constant<value = float[1] {3.0}>()"
    ),
    "norm over two axes": (
        "o = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() "
        "y = LayerNormalization<axis = -1, epsilon = 0.01>(x, o)"
    ),
    "softmax over the middle": "y = Softmax<axis = 1>(x)",
    "transpose of all axes": "y = Transpose(x)",
    "largest and smallest": "a = Neg(x) b = Max(a, x) c = Sin(x) y = Min(b, c, x)",
}


def model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} g (float[n,3,4] x) => (float[] y) {{ {body} }}")


@pytest.mark.parametrize("name", BODIES)
def test_uses_beyond_the_exports_are_those_of_onnx_runtime(name: str) -> None:
    lines = BODIES[name]
    if "m_0" in lines:  # the parser wants a constant before its use
        use, _, constant = lines.rpartition(" m_0")
        lines = f"m_0{constant} {use}"
    graph = model(lines)
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        OnnxModule(graph)(torch.from_numpy(x)).numpy(),
        session.run(None, {"x": x})[0],
        atol=TOLERANCE,
    )


def test_bfloat16_constants_keep_their_type() -> None:
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [1], [1.5])
    graph = model("h = Cast<to = 16>(x) g = Mul(h, w) y = Cast<to = 1>(g)")
    graph.graph.initializer.append(weights)
    module = OnnxModule(graph)
    assert [buffer.dtype for buffer in module.buffers()] == [torch.bfloat16]
    assert module(torch.full((1, 3, 4), 2.0)).unique().tolist() == [3.0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y = Gelu(x)", r"operator Gelu must be one that torch runs here.*run the \.onnx on"),
        ("s = Shape(x) y = Reshape(x, s)", "operator Shape must be"),
        ("y = Reshape(x, x)", "input 1 of Reshape must be constant.*it is computed"),
        (
            "p = Constant<value = int64[6] {0,0,1,0,0,1}>() y = Pad<mode = 'edge'>(x, p)",
            "mode edge",
        ),
        ("y = Cast<to = 12>(x)", "Cast must be to a type that torch computes here; got UINT32"),
    ],
)
def test_what_torch_cannot_run_is_said_in_a_sentence(body: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        OnnxModule(model(body.replace("'", '"')))
