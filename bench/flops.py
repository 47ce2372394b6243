"""How much arithmetic an encoder asks for, read off its graph."""

from math import prod
from typing import TYPE_CHECKING

from engines.errors import ArtifactError

if TYPE_CHECKING:
    import onnx

__all__ = ["flops_per_event"]

_PRODUCTS = ("Gemm", "MatMul")


def flops_per_event(model: "onnx.ModelProto") -> int:
    """Return the floating-point operations in the matrix products of one event, 2 per product.

    An engine that leaves absent objects out does fewer than the graph says.

    Args:
        model: an encoder with a dynamic number of events.

    Raises:
        ArtifactError: if shapes cannot be inferred.
    """
    shapes = _shapes_of_one_event(model)
    flops = 0
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        inner = shapes.get(node.input[0], ())
        transposed = any(one.name == "transA" and one.i for one in node.attribute)
        outer = shapes.get(node.output[0], ())
        if not inner or not outer or not prod(inner) * prod(outer):
            msg = f"the shape of {node.op_type} {node.name!r} must be known; it cannot be inferred"
            raise ArtifactError(msg)
        flops += 2 * prod(outer) * inner[-2 if transposed else -1]
    return flops


def _shapes_of_one_event(model: "onnx.ModelProto") -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a graph computes; a dimension that is not known is 0."""
    import onnx

    one = onnx.ModelProto()
    one.CopyFrom(model)
    one.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for output in one.graph.output:  # its number of events is dynamic
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    except onnx.shape_inference.InferenceError as exc:
        msg = f"the shapes of a graph must be known; they cannot be inferred ({exc})"
        raise ArtifactError(msg) from exc
    shapes = {value.name: tuple(value.dims) for value in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dimensions = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dimension.dim_value for dimension in dimensions)
    return shapes
