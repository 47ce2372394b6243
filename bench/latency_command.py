"""Command: latency of the stream under a fixed load, by quantile and by stage."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.load_options import add_consumer, add_feed, add_saving, at_least_zero
from engines.command import CommandParser, positive_float, positive_int, run_command

if TYPE_CHECKING:
    from bench.latency import Settings

__all__ = ["main"]

_COLUMNS = (
    *("load", "rate", "tests", "p50", "p90", "p99", "p99.9", "max", "late"),
    *("wire", "decode", "wait", "embed", "window"),
    *("CPU", "engine", "own", "ZeroMQ", "NPLM"),
)
_PROG = "bench-latency"
_TEXT = """\
Runs stream-consumer as a process, finds the rate that it takes, and sends at shares of that rate
from another process with a clock of its own: open loop, so that what waits counts. Each load runs
without tests and with tests back to back. The rates of the two processes share this machine."""


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} --repeat 3 --json out.json --plot out.png")
    add_consumer(parser)
    add = parser.add_argument
    add(
        "--loads",
        type=positive_float,
        nargs="+",
        default=[0.1, 0.5, 0.8, 0.95],
        metavar="SHARE",
        help="of the capacity",
    )
    add(
        "--capacity",
        type=at_least_zero,
        default=0.0,
        metavar="HZ",
        help="events a second that count as capacity; 0 measures it first",
    )
    add("--repeat", type=positive_int, default=1, help="runs of each kind, taking turns")
    add_saving(parser)
    add_feed(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.latency import Settings, measure
    from bench.stream_run import Served
    from engines.artifact import check_writable

    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    settings = Settings(
        loads=tuple(options.loads),
        capacity_hz=options.capacity,
        duration_s=options.duration,
        warm_up_s=options.warm_up,
        repeat=options.repeat,
        per_message=options.batch,
        dtype=options.dtype,
    )
    served = Served(options.engine, options.device, tuple(options.consumer))
    results = measure(served, settings)
    sys.stdout.write(_text(results))
    _save(options, settings, results)


def _save(options: argparse.Namespace, settings: "Settings", results: dict[str, Any]) -> None:
    from dataclasses import asdict

    from bench.stamp import save_record

    if options.json is not None:
        said = asdict(settings) | {
            "engine": options.engine.name,
            "device": options.device,
            "consumer": options.consumer,
        }
        save_record(options.json, "latency", said, results=results)
    if options.plot is not None:
        from bench.latency_plot import draw_latency

        draw_latency(results, options.plot)


def _text(results: dict[str, Any]) -> str:
    """Return the table; its last lines say what the columns are."""
    lines = [
        f"capacity {results['capacity_hz']:.0f} events/s with tests; {results['runtime']}",
        "".join(f"{title:>7}" for title in _COLUMNS),
        *("".join(f"{cell:>7}" for cell in _cells(point)) for point in results["points"]),
        "load: % of capacity; rate: thousand events/s; tests: % of the time in which one ran",
        "p50 to max: production to embedding, ms; late: p99 of what the sender itself was late, ms",
        "wire to window: mean by stage, ms; CPU: seconds per million events, and its parts",
    ]
    return "".join(f"{line}\n" for line in lines)


def _cells(point: dict[str, Any]) -> list[str]:
    latency, cpu = point["latency"], point["cpu_s_per_million"]
    milliseconds = [
        *(latency[key] for key in ("p50_s", "p90_s", "p99_s", "p999_s", "max_s")),
        point["sender"]["late_p99_s"]["median"],
        *(stage["mean_s"] for stage in point["stages"].values()),
    ]
    parts = (cpu["total"], cpu["engine"], cpu["own"], cpu["wire"], cpu["nplm"])
    shares = (100 * point["load"], point["rate_hz"] / 1e3, 100 * point["test_share"])
    return [
        *(f"{share:.0f}" for share in shares),
        *(_digits(1e3 * seconds) for seconds in milliseconds),
        *map(_digits, parts),
    ]


def _digits(value: float) -> str:
    """Return a number with three digits.

    >>> _digits(0.01234), _digits(12.34), _digits(1234.5)
    ('0.012', '12.3', '1234')
    """
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
