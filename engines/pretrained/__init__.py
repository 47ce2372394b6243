"""Trained encoders with a calibrated reference each, ready to use. See PROVENANCE.md."""

from pathlib import Path

from engines.errors import ParameterError

__all__ = ["PRETRAINED", "pretrained_path"]

PRETRAINED = ("d4", "hybrid")


def pretrained_path(name: str) -> Path:
    """Return the path of a trained encoder; its reference stands beside it, with suffix `.ref`.

    Args:
        name: `d4` (4 learned numbers) or `hybrid` (the same kind of 4 and 4 physics quantities).

    Raises:
        ParameterError: if there is no such encoder.

    >>> pretrained_path("d4").with_suffix(".ref").name
    'd4.ref'
    """
    if name not in PRETRAINED:
        msg = f"encoder must be one of {', '.join(PRETRAINED)}; got {name!r}"
        raise ParameterError(msg)
    return Path(__file__).with_name(f"{name}.onnx")
