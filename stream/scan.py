"""Command: the consumer's monitor over a stored file, window by window."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, count, positive_float, positive_int, run_command
from engines.events import EventRange
from engines.windows import parse_duration_s

__all__ = ["main"]

_DESCRIPTION = """\
Tests stored events, such as a run taken yesterday or a black box, as stream-consumer tests a
stream: disjoint windows of as many events as the reference was calibrated for, in the order of the
files. Ends in a table, the global significance (Bonferroni's, arXiv:2502.15926) and a picture.

A file has no clock. Without --window-spacing a window alarms at p <= P / windows, so that a file of
background alarms at all with a probability of at most P (--global-p). With it windows count as that
far apart, and the rate --far holds as in the stream.

Results are kept line by line: run the same command again after Ctrl-C or a crash, and it goes on.

--resample-reference N tests each window against N more references, as large as the calibrated one
and drawn at random from the background in --reference-events (those that calibrate-reference was
given will do: events that made the basis are left out). p-values are then of that reference's own
toys, drawn from the background events that are not in it; only the basis stays."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "stream-scan",
        _DESCRIPTION,
        "stream-scan run.h5 --engine d4.onnx --window-spacing 10m --far 1/month --alarms alarms/",
    )
    add = parser.add_argument
    what = "the events to scan, HDF5"
    add("events", type=EventRange.parse, nargs="+", metavar="FILE[@START:STOP]", help=what)
    add("--engine", type=Path, required=True, help="the encoder, .onnx or .plan")
    add("--reference", type=Path, help="the .ref file (default: beside the engine)")
    _add_alarms(parser)
    _add_output(parser)
    _add_resampling(parser)
    add("--threads", type=positive_int, default=2, help="CPU threads of encoder and tests")
    add("--device", default="cpu", help="where tests and .onnx encoders run: cpu or cuda")
    return parser


def _add_alarms(parser: CommandParser) -> None:
    add = parser.add_argument_group("alarms").add_argument
    add("--global-p", type=_probability, metavar="P", help="of any false alarm (default: 0.01)")
    add("--window-spacing", type=parse_duration_s, metavar="TIME", help="10s, 10m, 1h; for --far")
    add("--far", help="false-alarm rate, NUMBER/hour|day|week|month|year (default: 1/month)")
    add(
        "--alarm-on",
        choices=("chi2", "gamma", "toys"),
        default="chi2",
        help="p that alarms: of the law fitted to the toys, or of the toys alone",
    )
    add(
        "--relabellings",
        type=count,
        default=99,
        metavar="N",
        help="confirm each alarm by so many random relabellings of events; 0 for none",
    )


def _add_output(parser: CommandParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add(
        "--results",
        type=Path,
        metavar="FILE.jsonl",
        help="JSON lines, kept as they come (default: EVENTS.scan.jsonl in this folder)",
    )
    add("--alarms", type=Path, metavar="DIR", help="keep the windows that alarm")
    add("-o", "--output", type=Path, metavar="FILE.png", help="default: beside the results")
    add("--json", action="store_true", help="print JSON instead of the table")


def _add_resampling(parser: CommandParser) -> None:
    add = parser.add_argument_group("references drawn anew").add_argument
    add("--resample-reference", type=_references, default=0, metavar="N", help="2 or more")
    add(
        "--reference-events",
        type=EventRange.parse,
        nargs="+",
        metavar="FILE[@START:STOP]",
        help="background that the encoder was not trained on",
    )
    add("--resample-toys", type=_toys, default=200, metavar="N", help="of each such reference")
    add("--seed", type=count, default=0, help="of the draws")


def _probability(text: str) -> float:
    value = positive_float(text)
    if value >= 1:
        msg = f"must be a probability below 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _references(text: str) -> int:
    value = count(text)
    if value == 1:
        msg = "must be 2 or more, to have a spread; got 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def _toys(text: str) -> int:
    value = positive_int(text)
    if value < 20:
        msg = f"must be at least 20; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _run(options: argparse.Namespace) -> None:
    from stream.scanning.run import run_scan

    run_scan(options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
