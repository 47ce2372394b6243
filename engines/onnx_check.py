"""What an encoder's graph must not do, checked before a runtime builds it.

A graph may name other files for its weights, turn for ever, or ask for more memory than there is;
ONNX Runtime and TensorRT would try. None of this is in what `train-encoder` exports.
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engines.errors import ArtifactError
from engines.first_line import first_line

if TYPE_CHECKING:
    import onnx

__all__ = ["check_graph"]

#: They may go on for ever; an encoder's cost must be that of its events.
_ENDLESS = ("Loop",)
#: A graph within a node holds others, each in two branches: their number doubles with the depth.
_MAX_SUBGRAPHS = 256
#: Of a tensor whose size does not depend on the events.
_MAX_TENSOR_BYTES = 2**28


def check_graph(model: "onnx.ModelProto", path: object) -> None:
    """Refuse a model that reads other files, may not end, or needs memory without measure.

    Args:
        model: as it was read; its weights are where it says.
        path: of its file, for the error's text.

    Raises:
        ArtifactError: in one sentence.
    """
    if model.functions:
        # Runtimes put them in the place of nodes later, unseen by all that is checked here.
        msg = f"engine {path} must be a graph without functions of its own; got "
        msg += f"{len(model.functions)}; export it again"
        raise ArtifactError(msg)
    graphs = [model.graph]
    for graph in graphs:  # which grows as subgraphs are found
        nodes = list(graph.node)
        while nodes:
            node = nodes.pop()
            if node.op_type in _ENDLESS:
                msg = f"engine {path} must end for any event; got a {node.op_type}; export it again"
                raise ArtifactError(msg)
            graphs.extend(_subgraphs(node))
        if len(graphs) > _MAX_SUBGRAPHS:
            msg = f"engine {path} must hold at most {_MAX_SUBGRAPHS} graphs; export it again"
            raise ArtifactError(msg)
        _check_tensors(_tensors(graph), path)
        _check_declared(graph, path)
    _check_sizes(model, path)


def _subgraphs(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node)


def _attribute_tensors(node: "onnx.NodeProto") -> Iterator["onnx.TensorProto"]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)


def _check_tensors(tensors: Iterable["onnx.TensorProto"], path: object) -> None:
    for tensor in tensors:
        if tensor.external_data or tensor.data_location:
            msg = f"engine {path} must hold its weights itself; they lie in another file; export it"
            msg += " in one piece"
            raise ArtifactError(msg)
        if any(size < 0 for size in tensor.dims):
            msg = f"engine {path} must hold tensors of sizes from 0 up; got {list(tensor.dims)}"
            msg += "; export it again"
            raise ArtifactError(msg)


def _check_declared(graph: "onnx.GraphProto", path: object) -> None:
    """Refuse negative sizes: ONNX Runtime 1.32 ends the whole process over some of them."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if any(size < 0 for size in sizes):
            msg = f"engine {path} must declare sizes from 0 up; got {sizes}; export it again"
            raise ArtifactError(msg)


def _check_sizes(model: "onnx.ModelProto", path: object) -> None:
    """Refuse a tensor that is huge whatever the events are, by the shapes that follow from all."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except Exception as exc:
        msg = f"engine {path} must have shapes that fit each other ({first_line(exc)}); export it"
        msg += " again"
        raise ArtifactError(msg) from exc
    for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        sizes: list[Any] = [size.dim_value for size in value.type.tensor_type.shape.dim]
        largest = math.prod(max(1, size) for size in sizes) * 4
        if min(sizes, default=0) < 0 or largest > _MAX_TENSOR_BYTES:
            msg = f"engine {path} must compute tensors of at most {_MAX_TENSOR_BYTES} bytes"
            msg += f"; got one of shape {sizes}; export it again"
            raise ArtifactError(msg)
