"""Bundled events, so that the demo and the tests need nothing else. See PROVENANCE.md."""

from pathlib import Path

from engines.errors import ParameterError

__all__ = ["SIGNALS", "sample_path"]

SIGNALS = ("A4l", "LQbtau", "h0tautau", "hpmtaunu")
_NAMES = ("sm_cocktail", "sm_rare", "sm_unseen", *SIGNALS)


def sample_path(name: str) -> Path:
    """Return the path of a bundled event file.

    Args:
        name: `sm_cocktail`, `sm_rare`, `sm_unseen`, or a signal: `A4l`, `LQbtau`, `h0tautau`,
            `hpmtaunu`.

    Raises:
        ParameterError: if there is no such sample.

    >>> sample_path("A4l").name
    'A4l.h5'
    """
    if name not in _NAMES:
        msg = f"sample must be one of {', '.join(_NAMES)}; got {name!r}"
        raise ParameterError(msg)
    return Path(__file__).with_name(f"{name}.h5")
