"""Options that several benchmarks share."""

import argparse
import math

from engines.command import CommandParser
from engines.events import EventRange
from engines.samples import sample_path

__all__ = ["add_background", "share", "share_or_zero"]


def add_background(parser: CommandParser) -> None:
    """Add `--calibration` and `--test`, by default bundled events that trained no demo encoder."""
    cocktail = sample_path("sm_cocktail")
    parser.add_argument(
        "--calibration",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        default=EventRange(cocktail, 45_000, 150_000),
        help="background for basis, reference and toys; none that trained an encoder",
    )
    parser.add_argument(
        "--test",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        default=EventRange(cocktail, 150_000, 235_000),
        help="background for the windows",
    )


def share(text: str) -> float:
    """Return a number between 0 and 1, for argparse."""
    value = share_or_zero(text)
    if not value:
        msg = f"must lie between 0 and 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def share_or_zero(text: str) -> float:
    """Return a number from 0 to below 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        msg = f"must lie between 0 and 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value
