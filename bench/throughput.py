"""Command: how fast a part of the chain is, on the machine that runs this."""

import argparse
import sys
from collections.abc import Callable, Sequence

from bench import throughput_embed, throughput_nplm, throughput_stream
from engines.command import CommandParser, run_command

__all__ = ["main"]

_PROG = "bench-throughput"


def _parser() -> CommandParser:
    parser = CommandParser(
        _PROG,
        "Measures throughput and saves it with a stamp of the machine.",
        f"{_PROG} nplm --help",
    )
    parser.add_argument("part", choices=sorted(_PARTS), help="what to measure, named first")
    return parser


_PARTS: dict[str, tuple[Callable[[], CommandParser], Callable[[argparse.Namespace], None]]] = {
    "embed": (throughput_embed.parser, throughput_embed.run),
    "nplm": (throughput_nplm.parser, throughput_nplm.run),
    "stream": (throughput_stream.parser, throughput_stream.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in _PARTS:
        parser, run = _PARTS[argv[0]]
        return run_command(parser(), run, argv[1:])
    # Only --help, --version or a mistake can follow: each part has options of its own.
    _parser().parse(argv)
    return 2


if __name__ == "__main__":
    sys.exit(main())
