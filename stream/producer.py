"""The command `stream-producer`: replays an event file into ZeroMQ as a detector would."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.events import EventRange
from stream.header import MAX_EVENTS_PER_MESSAGE
from stream.replay import DEFAULT_FRACTION
from stream.security.options import add_curve_options

__all__ = ["main"]

_DESCRIPTION = """\
Replay an event file into ZeroMQ as a detector would: in order, at a stated rate, in messages of
--batch events. The file is read in slices, so its size does not matter.

Pacing is open-loop: message k is due at start + k * batch / rate, and a producer that was held up
catches up. With --inject, events of a second file are mixed in: from event --after on, each event
of the stream is signal with probability --fraction. No background event is lost by that. --log
writes which events were signal, one JSON line a message: {"source", "seq", "n", "signal"}.

  push  connects to a consumer and waits for it whenever it is absent or busy; --timeout bounds the
        wait. A consumer that dies takes with it the messages that were queued for it.
  pub   binds, waits up to two seconds for a first subscriber, then sends whether or not anybody
        listens: whoever subscribes late or is slow misses messages.

With --reliable each message is kept until the consumer, started with --reliable too, has it on its
disk. Killed and started again with the same options and --source, the producer goes on where the
consumer is: each event counts once. Its name in messages ends in a digest of what it replays, so
that other events are another source. --spool keeps what is not acknowledged on this disk as well.

A run's source name is its own unless --source sets it: a consumer refuses a name that starts over.
SIGTERM and Ctrl-C end the stream in order: end marker, summary, exit code 0; with --reliable
without an end marker, as a restart goes on, and with code 2 if messages are not acknowledged."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, argv)


def _parser() -> CommandParser:
    example = "stream-producer sm.h5@0:200000 --inject A4l.h5 --fraction 0.01 --after 40000"
    parser = CommandParser("stream-producer", _DESCRIPTION, example)
    add = parser.add_argument
    add("file", type=EventRange.parse, metavar="EVENTS.h5[@START:STOP]", help="what to replay")
    add("--endpoint", default="tcp://127.0.0.1:5555", help="tcp://HOST:PORT or ipc:///PATH")
    add("--pattern", default="push", choices=("push", "pub"), help="push to one, pub to any")
    add("--reliable", action="store_true", help="keep each message until it is acknowledged")
    add("--spool", type=Path, metavar="DIR", help="with --reliable: keep them on this disk too")
    add("--rate", type=_rate, default=20_000.0, help="events/s; 0 is as fast as it goes")
    add("--batch", type=_batch, default=256, help="events a message")
    add("--events", type=positive_int, metavar="N", help="end after N events, signal included")
    add("--loop", action="store_true", help="start the files over when they end")
    add("--dtype", default="f4", choices=("f4", "f2"), help="f2: half the bytes, three digits")
    add("--source", help="name of this run in its messages (default: host-pid-time)")
    add("--end", action=argparse.BooleanOptionalAction, default=True, help="send an end marker")
    add("--timeout", type=positive_float, metavar="S", help="give up on an absent consumer after S")
    mix = parser.add_argument_group("signal")
    mix.add_argument("--inject", type=EventRange.parse, metavar="SIGNAL.h5[@START:STOP]")
    text = f"signal probability of an event, from 0 to below 1 (default: {DEFAULT_FRACTION})"
    mix.add_argument("--fraction", type=_fraction, metavar="F", help=text)
    mix.add_argument(
        "--after", type=_count, default=0, metavar="N", help="events before any signal"
    )
    mix.add_argument("--seed", type=_count, default=0, help="of the signal's positions")
    mix.add_argument("--log", type=Path, metavar="TRUTH.jsonl", help="write which are signal")
    add_curve_options(parser)
    return parser


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        msg = f"must be a number of events a second, 0 or more; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        msg = f"must be at least 0 and below 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        msg = f"must be a whole number, 0 or more; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _batch(text: str) -> int:
    value = positive_int(text)
    if value > MAX_EVENTS_PER_MESSAGE:
        msg = f"must be at most {MAX_EVENTS_PER_MESSAGE}; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _run(options: argparse.Namespace) -> None:
    from stream.produce import produce

    produce(options)


if __name__ == "__main__":
    sys.exit(main())
