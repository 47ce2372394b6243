"""Command: what a hostile producer at full rate does to a good one beside it."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from bench.load_options import add_consumer, at_least_zero
from bench.options import share
from engines.command import CommandParser, positive_float, positive_int, run_command

__all__ = ["main"]

_PROG = "bench-hostile"
_KINDS = (
    *("busy", "garbage", "frames", "endless", "largest", "sources", "headers", "slow-http"),
    "uninvited",
)
_TEXT = """\
A good producer streams at a share of what stream-consumer takes, alone and then beside one that
means no good and sends all it can, of each kind in turn:

  busy       sends nothing, takes a core: what the others take too
  garbage    random bytes
  frames     messages of 1000 frames
  endless    a message that never ends, frame after frame
  largest    right messages, the largest that are taken
  sources    right messages, each of a new source
  headers    headers of 3 MB
  slow-http  200 HTTP clients that send a byte now and then and read nothing
  uninvited  right messages under CURVE, from a key that is not on the list

Says how many of the good one's events are counted, its latency, the consumer's memory, how many
series its metrics have, and what it refused. The processes share this machine."""


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} --json hostile.json")
    add_consumer(parser)
    add = parser.add_argument
    add("--kinds", choices=_KINDS, nargs="+", default=list(_KINDS), help="which")
    add("--load", type=share, default=0.2, help="of the capacity, which is measured first")
    add("--rate", type=at_least_zero, default=0.0, metavar="HZ", help="events/s instead")
    add("--alone", type=positive_float, default=10.0, metavar="S", help="seconds without")
    add("--beside", type=positive_float, default=15.0, metavar="S", help="and with the hostile one")
    add("--batch", type=positive_int, default=256, help="events in a good message")
    add("--delivery", choices=("pull", "reliable", "both"), default="both", help="which")
    add("--json", metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from dataclasses import asdict
    from pathlib import Path

    from bench.hostile_run import Settings, measure
    from bench.stamp import save_record
    from bench.stream_run import Served
    from engines.artifact import check_writable

    path = None if options.json is None else Path(options.json)
    if path is not None:
        check_writable(path)
    settings = Settings(
        kinds=tuple(options.kinds),
        share=options.load,
        rate_hz=options.rate,
        alone_s=options.alone,
        beside_s=options.beside,
        per_message=options.batch,
        reliable={"pull": (False,), "reliable": (True,)}.get(options.delivery, (False, True)),
    )
    results = measure(Served(options.engine, options.device, tuple(options.consumer)), settings)
    sys.stdout.write(_text(results))
    if path is not None:
        said = {"engine": options.engine.name, "consumer": options.consumer, **asdict(settings)}
        save_record(path, "hostile", said, results=results)


def _text(results: dict[str, Any]) -> str:
    """Return the table; its last lines say what the columns are."""
    titles = ("p50", "p99", "p50", "p99", "MB", "MB", "series", "sent")
    lines = [
        f"the good one sends {results['rate_hz']:.0f} events/s",
        f"{'':<20}{'sent':>10}{'lost':>8}{'':2}{'alone':>14}{'beside':>14}{'peak memory':>14}",
        f"{'':<20}{'':10}{'':8}{'':2}" + "".join(f"{title:>7}" for title in titles),
    ]
    for run in results["runs"]:
        alone, beside = run["alone"], run["beside"]
        name = f"{run['kind']}{', reliable' if run['reliable'] else ''}"
        lines.append(
            f"{name:<20}{run['sent']:>10}{run['sent'] - run['counted']:>8}  "
            + "".join(
                f"{_ms(part[key]):>7}" for part in (alone, beside) for key in ("p50_s", "p99_s")
            )
            + f"{alone['peak_mb']:>7.0f}{beside['peak_mb']:>7.0f}{beside['series']:>7}"
            f"{run['hostile_sent']:>9}  {_counted(run)}"
        )
    lines += [
        "sent, lost: events of the good one; alone, beside: its latency, production to embedding,",
        "ms; peak memory: the consumer's, without and with the hostile one; sent: its messages, or",
        "connections, and what the consumer counted of them",
    ]
    return "".join(f"{line}\n" for line in lines)


def _counted(run: dict[str, Any]) -> str:
    parts = {
        "events taken": run["hostile_events_accepted"],
        **{f"refused {reason}": n for reason, n in run["rejected"].items()},
        "messages missing": run["missing"],
        "socket resets": run["socket_resets"],
        "connections denied": run["denied_connections"],
    }
    return ", ".join(f"{n} {name}" for name, n in parts.items() if n)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{1e3 * seconds:.{1 if seconds < 1 else 0}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
