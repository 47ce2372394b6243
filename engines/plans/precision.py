"""An fp32 graph rewritten to half precision by explicit casts, for strongly typed networks.

What becomes half are the matrix products (Gemm, MatMul), their biases, the activations after them
and what only moves their numbers about. Everything else stays fp32: the preprocessing, LayerNorm
and norms built of ReduceMean and Sqrt, softmax with its scale and mask, the sums of residuals. So
does the last matrix product before the output, which is small and whose rounding would be that of
the embeddings themselves.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

from engines.errors import ArtifactError, ParameterError

if TYPE_CHECKING:
    import onnx

__all__ = ["PRECISIONS", "Precision", "round_as_tf32", "with_precision"]

Precision: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16")

_PRODUCTS = ("Gemm", "MatMul")
_ACTIVATIONS = ("LeakyRelu", "Relu", "Gelu", "Identity")
#: They move numbers about; only their first input is numbers, the others are shapes and indices.
_MOVES = ("Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Gather")


def with_precision(model: "onnx.ModelProto", precision: Precision) -> "onnx.ModelProto":
    """Return the graph that a strongly typed network is parsed from; the model is not changed.

    Args:
        model: fp32 throughout.
        precision: fp16 and bf16 insert casts; fp32 and tf32, which is a way to multiply fp32
            numbers, need none.

    Raises:
        ArtifactError: if the model is not fp32 throughout, or a weight does not fit fp16.
        ParameterError: if there is nothing to compute in half precision.
    """
    _check_fp32(model)
    if precision in ("fp32", "tf32"):
        return _copy(model)
    return _HalfGraph(model, precision).rewritten()


def round_as_tf32(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return the graph with the inputs of matrix products rounded to 10 bits, as TF32 rounds them.

    The casts go through fp16, whose mantissa TF32 has; numbers below 6e-5 lose more than on a GPU.
    """
    from onnx import TensorProto, helper

    model = _copy(model)
    nodes, rounded = [], set[str]()
    for node in model.graph.node:
        for index, name in enumerate(node.input if node.op_type in _PRODUCTS else ()):
            if index > 1:
                continue
            if name not in rounded:
                rounded.add(name)
                half, back = f"{name}_10_bits", f"{name}_tf32"
                nodes.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [half], [back], to=TensorProto.FLOAT))
            node.input[index] = f"{name}_tf32"
        nodes.append(node)
    _replace_nodes(model, nodes)
    return model


class _HalfGraph:
    """One rewriting: which tensors are half, and which casts there are already.

    Args:
        model: fp32 throughout.
        precision: fp16 or bf16.
    """

    def __init__(self, model: "onnx.ModelProto", precision: Precision) -> None:
        from onnx import TensorProto

        self._model, self._precision = _copy(model), precision
        self._to = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
        self._weights = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._last = _last_products(self._model)
        self._half, self._learned = set[str](), set[str]()
        self._nodes: list[onnx.NodeProto] = []
        self._cast = dict[tuple[str, int], str]()

    def rewritten(self) -> "onnx.ModelProto":
        """Return the rewritten model, checked."""
        from onnx import TensorProto

        for node in self._model.graph.node:
            is_product = self._is_product(node)
            if is_product or self._learned.intersection(node.input):
                self._learned.update(node.output)
            if self._belongs(node, is_product=is_product):
                for index in self._numbers(node):
                    if node.input[index] and node.input[index] not in self._half:
                        node.input[index] = self._as(node.input[index], self._to)
                self._half.update(node.output)
            else:
                for index, name in enumerate(node.input):
                    if name in self._half:
                        node.input[index] = self._as(name, TensorProto.FLOAT)
            self._nodes.append(node)
        if not self._half:
            msg = (
                f"precision must be fp32 for an encoder with fewer than two layers of matrix "
                f"products, as the last stays fp32; got {self._precision}; build it with "
                "--precision fp32"
            )
            raise ParameterError(msg)
        _replace_nodes(self._model, self._nodes)
        _check_types(self._model)
        return self._model

    def _is_product(self, node: "onnx.NodeProto") -> bool:
        """Whether it multiplies by weights, or multiplies what came from such products."""
        return node.op_type in _PRODUCTS and (
            node.input[1] in self._weights or bool(self._learned.intersection(node.input))
        )

    def _belongs(self, node: "onnx.NodeProto", *, is_product: bool) -> bool:
        """Whether the node computes in half precision."""
        if is_product:
            return node.output[0] not in self._last
        if node.op_type == "Add":  # a bias; a residual is the sum of two that are not weights
            kinds = [name in self._half for name in node.input]
            return any(kinds) and any(name in self._weights for name in node.input)
        return node.op_type in (*_ACTIVATIONS, *_MOVES) and node.input[0] in self._half

    def _numbers(self, node: "onnx.NodeProto") -> range:
        return range(1 if node.op_type in _MOVES else len(node.input))

    def _as(self, name: str, to: int) -> str:
        """Return the name of the tensor in another type: a weight is stored so, others are cast."""
        from onnx import helper

        if (name, to) not in self._cast:
            suffix = self._precision if to == self._to else "fp32"
            self._cast[name, to] = f"{name}_{suffix}"
            if name in self._weights:
                self._store(name, self._cast[name, to])
            else:
                self._nodes.append(helper.make_node("Cast", [name], [f"{name}_{suffix}"], to=to))
        return self._cast[name, to]

    def _store(self, name: str, as_name: str) -> None:
        import numpy as np
        import torch
        from onnx import helper, numpy_helper

        values = np.array(numpy_helper.to_array(self._weights[name]))
        dtype = torch.float16 if self._precision == "fp16" else torch.bfloat16
        half = torch.from_numpy(values).to(dtype)
        if not bool(half.isfinite().all()):
            msg = (
                f"weights must be at most 65504 for fp16; {name} reaches {np.abs(values).max():g}; "
                "build with --precision bf16"
            )
            raise ArtifactError(msg)
        content = half.contiguous().view(torch.int16).numpy().tobytes()
        self._model.graph.initializer.append(
            helper.make_tensor(as_name, self._to, values.shape, content, raw=True)
        )


def _last_products(model: "onnx.ModelProto") -> set[str]:
    """Return the outputs of the matrix products with no other between them and the output."""
    makers = {name: node for node in model.graph.node for name in node.output}
    last, seen = set[str](), set[str]()
    waiting = [value.name for value in model.graph.output]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        if makers[name].op_type in _PRODUCTS:
            last.add(name)
        else:
            waiting.extend(makers[name].input)
    return last


def _copy(model: "onnx.ModelProto") -> "onnx.ModelProto":
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _replace_nodes(model: "onnx.ModelProto", nodes: "list[onnx.NodeProto]") -> None:
    """Put the nodes in; drop the weights that none uses and the types of values, now untrue."""
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in weights]
    for field in ("node", "initializer", "value_info"):
        model.graph.ClearField(field)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)


def _types(model: "onnx.ModelProto") -> Iterator[tuple[str, int]]:
    """Yield the element type of every value that a node computes, and of every weight."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type


def _check_fp32(model: "onnx.ModelProto") -> None:
    from onnx import TensorProto

    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    other = next(
        (f"{TensorProto.DataType.Name(t)} {n}" for n, t in _types(model) if t in halves), ""
    )
    if other:
        msg = (
            f"the encoder must be fp32 throughout; got {other}; export it in fp32 and choose the "
            "precision here"
        )
        raise ArtifactError(msg)


def _check_types(model: "onnx.ModelProto") -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        msg = f"the encoder cannot be cast ({reason}); build it with --precision fp32"
        raise ArtifactError(msg) from exc
