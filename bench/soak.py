"""Command: a long run at a steady load, and whether anything grows, slows or gets lost in it."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from bench.load_options import add_consumer, add_saving, at_least_zero
from bench.options import share
from engines.command import CommandParser, positive_float, positive_int, run_command

__all__ = ["main"]

_PROG = "bench-soak"
_TEXT = """\
Runs stream-consumer with its default options, tests and metrics as in service, and sends it a share
of what it can take, open loop. Samples its memory, file descriptors, threads, CPU, latency and
counts throughout, and fits a line to its resident memory after a warm-up."""
_MINUTE_S = 60.0


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} --minutes 20 --json soak.json --plot soak.png")
    add_consumer(parser)
    add = parser.add_argument
    add("--minutes", type=positive_float, default=20.0, help="how long")
    add("--warm-up", type=at_least_zero, default=3.0, metavar="MINUTES", help="of it, not judged")
    add("--load", type=share, default=0.5, help="of the capacity, which is measured first")
    add("--rate", type=at_least_zero, default=0.0, metavar="HZ", help="events/s instead")
    add("--every", type=positive_float, default=2.0, metavar="S", help="between samples, at least")
    add("--batch", type=positive_int, default=256, help="events in a message")
    add("--reliable", action="store_true", help="acknowledged, on the disk")
    add_saving(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.soak_run import Settings, soak
    from bench.stream_run import Served
    from engines.artifact import check_writable
    from engines.errors import ParameterError

    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    if options.warm_up >= options.minutes:
        msg = f"--warm-up must be shorter than --minutes; got {options.warm_up:g}; run longer"
        raise ParameterError(msg)
    settings = Settings(
        duration_s=_MINUTE_S * options.minutes,
        warm_up_s=_MINUTE_S * options.warm_up,
        load=options.load,
        rate_hz=options.rate,
        every_s=options.every,
        per_message=options.batch,
        reliable=options.reliable,
    )
    served = Served(options.engine, options.device, tuple(options.consumer))
    results = soak(served, settings)
    sys.stdout.write(_verdict(results))
    if options.plot is not None:
        from bench.soak_plot import draw_soak

        draw_soak(results, settings.warm_up_s, options.plot)
    if options.json is not None:
        from dataclasses import asdict

        from bench.stamp import save_record

        said = {"engine": options.engine.name, "consumer": options.consumer, **asdict(settings)}
        save_record(options.json, "soak", said, results=results)


def _verdict(results: dict[str, Any]) -> str:
    resident, p99, counts = results["resident"], results["p99_s"], results["counts"]
    windows = results["windows"]
    counted = "each counted" if results["all_counted"] else f"ONLY {counts['events']} COUNTED"
    return (
        f"{results['events_sent']} events at {results['rate_hz']:.0f}/s, "
        f"{counted}; "
        f"resident memory {resident['first_mb']:.0f} to {resident['last_mb']:.0f} MB, "
        f"{_growth(resident)}; file descriptors {results['descriptors']['first']:.0f} to "
        f"{results['descriptors']['last']:.0f}; p99 {1e3 * p99['first_half']:.1f} ms in the first "
        f"half, {1e3 * p99['second_half']:.1f} in the second, at most {1e3 * p99['most']:.1f}; "
        f"{counts['missing']} missing, {counts['rejected']} refused; "
        f"{windows.get('tested', 0)} windows tested, {windows.get('skipped', 0)} skipped\n"
    )


def _growth(resident: dict[str, Any]) -> str:
    slope, error = resident["slope_mb_per_hour"], resident["slope_error_mb_per_hour"]
    if slope is None:
        return "too short for a slope"
    verdict = "flat" if resident["is_flat"] else "GROWS" if slope > 0 else "shrinks"
    return f"{slope:+.1f} ± {error:.1f} MB an hour: {verdict}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
