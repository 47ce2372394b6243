"""Benchmarks as processes, several at once: most of their time is each one's start."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.processes import start

__all__ = ["run_at_once"]

_END_S = 240.0


def run_at_once(
    folder: Path, commands: Mapping[str, Sequence[object]]
) -> dict[str, tuple[dict[str, Any], str]]:
    """Run modules with `--json`, given by any names; return each one's record and stdout."""
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(start(*words, "--json", folder / f"{name}.json"))
            for name, words in commands.items()
        }
        said = {name: process.finish(_END_S) for name, process in processes.items()}
    return {name: (json.loads((folder / f"{name}.json").read_text()), said[name]) for name in said}
