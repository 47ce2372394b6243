"""Command: months of background through the monitor, and alarms seen against alarms promised."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.command import CommandParser, positive_int, run_command
from engines.events import EventRange
from engines.pretrained import pretrained_path
from engines.samples import sample_path

__all__ = ["main"]

_DESCRIPTION = """\
Tests months of background windows with the consumer's monitor at its default false-alarm rate, and
counts: alarms seen, alarms promised, the binomial interval. Then the same while the jet energy
scale drifts. Events are drawn with replacement from those given, calibration and windows
independently; every month has a calibration of its own."""
_SETTINGS = (
    "months",
    "drifting",
    "drift",
    "windows",
    "window",
    "n_ref",
    "pool",
    "toys",
    "far",
    "seed",
)


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-alarms", _DESCRIPTION, "bench-alarms --months 2 --json alarms.json --plot alarms.png"
    )
    add = parser.add_argument
    add("--engine", type=Path, default=pretrained_path("d4"), help="the encoder, .onnx")
    add(
        "--events",
        type=EventRange.parse,
        default=EventRange(sample_path("sm_cocktail"), 60_000),
        metavar="FILE[@START:STOP]",
        help="background that trained no encoder",
    )
    add("--months", type=positive_int, default=4, help="of background as it is")
    add("--drifting", type=positive_int, default=2, metavar="N", help="months that drift")
    add("--drift", type=float, default=0.01, help="of the jet energy scale over a month")
    add("--windows", type=positive_int, default=5000, help="in a month, evenly spaced")
    add("--window", type=positive_int, default=5000, help="events in a window")
    add("--n-ref", type=positive_int, default=40_000, help="reference events")
    add("--pool", type=positive_int, default=400_000, help="events that toys are drawn from")
    add("--toys", type=positive_int, default=1000, help="of each calibration")
    add("--far", default="1/month", help="the monitor's false-alarm rate")
    add("--seed", type=int, default=0, help="of everything that is drawn")
    add("--threads", type=positive_int, default=2, help="CPU threads")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    add("--plot", type=Path, metavar="FILE.png", help="write the picture")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.alarms_text import month_text
    from bench.month import summarise
    from engines.artifact import check_writable
    from engines.null_plot import check_picture

    if options.plot is not None:
        check_picture(options.plot)
    for path in filter(None, (options.json, options.plot)):
        check_writable(path)
    kinds = {"background": (options.months, 0.0), "drifting": (options.drifting, options.drift)}
    months = {name: _months(options, name, *kind) for name, kind in kinds.items()}
    results = {name: summarise(of_kind) for name, of_kind in months.items()}
    sys.stdout.write(month_text(results))
    if options.json is not None:
        from bench.stamp import range_text, save_record

        said = {name: getattr(options, name) for name in _SETTINGS}
        said |= {"engine": options.engine.name, "events": range_text(options.events)}
        save_record(options.json, "alarms", said, results=results)
    if options.plot is not None:
        from bench.alarms_plot import draw_months

        draw_months(months, options.plot)


def _months(options: argparse.Namespace, name: str, n: int, drift: float) -> list[Any]:
    import numpy as np

    from bench.month import MonthConfig, run_month
    from engines.engine import open_engine
    from engines.event_files import read_events
    from engines.progress import Progress

    config = MonthConfig(
        windows=options.windows,
        window=options.window,
        n_ref=options.n_ref,
        n_pool=options.pool,
        n_toys=options.toys,
        far=options.far,
        drift=drift,
        threads=options.threads,
    )
    shown = Progress(n * config.windows, name)
    with open_engine(options.engine, threads=options.threads) as engine:
        particles = read_events(options.events)
        embeddings = engine.embed(particles)
        rngs = [np.random.default_rng([options.seed, bool(drift), month]) for month in range(n)]
        found = [
            run_month(engine, particles, embeddings, config, rng, shown.advance) for rng in rngs
        ]
    shown.close()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
