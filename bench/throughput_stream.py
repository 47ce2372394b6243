"""Part of a command: `bench-throughput stream`."""

import argparse
import sys
from typing import Any

from bench.load_options import add_consumer, add_feed, add_saving
from engines.command import CommandParser, positive_int

__all__ = ["parser", "run"]

_TEXT = """\
Runs stream-consumer as a process, sends it all it takes, and compares its rate with that of its
engine alone and of a bare ZeroMQ receive loop, which take turns with it; says where its CPU goes.
The processes share this machine."""


def parser() -> CommandParser:
    """Return the part's own parser."""
    made = CommandParser(
        "bench-throughput stream", _TEXT, "bench-throughput stream --repeat 5 --json out.json"
    )
    add_consumer(made)
    add = made.add_argument
    add("--repeat", type=positive_int, default=3, help="rounds, in which everything takes its turn")
    add_saving(made)
    add_feed(made, dtypes=True)
    return made


def run(options: argparse.Namespace) -> None:
    """Measure, print and save."""
    from dataclasses import asdict

    from bench.stamp import save_record
    from bench.stream_rate import Settings, measure
    from bench.stream_run import Served
    from engines.artifact import check_writable

    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    settings = Settings(
        dtypes=tuple(options.dtype),
        duration_s=options.duration,
        warm_up_s=options.warm_up,
        repeat=options.repeat,
        per_message=options.batch,
    )
    served = Served(options.engine, options.device, tuple(options.consumer))
    results = measure(served, settings)
    sys.stdout.write(_text(results, settings.dtypes))
    if options.json is not None:
        said = {
            **asdict(settings),
            "engine": options.engine.name,
            "device": options.device,
            "consumer": options.consumer,
        }
        save_record(options.json, "stream-throughput", said, results=results)
    if options.plot is not None:
        from bench.throughput_plot import draw_stream

        draw_stream(results, settings.dtypes, options.plot)


def _text(results: dict[str, Any], dtypes: tuple[str, ...]) -> str:
    lines = [f"engine            {results['runtime']}"]
    for dtype in dtypes:
        found = results[dtype]
        lines += [
            f"{dtype}",
            f"  engine alone    {_thousands(found['engine_hz'])} thousand events/s",
            f"  bare ZeroMQ     {_thousands(found['bare_hz'])}",
            *_stream_lines("stream", found["stream"]),
            *_stream_lines("without tests", found["without_tests"]),
        ]
    return "".join(f"{line}\n" for line in lines)


def _stream_lines(name: str, found: dict[str, Any]) -> list[str]:
    from bench.spread import spread_text

    cpu = {key: one["median"] for key, one in found["cpu_s_per_million"].items()}
    tested, skipped = (found[f"windows_{key}"]["median"] for key in ("tested", "skipped"))
    return [
        f"  {name:<15} {_thousands(found['events_hz'])}, "
        f"{spread_text(found['share_of_limit'], 100, 0)} % of the lower of the two",
        f"    windows       {tested:.0f} tested, {skipped:.0f} skipped",
        f"    CPU s/M       {cpu['total']:.2f}: encoder {cpu['engine']:.2f}, consumer "
        f"{cpu['own']:.2f}, ZeroMQ {cpu['wire']:.2f}, NPLM {cpu['nplm']:.2f}",
        f"    overhead      {spread_text(found['overhead'], 100, 1)} % of its CPU, "
        f"{spread_text(found['overhead_of_stream'], 100, 1)} % of what is not NPLM",
    ]


def _thousands(figure: dict[str, float]) -> str:
    from bench.spread import spread_text

    return spread_text(figure, 1e-3, 0)
