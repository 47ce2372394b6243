"""Command: what reliable delivery costs, in rate and in time, beside plain PULL."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.load_options import add_consumer, at_least_zero
from engines.command import CommandParser, positive_float, positive_int, run_command

__all__ = ["main"]

_PROG = "bench-reliable"
_TEXT = """\
Runs stream-consumer as a process and sends it all it takes: plain PULL, PULL with --state,
--reliable, and --reliable with --spool, which take turns, with the files on a disk and on a file
system in memory: the difference of these two is what syncs cost. Every event must be counted once.
Then times acknowledgements at a fixed rate. The processes share this machine."""


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} --repeat 3 --json reliable.json")
    add_consumer(parser)
    add = parser.add_argument
    add("--batch", type=positive_int, nargs="+", default=[256, 1024], help="events in a message")
    add("--repeat", type=positive_int, default=3, help="rounds, in which everything takes its turn")
    add("--duration", type=positive_float, default=10.0, metavar="S", help="seconds of a run")
    add("--warm-up", type=at_least_zero, default=2.0, metavar="S", help="of it, not counted")
    add("--rate", type=positive_float, default=20_000.0, metavar="HZ", help="for acknowledgements")
    add("--disk", type=Path, default=Path(), metavar="DIR", help="a folder on the disk")
    add("--memory", type=Path, default=Path("/dev/shm"), metavar="DIR", help="and one in memory")  # noqa: S108 - a file system without a disk is wanted
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.reliability_measure import Settings, measure
    from bench.stamp import save_record
    from bench.stream_run import Served
    from engines.artifact import check_writable
    from engines.errors import ParameterError

    if options.json is not None:
        check_writable(options.json)
    if options.warm_up >= options.duration:
        msg = f"--warm-up must be shorter than --duration; got {options.warm_up:g} s"
        raise ParameterError(msg)
    settings = Settings(
        per_message=tuple(options.batch),
        duration_s=options.duration,
        warm_up_s=options.warm_up,
        repeat=options.repeat,
        latency_hz=options.rate,
        disk=options.disk,
        memory=options.memory,
    )
    results = measure(Served(options.engine, options.device, tuple(options.consumer)), settings)
    sys.stdout.write(_text(results, options.rate))
    if options.json is not None:
        said = {
            "engine": options.engine.name,
            "consumer": options.consumer,
            "per_message": options.batch,
            "duration_s": options.duration,
            "warm_up_s": options.warm_up,
            "repeat": options.repeat,
            "latency_hz": options.rate,
        }
        save_record(options.json, "reliable", said, results=results)


def _text(results: dict[str, Any], rate_hz: float) -> str:
    from bench.spread import spread_text

    lines = [
        f"{name}: {place['file_system']}, a sync of 64 KiB takes "
        f"{1e3 * place['sync_p50_s']:.2f} ms (p99 {1e3 * place['sync_p99_s']:.2f})"
        for name, place in results["places"].items()
    ]
    for size, ways in results["rates"].items():
        lines += [
            f"messages of {size} events",
            f"  {'':<28}{'thousand events/s':<22}{'% of pull':<20}CPU s/M",
            *(
                f"  {name:<28}{spread_text(found['events_hz'], 1e-3, 1):<22}"
                f"{spread_text(found['share'], 100, 0):<20}"
                f"{spread_text(found['cpu_s_per_million'], 1, 2)}"
                for name, found in ways.items()
            ),
            f"  send to acknowledgement at {rate_hz:.0f} events/s, ms: p50, p99, longest",
            *(
                f"  {name:<28}{1e3 * found['p50_s']:.2f}, {1e3 * found['p99_s']:.2f}, "
                f"{1e3 * found['max_s']:.2f}"
                for name, found in results["acknowledgements"][size].items()
            ),
        ]
    return "".join(f"{line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
