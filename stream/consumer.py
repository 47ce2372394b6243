"""Command: the main job. Events in over ZeroMQ, significance out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from engines.command import CommandParser, count, positive_float, positive_int, run_command
from engines.windows import parse_delay_s, parse_duration_or_zero_s
from stream.security.options import add_consumer_options

__all__ = ["main"]

#: `add_argument` of a parser.
_Add: TypeAlias = Callable[..., argparse.Action]
_LARGEST_BATCH = 65_536
_DESCRIPTION = """\
Embeds the events that producers send, compares each window of embeddings with the reference, and
reports t, p, Z and alarms: a table here, JSON lines, a ZeroMQ PUB socket, Prometheus metrics and a
live page. SIGTERM or Ctrl-C processes what has arrived, tests the closed windows and ends."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "stream-consumer",
        _DESCRIPTION,
        "stream-consumer --engine d4.onnx --results results.jsonl --alarms alarms/",
    )
    parts = (_add_input, _add_windows, _add_alarms, _add_delivery, _add_outputs, _add_work)
    for add_part in parts:
        add_part(parser.add_argument)
    add_consumer_options(parser)
    _add_measuring(parser)
    return parser


def _add_input(add: _Add) -> None:
    add("--engine", type=Path, help="the encoder, .onnx or .plan; --role test needs none")
    add("--reference", type=Path, help="the .ref file (default: beside the engine)")
    add("--endpoint", default="tcp://127.0.0.1:5555", help="where events arrive")
    add(
        "--pattern",
        choices=("pull", "sub"),
        default="pull",
        help="pull: bind, nothing is dropped; sub: connect to a producer's PUB, may lose messages",
    )


def _add_windows(add: _Add) -> None:
    add("--window", help="10000 or 60s; must be what the reference was calibrated for (default)")
    add(
        "--slide",
        metavar="STEP",
        help="2500 or 15s: test a window each STEP, of the last --window; STEP divides it",
    )
    add("--rate", type=positive_float, metavar="HZ", help="expected rate of a time window")


def _add_alarms(add: _Add) -> None:
    add("--far", default="1/month", help="false-alarm rate, NUMBER/hour|day|week|month|year")
    add(
        "--alarm-on",
        choices=("chi2", "gamma", "toys"),
        default="chi2",
        help="p that alarms: of the law fitted to the toys, or of the toys alone",
    )
    add(
        "--refractory",
        type=parse_duration_or_zero_s,
        default="10m",
        metavar="TIME",
        help="windows over the threshold so soon after another, or next to it, are the same alarm",
    )
    add(
        "--fdr",
        type=_below_one,
        default=0.0,
        metavar="Q",
        help="also decide on discoveries, of which an expected share of at most Q is background",
    )
    add(
        "--fdr-method",
        choices=("lond-dependent", "lond", "lord++"),
        default="lond-dependent",
        help="lond-dependent holds for windows that share a reference; lond needs positive "
        "dependence, lord++ independence, which they do not have",
    )
    add(
        "--relabellings",
        type=count,
        default=99,
        metavar="N",
        help="confirm each alarm by so many random relabellings of events; 0 for none",
    )


def _add_delivery(add: _Add) -> None:
    add(
        "--role",
        choices=("all", "embed", "test"),
        default="all",
        help="embed: send embeddings on to a tester; test: gather them from embedders, 16 bytes "
        "an event at d = 4 instead of 228",
    )
    add("--forward", metavar="ENDPOINT", help="with --role embed: where the tester listens")
    add(
        "--reliable",
        action="store_true",
        help="acknowledge messages once they are on the disk; for producers with --reliable",
    )
    add(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep the run there, so that a restart goes on with it after any kill "
        "(default with --reliable: ./stream-state, else none)",
    )


def _add_outputs(add: _Add) -> None:
    add("--results", type=Path, metavar="FILE", help="append one JSON line a window")
    add("--alarms", type=Path, metavar="DIR", help="keep the windows that alarm")
    add("--publish", metavar="ENDPOINT", help="PUB socket for results, tcp://127.0.0.1:5556")
    add("--notify", metavar="URL", help="webhook that each alarm is posted to as JSON")
    add("--http", default="127.0.0.1:9108", help="metrics and live page; 'off' for none")


def _add_work(add: _Add) -> None:
    add("--exit-on-end", action="store_true", help="end when every source has sent its end")
    add("--max-waiting", type=positive_int, default=16, help="closed windows that may wait")
    add("--max-batch", type=_batch, default=2048, metavar="N", help="events embedded at once")
    add(
        "--max-delay",
        type=parse_delay_s,
        default="2ms",
        metavar="TIME",
        help="how long the first message of a micro-batch may wait for others: 500us, 2ms, 0",
    )
    add("--threads", type=positive_int, default=1, help="CPU threads of the encoder")
    add("--test-threads", type=positive_int, default=1, help="CPU threads of the test")
    add("--device", default="cpu", help="where tests and .onnx encoders run: cpu or cuda")
    add(
        "--fallback",
        action="store_true",
        help="where a .plan cannot run, run the .onnx beside it; log and metrics say so",
    )


def _add_measuring(parser: CommandParser) -> None:
    add = parser.add_argument_group("for measuring; see bench-latency").add_argument
    add("--timings", type=Path, metavar="FILE", help="at the end write latencies and CPU seconds")
    add("--timings-skip", type=count, default=0, metavar="EVENTS", help="a warm-up, left out")
    add(
        "--tests",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="--no-tests embeds and forgets: the stream alone",
    )


def _batch(text: str) -> int:
    value = positive_int(text)
    if value > _LARGEST_BATCH:
        msg = f"must be at most {_LARGEST_BATCH}; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _below_one(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 1.0:
        msg = f"must be at least 0 (off) and below 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _run(options: argparse.Namespace) -> None:
    from stream.assemble import run_consumer

    run_consumer(options)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
