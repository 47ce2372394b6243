"""Part of a command: `bench-throughput embed`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.load_options import add_saving
from engines.command import CommandParser, positive_float, positive_int
from engines.pretrained import pretrained_path

__all__ = ["parser", "run"]

_TEXT = """\
Times engines on bundled events by batch size, and compares them with two limits that are measured
between the timings: the peak of a large matrix product and the bandwidth of the memory."""


def parser() -> CommandParser:
    """Return the part's own parser."""
    made = CommandParser(
        "bench-throughput embed",
        _TEXT,
        "bench-throughput embed --engine d4.onnx d4.plan --device cuda --json out.json",
    )
    add = made.add_argument
    add(
        "--engine",
        type=Path,
        nargs="+",
        default=[pretrained_path("d4")],
        metavar="FILE",
        help="encoders, .onnx or .plan; what cannot run here is named",
    )
    add(
        "--batch",
        type=positive_int,
        nargs="+",
        default=[1, 16, 64, 256, 1024, 2048, 4096],
        metavar="N",
        help="events embedded at once",
    )
    add("--device", default="cpu", help="where an .onnx runs, cpu or cuda; a plan runs on the GPU")
    add("--threads", type=positive_int, default=1, help="CPU threads")
    add("--seconds", type=positive_float, default=0.2, help="of one timing, at least")
    add("--repeat", type=positive_int, default=7, help="timings of everything, taking turns")
    add_saving(made)
    return made


def run(options: argparse.Namespace) -> None:
    """Measure, print and save."""
    from dataclasses import asdict

    from bench.embedding import Settings, measure
    from bench.stamp import save_record
    from engines.artifact import check_writable

    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    settings = Settings(
        engines=tuple(options.engine),
        batches=tuple(options.batch),
        device=options.device,
        threads=options.threads,
        seconds=options.seconds,
        repeat=options.repeat,
    )
    results = measure(settings)
    sys.stdout.write(_text(results))
    if options.json is not None:
        said = asdict(settings) | {"engines": [path.name for path in settings.engines]}
        save_record(options.json, "embed-throughput", said, results=results)
    if options.plot is not None:
        from bench.throughput_plot import draw_embedding

        draw_embedding(results, options.plot)


def _text(results: dict[str, Any]) -> str:
    from bench.spread import spread_text

    peaks = (f"{name} {spread_text(one, 1, 0)}" for name, one in results["peak_gflops"].items())
    lines = [
        f"matrix product  {', '.join(peaks)} GFLOP/s",
        f"memory          {spread_text(results['bandwidth_gb_per_s'], 1, 1)} GB/s read",
    ]
    for engine in results["engines"]:
        flops = engine["flops_per_event"]
        needs = "graph unknown" if flops is None else f"{flops} FLOP with all objects"
        lines += [
            f"{engine['engine']}: {engine['runtime']}; "
            f"{needs} and {engine['bytes_per_event']} bytes an event",
            f"{'batch':>8}{'thousand events/s':>26}{'% of the product':>24}{'% of the memory':>24}",
            *map(_row, engine["rates"]),
        ]
    lines += [f"{name}: {reason}" for name, reason in results["refused"].items()]
    return "".join(f"{line}\n" for line in lines)


def _row(rate: dict[str, Any]) -> str:
    from bench.spread import spread_text

    peak = rate["share_of_peak"]
    share = "-" if peak is None else spread_text(peak, 100, 1)
    return (
        f"{rate['batch']:>8}{spread_text(rate['events_hz'], 1e-3, 1):>26}{share:>24}"
        f"{spread_text(rate['share_of_bandwidth'], 100, 2):>24}"
    )
