"""The state of a training in one file, written whole or not at all.

It holds tensors, numbers, strings and containers of them, which `torch.load` reads without
unpickling any code.
"""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from engines.errors import ArtifactError

__all__ = ["load_checkpoint", "save_checkpoint"]

#: In the text of torch's writer, which reports a full disk as a RuntimeError.
_WRITER = ("pytorchstreamwriter", "inline_container", "unexpected pos", "write")
#: What torch raises on files that it did not write, or not completely.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError),
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state; a kill at any time leaves the older file or the new one, both complete.

    Raises:
        ArtifactError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as exc:
        temporary.unlink(missing_ok=True)
        reason, remedy = _write_fault(exc)
        msg = (
            f"cannot write the checkpoint {path} ({reason}); {remedy} and start again: training "
            "continues from the last epoch that was written"
        )
        raise ArtifactError(msg) from exc


def _write_fault(exc: OSError | RuntimeError) -> tuple[str, str]:
    """Return the reason, and what to do."""
    cause = exc if isinstance(exc, OSError) else exc.__context__
    if isinstance(cause, OSError):
        return cause.strerror or str(cause), "make space"
    text = str(exc)
    if any(word in text.lower() for word in _WRITER):
        return "the disk may be full", "make space"
    return text.partition("\n")[0] or type(exc).__name__, "mend that"


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the state on the CPU, or None if there is no file.

    Raises:
        ArtifactError: if the file is damaged or cannot be read.
    """
    if not path.exists():
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as exc:  # in whose text torch advises programmers
        reason = exc.strerror if isinstance(exc, OSError) else None
        fault = "is damaged; train anew with --fresh"
        if reason:
            fault = f"cannot be read ({reason}); make it readable"
        msg = f"the checkpoint {path} {fault}"
        raise ArtifactError(msg) from exc
    if not isinstance(state, dict):
        msg = (
            f"the checkpoint {path} must hold a training; it holds a {type(state).__name__}; "
            "train anew with --fresh"
        )
        raise ArtifactError(msg)
    return state
