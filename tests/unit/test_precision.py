"""Which tensors of an fp32 graph become half, and which never do."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engines.artifact import fingerprint, load_onnx
from engines.errors import ArtifactError, ParameterError
from engines.gpu.onnx_torch import OnnxModule
from engines.plans.precision import Precision, round_as_tf32, with_precision
from engines.pretrained import pretrained_path
from engines.types import FloatArray

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
NODES: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
    ("Reshape", ["x", "rows"], "flat", {}),
    ("Gemm", ["flat", "w1", "b1"], "first", {}),
    ("Relu", ["first"], "active", {}),
    ("MatMul", ["active", "w2"], "product", {}),
    ("Add", ["product", "b2"], "second", {}),
    ("Add", ["flat", "second"], "residual", {}),
    ("LayerNormalization", ["residual", "scale"], "normed", {}),
    ("Reshape", ["second", "pairs"], "query", {}),
    ("Transpose", ["query"], "key", {"perm": [0, 2, 1]}),
    ("MatMul", ["query", "key"], "scores", {}),
    ("Softmax", ["scores"], "attention", {}),
    ("MatMul", ["attention", "query"], "mixed", {}),
    ("Reshape", ["mixed", "rows"], "joined", {}),
    ("Add", ["normed", "joined"], "sum", {}),
    ("MatMul", ["sum", "w3"], "y", {}),
)


def attention_model(size: float = 1.0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w1": (57, 8), "b1": (8,), "w2": (8, 57), "b2": (57,), "scale": (57,), "w3": (57, 3)}
    weights = {n: size * rng.normal(size=shape) / 10 for n, shape in shapes.items()}
    tensors = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    for name, shape in (("pairs", [0, 19, 3]), ("rows", [-1, 57])):
        tensors.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], out, **attrs) for op, ins, out, attrs in NODES],
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 19, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def run(model: onnx.ModelProto, x: FloatArray) -> FloatArray:
    with torch.inference_mode():
        return np.asarray(OnnxModule(model)(torch.from_numpy(x)).numpy())


@pytest.fixture(scope="module")
def x() -> FloatArray:
    return np.random.default_rng(1).normal(size=(50, 19, 3)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_half_and_norm_softmax_residuals_and_the_last_product_are_not(
    precision: Precision,
) -> None:
    types = element_types(with_precision(attention_model(), precision))
    half = {"first", "active", "product", "second", "query", "key", "scores", "mixed", "joined"}
    for _, _, output, _ in NODES:
        assert types[output] == (HALF[precision] if output in half else TensorProto.FLOAT), output


def test_weights_are_stored_half_and_each_tensor_is_cast_once() -> None:
    model = with_precision(attention_model(), "fp16")
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    fp16, fp32 = TensorProto.FLOAT16, TensorProto.FLOAT
    names = [f"{name}_fp16" for name in ("w1", "b1", "w2", "b2")]
    assert {name: stored[name] for name in names} == dict.fromkeys(names, fp16)
    assert (stored["w3"], stored["scale"]) == (fp32, fp32)
    assert not {"w1", "w2", "b1", "b2"} & set(stored)
    casts = Counter(n.input[0] for n in model.graph.node if n.op_type == "Cast")
    assert casts == Counter(["flat", "second", "scores", "attention", "joined"])


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("bf16", 5e-2)])
def test_half_network_computes_nearly_the_same(
    precision: Precision, bound: float, x: FloatArray
) -> None:
    model = attention_model()
    expected = run(model, x)
    got = run(with_precision(model, precision), x)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() / expected.std() < bound


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_fp32_and_tf32_need_no_casts_and_the_model_given_stays(precision: Precision) -> None:
    model = attention_model()
    before = fingerprint(model)
    assert fingerprint(with_precision(model, precision)) == before
    with_precision(model, "fp16")
    assert fingerprint(model) == before


def test_tf32_rounds_what_products_read(x: FloatArray) -> None:
    model = attention_model()
    expected, got = run(model, x), run(round_as_tf32(model), x)
    assert 0 < np.abs(got - expected).max() / expected.std() < 5e-3
    assert set(element_types(round_as_tf32(model)).values()) == {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    }


def test_physics_quantities_beside_the_learned_numbers_stay_fp32() -> None:
    model = load_onnx(pretrained_path("hybrid"))
    types = element_types(with_precision(model, "fp16"))
    half = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert {makers[name] for name in half if name in makers} == {"Gemm", "LeakyRelu"}
    assert (types["view"], types["getitem_9"]) == (TensorProto.FLOAT, TensorProto.FLOAT)


def test_encoder_with_nothing_to_make_half_is_refused() -> None:
    model = attention_model()
    del model.graph.node[1:]
    model.graph.node.append(helper.make_node("MatMul", ["flat", "w3"], ["y"]))
    with pytest.raises(ParameterError, match="must be fp32 for an encoder with fewer than two"):
        with_precision(model, "fp16")


def test_weight_beyond_fp16_is_refused_and_fits_bf16() -> None:
    model = attention_model(size=1e6)
    with pytest.raises(ArtifactError, match=r"at most 65504 for fp16; .* --precision bf16"):
        with_precision(model, "fp16")
    with_precision(model, "bf16")


def test_encoder_that_is_half_already_is_refused() -> None:
    model = with_precision(attention_model(), "fp16")
    with pytest.raises(ArtifactError, match="must be fp32 throughout; got FLOAT16 "):
        with_precision(model, "bf16")
