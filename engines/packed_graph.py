"""Rewrites the graph of a transformer so that it computes the tokens that it is told to.

The exported graph computes all 20 tokens of an event and masks absent objects, so that any runtime
can run it, one that compiles fixed shapes too. An engine that sorts events by their number of
objects (`engines.multiplicity`) rewrites it as it is loaded: the tokens become those that a second
input names, with the same numbers. The file and its fingerprint stay as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.multiplicity import N_TOKENS

if TYPE_CHECKING:
    import onnx

__all__ = ["TOKENS", "with_packing"]

#: The second input: which of the n x 20 tokens are computed, (n, length) int64, by event.
TOKENS = "packed_tokens"
#: The learned offset of each token, (20, size), as `training.networks.transformer` calls it.
_SLOTS = "backbone.slots"


@dataclass(frozen=True)
class _Found:
    """What a masked transformer's graph has.

    Attributes:
        tokens: name of all tokens before the first layer, (n, 20, size).
        present: name of whether a token is there, (n, 20) bool.
        size: numbers of a token.
        shapes: constants of shape (-1, 20, ...) that tokens are reshaped to, by name.
    """

    tokens: str
    present: str
    size: int
    shapes: dict[str, list[int]]


def with_packing(model: "onnx.ModelProto") -> "onnx.ModelProto | None":
    """Return the graph with the input `TOKENS` beside its own, or None for any other network.

    Args:
        model: as `train-encoder` exports it; unchanged.
    """
    from onnx import ModelProto, TensorProto, helper

    found = _find(model.graph)
    if found is None:
        return None
    packed = ModelProto()
    packed.CopyFrom(model)
    graph = packed.graph
    del graph.node[:]
    graph.node.extend(_rewritten(model.graph, found))
    graph.initializer.extend(_constants(found))
    tokens = helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["n", "length"])
    graph.input.append(tokens)
    return packed


def _find(graph: "onnx.GraphProto") -> _Found | None:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    slots = constants.get(_SLOTS)
    tokens = [node.output[0] for node in graph.node if _SLOTS in node.input]
    padded = {node.output[0] for node in graph.node if node.op_type == "Pad"}
    present = [n.input[0] for n in graph.node if n.op_type == "Not" and n.input[0] in padded]
    if slots is None or list(slots.dims[:1]) != [N_TOKENS] or len(tokens) != 1 or len(present) != 1:
        return None
    names = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    shapes = {n: numpy_helper.to_array(constants[n]).tolist() for n in names if n in constants}
    shapes = {name: shape for name, shape in shapes.items() if shape[:2] == [-1, N_TOKENS]}
    return _Found(tokens[0], present[0], slots.dims[1], shapes)


def _rewritten(graph: "onnx.GraphProto", found: _Found) -> Iterator["onnx.NodeProto"]:
    """Yield the nodes, those that choose tokens after those that make them."""
    from onnx import NodeProto, helper

    chosen = {name: f"packed.{name}" for name in (found.tokens, found.present)}
    for original in graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        names = [chosen.get(name, name) for name in original.input]
        if node.op_type == "Reshape" and names[1] in found.shapes:
            names[1] = f"packed.{names[1]}"
            del node.attribute[:]  # 0 then takes the number that is there
        node.input[:] = names
        yield node
        for name in chosen.keys() & set(original.output):
            flat = f"packed.flat.{name}"
            yield helper.make_node("Reshape", [name, f"{flat}.shape"], [flat])
            yield helper.make_node("Gather", [flat, TOKENS], [chosen[name]])


def _constants(found: _Found) -> Iterator["onnx.TensorProto"]:
    from onnx import numpy_helper

    shapes: dict[str, list[Any]] = {
        f"packed.flat.{found.tokens}.shape": [-1, found.size],
        f"packed.flat.{found.present}.shape": [-1],
        **{f"packed.{name}": [0, 0, *shape[2:]] for name, shape in found.shapes.items()},
    }
    for name, shape in shapes.items():
        yield numpy_helper.from_array(np.array(shape, dtype=np.int64), name)
