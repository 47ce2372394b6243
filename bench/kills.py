"""Command: kills the consumer, the producer or both at random instants, and counts every event."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, count, positive_float, positive_int, run_command
from engines.pretrained import pretrained_path
from engines.samples import sample_path

__all__ = ["main"]

#: Who is killed in turn, and the processes that there are.
_VICTIMS = {
    "consumer": ("consumer",),
    "producer": ("producer",),
    "both": ("consumer", "producer"),
    "roles": ("embedder", "tester", "producer"),
}
_DESCRIPTION = """\
Streams a file with --reliable from stream-producer to stream-consumer, once undisturbed and once
with kill -9 at random instants under load, and compares: are all events in windows, each in one,
and is every window's content the same? Half of the instants, by chance, are counted from the last
kill, up to a start's time and --longest after it, so that they fall into loading, recovery and what
follows; the others, up to --longest, from when the stream goes on.
`--victim roles` streams through an embedder to a tester, and kills all three in turn."""


def _parser() -> CommandParser:
    parser = CommandParser("bench-kills", _DESCRIPTION, "bench-kills --kills 200 --json kills.json")
    add = parser.add_argument
    add(
        "--engine", type=Path, default=pretrained_path("d4"), help="encoder with its .ref beside it"
    )
    add("--events", type=Path, default=sample_path("sm_cocktail"), help="file to replay, in a loop")
    add("--victim", choices=_VICTIMS, default="consumer", help="who is killed")
    add("--kills", type=positive_int, default=20, help="how often")
    add("--longest", type=positive_float, default=6.0, metavar="S", help="a life at work, at most")
    add("--rate", type=positive_float, default=20_000.0, metavar="HZ", help="events a second")
    add("--spool", action="store_true", help="the producer keeps messages on disk too")
    add("--seed", type=count, default=0, help="of the instants")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.killing import measure
    from bench.stamp import save_record
    from engines.artifact import check_writable

    if options.json is not None:
        check_writable(options.json)
    results, text = measure(options, _VICTIMS[options.victim])
    sys.stdout.write(text)
    if options.json is not None:
        settings = {
            "victim": options.victim,
            "kills": options.kills,
            "longest_s": options.longest,
            "rate_hz": options.rate,
            "spool": options.spool,
            "seed": options.seed,
        }
        save_record(options.json, "kills", settings, results=results)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
