"""Command: two embedders and a tester on machines of their own, beside a single consumer."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.load_options import add_feed, at_least_zero
from engines.command import CommandParser, positive_int, run_command
from engines.pretrained import pretrained_path

__all__ = ["main"]

_PROG = "bench-embedders"
_TEXT = """\
Makes network namespaces on one switch: a producer for each embedder, the embedders, and a tester.
Streams reliably through them, then through a single consumer in the tester's place, in turns, and
counts bytes on every link, events a second, and CPU seconds of the process that tests. Every event
must be counted once. Needs root and `ip`; the namespaces go when it ends."""


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"sudo {_PROG} --json embedders.json")
    add = parser.add_argument
    add(
        "--engine", type=Path, default=pretrained_path("d4"), help="encoder with its .ref beside it"
    )
    add("--embedders", type=positive_int, default=2, metavar="N", help="each with a producer")
    add("--rate", type=at_least_zero, default=0.0, metavar="HZ", help="of each; 0: all it takes")
    add("--repeat", type=positive_int, default=3, help="rounds, in which both take their turn")
    add("--plain", action="store_true", help="PUSH and PULL instead of --reliable")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    add_feed(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.embedders_run import Settings, measure
    from bench.stamp import save_record
    from bench.stream_run import Feed
    from engines.artifact import check_writable

    if options.json is not None:
        check_writable(options.json)
    feed = Feed(options.rate, options.duration, options.warm_up, options.batch, options.dtype)
    reliable = not options.plain
    settings = Settings(options.engine, options.embedders, feed, options.repeat, reliable)
    results = measure(settings)
    sys.stdout.write(_text(results))
    if options.json is not None:
        said = {
            "engine": options.engine.name,
            "embedders": options.embedders,
            "rate_hz": options.rate,
            "duration_s": options.duration,
            "per_message": options.batch,
            "dtype": options.dtype,
            "repeat": options.repeat,
            "reliable": reliable,
        }
        save_record(options.json, "embedders", said, results=results)


def _text(results: dict[str, Any]) -> str:
    from bench.spread import spread_text

    lines = []
    for name in ("embedders", "single"):
        found = results[name]
        size = found["bytes_an_event"]
        on = f", {spread_text(size['tester'], 1, 1)} on to the tester" if "tester" in size else ""
        once = all(run["each_event_once"] for run in found["windows"])
        tested = sum(run["tested"] for run in found["windows"])
        lines += [
            f"{name:<11}{spread_text(found['events_hz'], 1e-3, 1)} thousand events/s; "
            f"{spread_text(found['cpu_s_per_million'], 1, 2)} CPU s per million events where they "
            "are tested",
            f"           bytes an event on the wire: {spread_text(size['producer'], 1, 1)} from "
            f"the producers{on}",
            f"           {sum(found['events'])} events sent and counted; {tested} windows, "
            f"{'no event in two' if once else 'EVENTS LOST OR DOUBLED'}",
        ]
    return "".join(f"{line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
