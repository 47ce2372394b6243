"""An encoder's ONNX file on a GPU without TensorRT."""

from pathlib import Path

import onnxruntime as ort
import torch

from engines.artifact import load_onnx
from engines.engine import Engine
from engines.errors import EngineUnavailableError
from engines.gpu.torch_engine import TorchEngine
from engines.onnx_engine import OnnxEngine

__all__ = ["OnnxCudaEngine", "open_cuda_engine"]

_PROVIDER = "CUDAExecutionProvider"


def open_cuda_engine(path: str | Path, *, device: str = "cuda", max_batch: int = 4096) -> Engine:
    """Open an encoder on a GPU: with torch, or with ONNX Runtime where only it can use the GPU.

    torch needs no other package and replays CUDA graphs on a stream that goes before the windows'.

    Args:
        path: an ONNX file.
        device: cuda, or one of several such as cuda:1.
        max_batch: largest number of events computed at once.

    Raises:
        ArtifactError: if the file is missing, damaged, or has an operator that torch lacks here.
        EngineUnavailableError: if neither can use the GPU.
    """
    load_onnx(path)  # a wrong file is named before a missing GPU
    kind, _, number = device.partition(":")
    if kind == "cuda" and (number or "0").isdecimal():
        if int(number or "0") < torch.cuda.device_count():
            return TorchEngine(path, device=device, max_batch=max_batch)
        if not torch.cuda.device_count() and _PROVIDER in ort.get_available_providers():
            return OnnxCudaEngine(path, device=device, max_batch=max_batch)
    msg = (
        f"device must be cpu, or cuda with a driver and a GPU; got {device}, and "
        f"torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; use --device cpu"
    )
    raise EngineUnavailableError(msg)


class OnnxCudaEngine(OnnxEngine):
    """An ONNX Runtime session on its CUDA provider.

    Args:
        path: an ONNX file.
        device: cuda, or one of several such as cuda:1.
        max_batch: largest batch computed at once.

    Raises:
        ArtifactError: if the file is missing, damaged, or has other inputs and outputs.
        EngineUnavailableError: if the provider cannot be used.
    """

    def __init__(self, path: str | Path, *, device: str = "cuda", max_batch: int = 4096) -> None:
        """Load the graph, check its interface, and move it to the GPU."""
        super().__init__(path, max_batch=max_batch)
        number = device.partition(":")[2] or "0"
        if _PROVIDER in ort.get_available_providers():
            self._session.set_providers([_PROVIDER], [{"device_id": number}])
        if self._session.get_providers()[0] != _PROVIDER:
            self.close()
            msg = (
                f"ONNX Runtime must have its CUDA provider for {device}; got {ort.__version__} "
                "without; pip install onnxruntime-gpu, or use --device cpu"
            )
            raise EngineUnavailableError(msg)

    @property
    def runtime(self) -> str:
        """What computes, its version and where."""
        return f"ONNX Runtime {ort.__version__} on CUDA, fp32"
