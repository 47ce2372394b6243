"""The network that a plan is compiled from, computed on the CPU with the numbers it asks for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from engines.errors import ArtifactError
from engines.plans.precision import Precision, round_as_tf32
from engines.types import FloatArray

if TYPE_CHECKING:
    import onnx

__all__ = ["Embed", "on_cpu"]

#: (n, 19, 3) float32 to (n, d) float32.
Embed: TypeAlias = Callable[[FloatArray], FloatArray]


@contextmanager
def on_cpu(
    network: "onnx.ModelProto", precision: Precision, threads: int
) -> Iterator[tuple[Embed, str]]:
    """Yield what computes the embeddings, and its name.

    Args:
        network: with its casts.
        precision: of the network; tf32, which CPUs do not have, is imitated.
        threads: CPU threads, within the context.
    """
    import torch

    kind = "the network before compilation"
    if precision == "tf32":
        network, kind = round_as_tf32(network), f"{kind}, its products' inputs rounded to 10 bits"
    embed, library = _computed(network)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield embed, f"{kind}, by {library} on the CPU,"
    finally:
        torch.set_num_threads(before)


def _computed(network: "onnx.ModelProto") -> tuple[Embed, str]:
    """Return what computes a network and its name; ONNX Runtime's CPU has no half precision."""
    import onnx
    import torch
    from onnx.reference import ReferenceEvaluator

    from engines.gpu.onnx_torch import OnnxModule

    try:
        module = OnnxModule(network)
    except ArtifactError:  # an operator that train-encoder never writes
        evaluator: Any = ReferenceEvaluator(network)
        name = network.graph.input[0].name
        return lambda x: np.asarray(evaluator.run(None, {name: x})[0]), f"onnx {onnx.__version__}"

    def embed(particles: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(particles)).numpy())

    return embed, f"torch {torch.__version__}"
