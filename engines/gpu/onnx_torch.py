"""An exported ONNX graph, computed by torch: on a GPU, in another precision, or compiled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from engines.errors import ArtifactError
from engines.gpu.torch_operators import OPERATORS, Function, Node

__all__ = ["OnnxModule"]


@dataclass(frozen=True)
class _Step:
    """One node: its function, and the names of what goes in and comes out."""

    function: Function
    inputs: tuple[str, ...]
    output: str


class OnnxModule(nn.Module):
    """Computes a graph with one input and one output, node by node, in the graph's own precision.

    Nothing in it waits for the GPU, so a CUDA graph can be captured of it; torch can compile it.

    Args:
        model: an encoder as `train-encoder` exports it, or the same in another precision.

    Raises:
        ArtifactError: if the graph has an operator, or a use of one, that is not known here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Translate the graph; its constants become buffers."""
        super().__init__()
        graph = model.graph
        constants = _constants(graph)
        names = {t.name for t in graph.input} - set(constants)
        if len(names) != 1 or len(graph.output) != 1:
            msg = (
                f"the graph must have one input and one output; it has {len(names)} and "
                f"{len(graph.output)}; export the encoder again"
            )
            raise ArtifactError(msg)
        (self._input,), self._output = names, graph.output[0].name
        self._steps = [_step(node, constants) for node in graph.node if node.op_type != "Constant"]
        used = {name for step in self._steps for name in step.inputs} | {self._output}
        self._constants = {name: f"constant_{i}" for i, name in enumerate(constants)}
        self._constants = {n: buffer for n, buffer in self._constants.items() if n in used}
        for name, buffer in self._constants.items():
            self.register_buffer(buffer, constants[name])

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d), of raw kinematics, (n, 19, 3) float32, pT in GeV."""
        values: dict[str, Any] = {"": None, self._input: particles}
        for name, buffer in self._constants.items():
            values[name] = getattr(self, buffer)
        for step in self._steps:
            values[step.output] = step.function(*[values[name] for name in step.inputs])
        embeddings: torch.Tensor = values[self._output]
        return embeddings


def _constants(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            (value,) = node.attribute
            constants[node.output[0]] = _tensor(value.t)
    return constants


def _tensor(proto: onnx.TensorProto) -> torch.Tensor:
    array = numpy_helper.to_array(proto)
    if proto.data_type == onnx.TensorProto.BFLOAT16:  # numpy has no such type
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _step(proto: onnx.NodeProto, constants: Mapping[str, torch.Tensor]) -> _Step:
    operator = OPERATORS.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
    if operator is None:
        msg = (
            f"operator {proto.op_type} must be one that torch runs here, as those of train-encoder "
            "are; run the .onnx on the CPU"
        )
        raise ArtifactError(msg)
    inputs = tuple(proto.input)[: operator.n_tensors]
    return _Step(operator.build(Node(proto, constants)), inputs, proto.output[0])
