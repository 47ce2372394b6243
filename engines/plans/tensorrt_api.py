"""TensorRT, whichever of its two packages is installed: `tensorrt` 10 and 11, or `tensorrt_rtx`.

Both have one API but for what the builder can be asked; a plan runs only with the package, and the
version of it, that built it.
"""

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any

from engines.errors import MissingPackageError, ParameterError

__all__ = ["FLAVOURS", "TensorRT", "gpu_capability", "load_tensorrt"]

FLAVOURS = ("tensorrt", "tensorrt_rtx")
#: Before it, networks could not be strongly typed and bf16 was not known.
_OLDEST = {"tensorrt": 10, "tensorrt_rtx": 1}
_CAPABILITY_ATTRIBUTES = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class TensorRT:
    """An importable TensorRT.

    Attributes:
        module: the package; it has no types.
        flavour: tensorrt or tensorrt_rtx.
        version: of the package, all its numbers.
    """

    module: Any
    flavour: str
    version: str

    @property
    def name(self) -> str:
        """Flavour and version, for people."""
        return f"{self.flavour} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it compiles ahead of time, for GPUs that need not be there."""
        return self.flavour == "tensorrt_rtx"


def load_tensorrt(flavour: str | None = None) -> TensorRT:
    """Import TensorRT.

    Args:
        flavour: which package; None takes tensorrt, or else tensorrt_rtx.

    Raises:
        ParameterError: if there is no such flavour.
        MissingPackageError: if it cannot be imported or is too old.
    """
    if flavour is not None and flavour not in FLAVOURS:
        msg = f"the flavour of TensorRT must be one of {', '.join(FLAVOURS)}; got {flavour!r}"
        raise ParameterError(msg)
    reasons = []
    for name in FLAVOURS if flavour is None else (flavour,):
        found = _import(name)
        if isinstance(found, TensorRT):
            return found
        reasons.append(found)
    msg = (
        f"TensorRT must be installed for plans; got {' and '.join(reasons)}; "
        "pip install 'nplm-stream[gpu]' (tensorrt, for data-centre GPUs) or "
        "pip install 'nplm-stream[gpu-rtx]' (tensorrt-rtx, for RTX GPUs)"
    )
    raise MissingPackageError(msg)


def _import(name: str) -> TensorRT | str:
    """Return the package, or why there is none."""
    try:
        module = importlib.import_module(name)
    except Exception as exc:  # noqa: BLE001 - its placeholder on PyPI raises what it likes
        return f"no {name} ({str(exc).strip().partition(chr(10))[0]})"
    version = getattr(module, "__version__", "")
    if not hasattr(module, "Builder") or not version:
        return f"{name} without a builder"
    if int(version.partition(".")[0]) < _OLDEST[name]:
        return f"{name} {version}, which is older than {_OLDEST[name]}"
    return TensorRT(module, name, version)


def gpu_capability() -> str | None:
    """Return the compute capability of the first GPU, such as 8.9; None where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, parts = ctypes.c_int(), []
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    for attribute in _CAPABILITY_ATTRIBUTES:
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return None
        parts.append(str(value.value))
    return ".".join(parts)
