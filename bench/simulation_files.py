"""Where compared events come from: enough to find a file again, or to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from engines.event_files import EventFile

__all__ = ["describe_file", "describe_files"]

#: Attributes that `simulate-events` writes: what was asked for, of what, and what came of it.
_ATTRIBUTES = (
    *("generator", "seed", "request_id", "resimulate", "soft_events", "shuffled"),
    *("versions", "detector", "generator_settings", "soft_settings", "processes"),
)


def describe_files(files: dict[str, Sequence[Path]]) -> dict[str, list[dict[str, Any]]]:
    """Return the facts of files by their part in a comparison, JSON-able."""
    return {part: [describe_file(path) for path in paths] for part, paths in files.items()}


def describe_file(path: Path) -> dict[str, Any]:
    """Return name, content id, number of events and, if simulated here, how; JSON-able."""
    with EventFile(path) as file:
        facts = {"name": path.name, "content_id": file.content_id, "n_events": len(file)}
    with h5py.File(path) as raw:
        found = {name: _plain(raw.attrs[name]) for name in _ATTRIBUTES if name in raw.attrs}
    return facts | ({"simulation": found} if found else {})


def _plain(value: Any) -> Any:  # noqa: ANN401 - HDF5 holds any type
    """Return an attribute as JSON has it; texts that are JSON are taken apart.

    >>> _plain('{"n_soft": 2}'), _plain("pp at 13 TeV")
    ({'n_soft': 2}, 'pp at 13 TeV')
    """
    if isinstance(value, str):
        return json.loads(value) if value[:1] in ("[", "{") else value
    return value.tolist() if hasattr(value, "tolist") else str(value)
