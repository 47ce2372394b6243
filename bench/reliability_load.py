"""Process: sends real events at a fixed rate as a producer does, reliably or not.

Unlike `bench.load` it encodes each message when it is due, as a producer must, so that both ways of
sending are compared with the same work around them.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq

from bench.load_options import add_feed, at_least_zero
from bench.schedule import MachineClock, Schedule, drive
from engines.command import CommandParser, run_command
from engines.errors import EndpointError, SampleSizeError
from engines.event_files import read_events
from engines.samples import sample_path
from engines.types import FloatArray
from stream.delivery.producer import ReliableProducer
from stream.endpoints import Socket
from stream.message import encode_message
from stream.security.options import add_curve_options
from stream.security.producer import ProducerSecurity
from stream.timings import highest_equivalent_ns

__all__ = ["Acknowledged", "main"]

_WAIT_S = 60.0
_LOOK_S = 0.0005
_NO_EVENTS = np.empty((0, 19, 3), np.float32)


class _Acknowledges(Protocol):
    @property
    def following(self) -> int: ...

    @property
    def n_unacknowledged(self) -> int: ...


class _Sends(Protocol):
    def send(self, particles: FloatArray, t_ns: int, *, end: bool = False) -> None: ...

    def finish(self, acknowledged: "Acknowledged") -> None: ...


class _Plain:
    """A PUSH socket, which waits where nothing is taken."""

    def __init__(self, socket: Socket, source: str, dtype: str) -> None:
        self._socket, self._source, self._dtype, self._seq = socket, source, dtype, 0
        socket.setsockopt(zmq.LINGER, round(1e3 * _WAIT_S))
        socket.setsockopt(zmq.SNDTIMEO, round(1e3 * _WAIT_S))
        if not socket.poll(round(1e3 * _WAIT_S), zmq.POLLOUT):
            msg = f"a consumer must come within {_WAIT_S:.0f} s; none came; start it first"
            raise EndpointError(msg)

    def send(self, particles: FloatArray, t_ns: int, *, end: bool = False) -> None:
        frames = encode_message(
            self._source, self._seq, t_ns, particles, dtype=self._dtype, end=end
        )
        try:
            self._socket.send_multipart(frames)
        except zmq.Again as exc:
            msg = "no consumer took a message for a minute; see why it stopped"
            raise EndpointError(msg) from exc
        self._seq += 1

    def finish(self, acknowledged: "Acknowledged") -> None:
        """Leave what is queued to ZeroMQ."""


class _Reliable:
    """A reliable producer."""

    def __init__(self, producer: ReliableProducer) -> None:
        self._producer = producer
        producer.resume(_WAIT_S)

    def send(self, particles: FloatArray, t_ns: int, *, end: bool = False) -> None:
        self._producer.send(particles, t_ns=t_ns, end=end, timeout_s=_WAIT_S)

    def finish(self, acknowledged: "Acknowledged") -> None:
        until_ns = acknowledged.now_ns() + round(1e9 * _WAIT_S)
        while self._producer.n_unacknowledged and acknowledged.now_ns() < until_ns:
            acknowledged.sleep(_LOOK_S)
        self._producer.flush(_WAIT_S)


class Acknowledged(MachineClock):
    """A clock that looks, while it waits, how many messages are acknowledged, each half ms.

    Args:
        producer: a reliable one; None for nothing to look at.
    """

    def __init__(self, producer: _Acknowledges | None) -> None:
        """Start with nothing sent."""
        super().__init__()
        self._producer = producer
        self._sent_ns: list[int] = []
        self._acknowledged_ns: list[int] = []

    def sending(self) -> None:
        """Note that the next message is handed over now."""
        self._sent_ns.append(self.now_ns())

    def sleep(self, seconds: float) -> None:
        """Wait, and look."""
        if self._producer is None:
            super().sleep(seconds)
            return
        until_ns = self.now_ns() + round(1e9 * seconds)
        while (left_ns := until_ns - self.now_ns()) > 0:
            super().sleep(min(left_ns / 1e9, _LOOK_S))
            self._look(self._producer)

    def counts(self, first: int) -> dict[str, int]:
        """Return messages by the ns from `send` to acknowledgement, from the first that counts."""
        sent = np.array(self._sent_ns[: len(self._acknowledged_ns)], dtype=np.int64)
        took = np.array(self._acknowledged_ns, dtype=np.int64) - sent
        buckets = highest_equivalent_ns(np.maximum(took[first:], 0)).tolist()
        return {str(bucket): n for bucket, n in sorted(Counter(buckets).items())}

    def _look(self, producer: _Acknowledges) -> None:
        # In this order: what is sent between the two only makes the number too small.
        following = producer.following
        n_done = min(following - producer.n_unacknowledged, len(self._sent_ns))
        now_ns = self.now_ns()
        self._acknowledged_ns += [now_ns] * (n_done - len(self._acknowledged_ns))


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-reliability-load",
        "Sends bundled events at a fixed rate, open loop, and says how well it kept it as JSON.",
        "python -m bench.reliability_load --reliable --rate 20000 --duration 10",
    )
    add = parser.add_argument
    add("--endpoint", default="tcp://127.0.0.1:5555", help="of the consumer")
    add("--rate", type=at_least_zero, default=0.0, metavar="HZ", help="events/s; 0: all it takes")
    add("--events", type=Path, default=sample_path("sm_unseen"), help="the events, again and again")
    add("--source", default=f"load-{os.getpid()}", help="name of the source")
    add("--reliable", action="store_true", help="keep each message until it is acknowledged")
    add("--spool", type=Path, metavar="DIR", help="with --reliable: keep them on the disk too")
    add_feed(parser, duration_s=10.0, warm_up_s=0.0)
    add_curve_options(parser)
    parser.set_defaults(pattern="push")
    return parser


def _run(options: argparse.Namespace) -> None:
    particles = read_events(options.events)
    firsts = range(0, len(particles) - options.batch + 1, options.batch)
    if not firsts:
        msg = f"a message must hold at most {len(particles)} events; got {options.batch}"
        raise SampleSizeError(msg)
    blocks = [particles[first : first + options.batch] for first in firsts]
    with ExitStack() as stack:
        sender, clock = _open(stack, options)

        def send(index: int, t_ns: int) -> None:
            clock.sending()
            sender.send(blocks[index % len(blocks)], t_ns)

        schedule = Schedule(options.rate, options.batch, options.duration)
        begun_ns = clock.now_ns()
        report = drive(send, schedule, clock, options.warm_up)
        sender.send(_NO_EVENTS, clock.now_ns(), end=True)
        sender.finish(clock)
        all_s = (clock.now_ns() - begun_ns) / 1e9
    said: dict[str, Any] = {**asdict(report), "source": options.source, "all_s": all_s}
    if options.reliable:
        n_warm_up = round(options.warm_up * options.rate / options.batch)
        said["acknowledged"] = clock.counts(n_warm_up)
    sys.stdout.write(json.dumps(said) + "\n")


def _open(stack: ExitStack, options: argparse.Namespace) -> tuple[_Sends, Acknowledged]:
    context = stack.enter_context(zmq.Context())
    security = stack.enter_context(closing(ProducerSecurity(options, context)))
    if not options.reliable:
        socket = stack.enter_context(security.open_sender(options.endpoint, "push"))
        return _Plain(socket, options.source, options.dtype), Acknowledged(None)
    producer = ReliableProducer(
        lambda: security.open_sender(options.endpoint, "dealer"),
        options.source,
        spool=options.spool,
        dtype=options.dtype,
    )
    stack.callback(producer.close)
    return _Reliable(producer), Acknowledged(producer)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
