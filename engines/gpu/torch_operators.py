"""ONNX operators as torch functions: what encoders are made of, and little more.

Shapes and axes are read when a function is built, so that none waits for the GPU as it computes.

Source: https://onnx.ai/onnx/operators
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import torch
from torch.nn import functional

from engines.errors import ArtifactError

__all__ = ["OPERATORS", "Function", "Node", "Operator"]

Function: TypeAlias = Callable[..., Any]
_DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
}


@dataclass(frozen=True)
class Node:
    """An ONNX node.

    Attributes:
        proto: the node.
        constants: every constant of the graph by its name.
    """

    proto: onnx.NodeProto
    constants: Mapping[str, torch.Tensor]

    def attribute(self, name: str, default: Any) -> Any:  # noqa: ANN401 - ONNX holds any type
        """Return an attribute's value, or the default."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default

    def constant(self, position: int, default: Any = None) -> Any:  # noqa: ANN401
        """Return the number or numbers at an input, or the default where it is left out.

        Raises:
            ArtifactError: if the input is computed.
        """
        if position >= len(self.proto.input) or not self.proto.input[position]:
            return default
        if self.proto.input[position] not in self.constants:
            msg = (
                f"input {position} of {self.proto.op_type} must be constant for torch to run it; "
                "it is computed; run the .onnx on the CPU"
            )
            raise ArtifactError(msg)
        return self.constants[self.proto.input[position]].tolist()


@dataclass(frozen=True)
class Operator:
    """How a node becomes a function.

    Attributes:
        build: makes the function, which takes the first `n_tensors` inputs.
        n_tensors: how many inputs are tensors as it computes; None for all.
    """

    build: Callable[[Node], Function]
    n_tensors: int | None = None


def _plain(function: Function) -> Operator:
    return Operator(lambda _: function)


def _reduction(function: Function) -> Operator:
    def build(node: Node) -> Function:
        axes, keepdim = node.constant(1), bool(node.attribute("keepdims", 1))
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return lambda x: x
        return lambda x: function(x, axes or list(range(x.ndim)), keepdim=keepdim)

    return Operator(build, 1)


def _cast(node: Node) -> Function:
    to = node.attribute("to", None)
    if to not in _DTYPES:
        name = onnx.TensorProto.DataType.Name(to)
        msg = f"Cast must be to a type that torch computes here; got {name}; run it on the CPU"
        raise ArtifactError(msg)
    return lambda x: x.to(_DTYPES[to])


def _gather(node: Node) -> Function:
    axis, name = node.attribute("axis", 0), node.proto.input[1]
    index = node.constants.get(name)
    if index is not None and index.ndim == 0:
        # As a tensor it would be read back from the GPU at each call.
        return lambda x, _: x.select(axis, int(index))
    return lambda x, i: x[(slice(None),) * (axis % x.ndim) + (i,)]


def _gemm(node: Node) -> Function:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turn_a, turn_b = node.attribute("transA", 0), node.attribute("transB", 0)

    def gemm(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        a, b = a.T if turn_a else a, b.T if turn_b else b
        if c is None:
            return a @ b if alpha == 1 else alpha * (a @ b)
        return torch.addmm(c, a, b, alpha=alpha, beta=beta)

    return gemm


def _layer_norm(node: Node) -> Function:
    axis, epsilon = node.attribute("axis", -1), node.attribute("epsilon", 1e-5)

    def layer_norm(
        x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)

    return layer_norm


def _pad(node: Node) -> Function:
    pads, value = node.constant(1), node.constant(2, 0.0)
    axes = node.constant(3, list(range(len(pads) // 2)))
    mode = node.attribute("mode", b"constant")
    if mode != b"constant":
        msg = f"Pad must be with a constant; got mode {mode.decode()}; run the .onnx on the CPU"
        raise ArtifactError(msg)
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))

    def pad(x: torch.Tensor) -> torch.Tensor:
        widths = [w for a in reversed(range(x.ndim)) for w in (before.get(a, 0), after.get(a, 0))]
        return functional.pad(x, widths, value=value)

    return pad


def _reshape(node: Node) -> Function:
    shape, keep_zero = node.constant(1), node.attribute("allowzero", 0)

    def reshape(x: torch.Tensor) -> torch.Tensor:
        sizes = [x.shape[i] if s == 0 and not keep_zero else s for i, s in enumerate(shape)]
        return x.reshape(sizes)

    return reshape


def _slice(node: Node) -> Function:
    starts, ends = node.constant(1), node.constant(2)
    axes = node.constant(3, list(range(len(starts))))
    steps = node.constant(4, [1] * len(starts))
    cuts = {a: slice(*cut) for a, *cut in zip(axes, starts, ends, steps, strict=True)}

    def cut(x: torch.Tensor) -> torch.Tensor:
        by_axis = {axis % x.ndim: rows for axis, rows in cuts.items()}
        return x[tuple(by_axis.get(axis, slice(None)) for axis in range(x.ndim))]

    return cut


def _unsqueeze(node: Node) -> Function:
    axes = node.constant(1)

    def unsqueeze(x: torch.Tensor) -> torch.Tensor:
        rank = x.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _softmax(node: Node) -> Function:
    axis = node.attribute("axis", -1)
    return lambda x: torch.softmax(x, axis)


def _concat(node: Node) -> Function:
    axis = node.attribute("axis", 0)
    return lambda *parts: torch.cat(parts, dim=axis)


def _leaky_relu(node: Node) -> Function:
    slope = node.attribute("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, slope)


def _transpose(node: Node) -> Function:
    perm = node.attribute("perm", None)
    return lambda x: x.permute(perm or tuple(reversed(range(x.ndim))))


OPERATORS = {
    **{
        name: _plain(getattr(torch, name.lower()))
        for name in (
            *("Abs", "Add", "Ceil", "Cos", "Cosh", "Div", "Erf", "Exp", "Floor", "Log", "MatMul"),
            *("Mul", "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sign", "Sin", "Sinh", "Sqrt"),
            *("Sub", "Tanh", "Where"),
        )
    },
    "And": _plain(torch.logical_and),
    "Cast": Operator(_cast),
    "Clip": _plain(torch.clamp),
    "Concat": Operator(_concat),
    "Equal": _plain(torch.eq),
    "Gather": Operator(_gather),
    "Gemm": Operator(_gemm),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Identity": _plain(lambda x: x),
    "LayerNormalization": Operator(_layer_norm),
    "LeakyRelu": Operator(_leaky_relu),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Max": _plain(lambda *parts: functools.reduce(torch.maximum, parts)),
    "Min": _plain(lambda *parts: functools.reduce(torch.minimum, parts)),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pad": Operator(_pad, 1),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Reshape": Operator(_reshape, 1),
    "Slice": Operator(_slice, 1),
    "Softmax": Operator(_softmax),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, 1),
}
