"""Process: sends real events at a fixed rate by a clock of its own; see `bench.schedule`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgpack
import numpy as np
import zmq

from bench.load_options import add_feed, at_least_zero
from bench.schedule import MachineClock, Schedule, drive
from engines.command import CommandParser, run_command
from engines.errors import EndpointError, SampleSizeError
from engines.event_files import read_events
from engines.samples import sample_path
from engines.types import FloatArray
from stream.endpoints import Socket, open_sender
from stream.message import encode_message

__all__ = ["Messages", "main"]

_LINGER_MS = 60_000
_SEND_TIMEOUT_MS = 60_000


class Messages:
    """Messages of the same events again and again, encoded before the first is due.

    Args:
        socket: from `open_sender`.
        particles: (n, 19, 3), pT in GeV, at least as many as a message holds.
        per_message: events in a message.
        dtype: of the payload, "<f4" or "<f2".
        source: name of the source, new for each run.
    """

    def __init__(
        self, socket: Socket, particles: FloatArray, *, per_message: int, dtype: str, source: str
    ) -> None:
        """Encode what comes again."""
        self._socket, self._source = socket, source
        firsts = range(0, len(particles) - per_message + 1, per_message)
        if not firsts:
            msg = f"a message must hold at most {len(particles)} events; got {per_message}"
            raise SampleSizeError(msg)
        blocks = [particles[first : first + per_message] for first in firsts]
        self._payloads = [encode_message(source, 0, 0, one, dtype=dtype)[1] for one in blocks]
        self._header = msgpack.unpackb(encode_message(source, 0, 0, blocks[0], dtype=dtype)[0])
        self._n_sent = 0

    def send(self, index: int, t_ns: int) -> None:
        """Send one, waiting where it is not taken.

        Raises:
            EndpointError: if no consumer takes it in a minute.
        """
        self._header["seq"], self._header["t_ns"] = index, t_ns
        frames = (msgpack.packb(self._header), self._payloads[index % len(self._payloads)])
        try:
            self._socket.send_multipart(frames)
        except zmq.Again as exc:
            msg = "no consumer took a message for a minute; see why it stopped"
            raise EndpointError(msg) from exc
        self._n_sent = index + 1

    def send_end(self, t_ns: int) -> None:
        """Say that the source is done."""
        empty = np.empty((0, 19, 3), np.float32)
        self._socket.send_multipart(
            encode_message(self._source, self._n_sent, t_ns, empty, end=True)
        )


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-load",
        "Sends bundled events at a fixed rate, open loop, and says how well it kept it as JSON.",
        "python -m bench.load --rate 50000 --duration 10",
    )
    add = parser.add_argument
    add(
        "--endpoint",
        default="tcp://127.0.0.1:5555",
        help="of the consumer; tcp, since over ipc a full receiver loses a stream's last messages",
    )
    add("--rate", type=at_least_zero, default=0.0, metavar="HZ", help="events/s; 0: all it takes")
    add("--events", type=Path, default=sample_path("sm_unseen"), help="the events, again and again")
    add_feed(parser, duration_s=10.0, warm_up_s=0.0)
    return parser


def _run(options: argparse.Namespace) -> None:
    particles = read_events(options.events)
    source = f"load-{os.getpid()}"
    with zmq.Context() as context, open_sender(context, options.endpoint) as socket:
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        socket.setsockopt(zmq.SNDTIMEO, _SEND_TIMEOUT_MS)
        messages = Messages(
            socket, particles, per_message=options.batch, dtype=options.dtype, source=source
        )
        if not socket.poll(_SEND_TIMEOUT_MS, zmq.POLLOUT):
            msg = f"no consumer came to {options.endpoint} within a minute; start it first"
            raise EndpointError(msg)
        clock = MachineClock()
        schedule = Schedule(options.rate, options.batch, options.duration)
        report = drive(messages.send, schedule, clock, options.warm_up)
        messages.send_end(clock.now_ns())
    sys.stdout.write(json.dumps(asdict(report)) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
