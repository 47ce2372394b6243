"""Options of everything that sends events at a rate."""

import argparse
import math
from pathlib import Path

from engines.command import CommandParser, positive_float, positive_int
from engines.pretrained import pretrained_path
from stream.header import DTYPES

__all__ = ["add_consumer", "add_feed", "add_saving", "at_least_zero"]


def add_consumer(parser: CommandParser) -> None:
    """Add which consumer is measured."""
    add = parser.add_argument
    add("--engine", type=Path, default=pretrained_path("d4"), help="the encoder, .onnx or .plan")
    add("--device", default="cpu", help="where the encoder and the tests run: cpu or cuda")
    add(
        "--consumer",
        type=str.split,
        default=[],
        metavar="OPTIONS",
        help="more options of stream-consumer, as one word: --consumer='--max-delay 1ms'",
    )


def add_saving(parser: CommandParser) -> None:
    """Add where a measurement goes."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    add("--plot", type=Path, metavar="FILE", help="draw it, .png or .pdf")


def add_feed(
    parser: CommandParser,
    duration_s: float = 12.0,
    warm_up_s: float = 2.0,
    *,
    dtypes: bool = False,
) -> None:
    """Add what is sent and how long; with `dtypes` several, by default all, take turns."""
    add = parser.add_argument_group("load").add_argument
    add("--duration", type=positive_float, default=duration_s, metavar="S", help="seconds of a run")
    add("--warm-up", type=at_least_zero, default=warm_up_s, metavar="S", help="of it, not counted")
    add("--batch", type=positive_int, default=256, help="events in a message")
    if dtypes:
        add("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES), help="of the payload")
    else:
        add("--dtype", choices=DTYPES, default=DTYPES[0], help="of the payload")


def at_least_zero(text: str) -> float:
    """Return a finite number, 0 or above, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        msg = f"must be a number, 0 or above; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value
