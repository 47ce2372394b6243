"""Process: somebody who means no good, at full rate until told to end."""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from bench.hostile_kinds import KINDS, Target
from engines.command import CommandParser, run_command
from stream.endpoints import Socket
from stream.security.options import add_curve_options
from stream.security.producer import ProducerSecurity

__all__ = ["main"]

_SEND_MS = 100
_LOOK_S = 0.02


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-hostile-peer",
        "Does one hostile thing again and again until SIGTERM; says how often as JSON.",
        "python -m bench.hostile_peer --kind garbage --when folder",
    )
    add = parser.add_argument
    add("--kind", choices=KINDS, required=True, help="what to do")
    add("--endpoint", default="tcp://127.0.0.1:5555", help="of the consumer")
    add("--http", default="127.0.0.1:9108", help="of the consumer")
    add("--reliable", action="store_true", help="the consumer acknowledges")
    add("--when", type=Path, required=True, metavar="DIR", help="writes `ready`, waits for `go`")
    add_curve_options(parser)
    parser.set_defaults(pattern="push")
    return parser


def _open(security: ProducerSecurity, options: argparse.Namespace) -> Socket:
    socket = security.open_sender(options.endpoint, "dealer" if options.reliable else "push")
    socket.setsockopt(zmq.SNDTIMEO, _SEND_MS)
    socket.setsockopt(zmq.LINGER, 0)
    return socket


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 0


class _EndedError(Exception):
    """Somebody has asked for the end, perhaps in the middle of what goes on for ever."""


def _run(options: argparse.Namespace) -> None:
    ended = threading.Event()

    def end(*_: object) -> None:
        if not ended.is_set():
            ended.set()
            raise _EndedError

    n_sent = 0
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.destroy, linger=0)
        security = stack.enter_context(closing(ProducerSecurity(options, context)))
        address = _address(options.endpoint)
        opens = partial(_open, security, options)
        target = Target(opens, address, _address(f"//{options.http}"), options.reliable)
        try:
            (options.when / "ready").touch()
            while not (options.when / "go").exists():
                time.sleep(_LOOK_S)
            attack = KINDS[options.kind](target)
            while True:
                n_sent += attack()
        except _EndedError:
            sys.stdout.write(json.dumps({"sent": n_sent}) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
