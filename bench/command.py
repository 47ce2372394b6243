"""Command: every benchmark under one name, `bench latency` for `bench-latency`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from engines.command import CommandParser

__all__ = ["main"]

_MODULES = {
    "compare": "bench.compare",
    "fuzz": "bench.fuzz",
    "embedders": "bench.embedders",
    "hostile": "bench.hostile",
    "kills": "bench.kills",
    "latency": "bench.latency_command",
    "null": "bench.null",
    "physics": "bench.physics",
    "power": "bench.power",
    "reliable": "bench.reliability",
    "simulation": "bench.simulation",
    "soak": "bench.soak",
    "throughput": "bench.throughput",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in _MODULES:
        code: int = import_module(_MODULES[argv[0]]).main(argv[1:])
        return code
    parser = CommandParser(
        "bench", "Measures speed, honesty and physics.", "bench compare before.json after.json"
    )
    parser.add_argument("benchmark", choices=sorted(_MODULES), help="what to do, named first")
    # Only --help, --version or a mistake can follow: each benchmark has options of its own.
    parser.parse(argv)
    return 2


if __name__ == "__main__":
    sys.exit(main())
