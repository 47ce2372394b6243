"""The options of both commands that say who may connect and how much is taken from them."""

import argparse
import re
from pathlib import Path

from engines.command import CommandParser, positive_int

__all__ = ["add_consumer_options", "add_curve_options", "parse_size_bytes"]

_LARGEST_MESSAGE = 65_536
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(|KiB|MiB|GiB|TiB)")


def add_curve_options(parser: CommandParser) -> None:
    """Add the keys; who binds gives --curve-clients, who connects --curve-server."""
    add = parser.add_argument_group("security; see make-keys and deploy/SECURITY.md").add_argument
    add("--curve-key", type=Path, metavar="FILE", help="our secret key: encrypt, let few in")
    add("--curve-clients", type=Path, metavar="DIR", help="who may connect: their public keys")
    add("--curve-server", type=Path, metavar="FILE", help="public key of whom we connect to")


def add_consumer_options(parser: CommandParser) -> None:
    """Add the keys, the HTTP port's security, and the limits."""
    add_curve_options(parser)
    add = parser.add_argument_group("security of the HTTP port and of results").add_argument
    add(
        "--curve-subscribers",
        type=Path,
        metavar="DIR",
        help="who may read --publish (default: --curve-clients)",
    )
    add("--http-cert", type=Path, metavar="FILE", help="serve HTTPS: certificate chain, PEM")
    add("--http-key", type=Path, metavar="FILE", help="its private key, PEM")
    add("--http-client-ca", type=Path, metavar="FILE", help="clients must show its certificate")
    add(
        "--http-password",
        type=Path,
        metavar="FILE",
        help="one line, user:password, or make-keys --http-user; /healthz and /readyz stay open",
    )
    add = parser.add_argument_group("limits").add_argument
    add(
        "--max-message-events",
        type=_message_events,
        default=16_384,
        metavar="N",
        help="larger messages are refused, and who sends larger frames is disconnected",
    )
    add("--max-sources", type=positive_int, default=500, metavar="N", help="sources at once")
    add(
        "--max-memory",
        type=parse_size_bytes,
        metavar="SIZE",
        help="resident memory at which the receiving socket is closed and opened again: 4GiB "
        "(default: what is loaded, the windows that may wait, and 1 GiB; at most 90 %% of the "
        "control group's)",
    )


def parse_size_bytes(text: str) -> int:
    """Read a size, such as 512MiB.

    >>> parse_size_bytes("1.5GiB")
    1610612736
    """
    found = _SIZE.fullmatch(text.strip())
    size = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not size:
        msg = f"must be a size, such as 512MiB or 4GiB; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return size


def _message_events(text: str) -> int:
    value = positive_int(text)
    if value > _LARGEST_MESSAGE:
        msg = f"must be at most {_LARGEST_MESSAGE}; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value
