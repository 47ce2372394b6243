"""The command `stream-producer`: replays an event file into ZeroMQ as a detector would."""

import argparse
import contextlib
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import numpy as np
import zmq

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.errors import ArtifactError, EventError, ParameterError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.progress import Progress
from stream.endpoints import SENDER_PATTERNS, Context, open_sender
from stream.message import MAX_EVENTS_PER_MESSAGE
from stream.replay import Batch, EventFeed, Injection, Pacer, replay
from stream.sender import Sender

__all__ = ["main"]

_LOGGER = logging.getLogger(__name__)
_TICK_S = 0.1
_SUBSCRIBER_WAIT_S = 2.0
_DRAIN_MS = 60_000
_NOTICE_EVERY_S = 10.0
_BLOCK_EVENTS = 8192
_DEFAULT_FRACTION = 0.01
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

A run's source name is its own unless --source sets it: a consumer refuses a name that starts over.
SIGTERM and Ctrl-C end the stream in order: end marker, summary, exit code 0."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _produce, argv)


def _parser() -> CommandParser:
    example = "stream-producer sm.h5@0:200000 --inject A4l.h5 --fraction 0.01 --after 40000"
    parser = CommandParser("stream-producer", _DESCRIPTION, example)
    add = parser.add_argument
    add("file", type=EventRange.parse, metavar="EVENTS.h5[@START:STOP]", help="what to replay")
    add("--endpoint", default="tcp://127.0.0.1:5555", help="tcp://HOST:PORT or ipc:///PATH")
    add("--pattern", default="push", choices=SENDER_PATTERNS, help="push to one, pub to any")
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
    text = f"signal probability of an event, from 0 to below 1 (default: {_DEFAULT_FRACTION})"
    mix.add_argument("--fraction", type=_fraction, metavar="F", help=text)
    mix.add_argument(
        "--after", type=_count, default=0, metavar="N", help="events before any signal"
    )
    mix.add_argument("--seed", type=_count, default=0, help="of the signal's positions")
    mix.add_argument("--log", type=Path, metavar="TRUTH.jsonl", help="write which are signal")
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


class _Stop:
    """Whether SIGTERM or SIGINT has asked for an end; polled, so that no message is cut in two."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._request) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


@dataclass
class _Totals:
    messages: int = 0
    events: int = 0
    signal: int = 0

    def add(self, batch: Batch) -> None:
        self.messages += 1
        self.events += len(batch.particles)
        self.signal += len(batch.signal)


class _TruthLog:
    """One JSON line a message, saying which of its events are signal."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        if path is not None:
            with self._explained():
                self._file = path.open("w", buffering=1)

    def write(self, source: str, seq: int, batch: Batch) -> None:
        if self._file is not None:
            n, positions = len(batch.particles), list(batch.signal)
            line = json.dumps({"source": source, "seq": seq, "n": n, "signal": positions})
            with self._explained():
                self._file.write(f"{line}\n")

    def close(self) -> None:
        if self._file is not None:
            with self._explained():
                self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            reason = exc.strerror or exc
            msg = f"cannot write --log {self._path} ({reason}); name a file that can be written"
            raise ArtifactError(msg) from exc


def _produce(options: argparse.Namespace) -> None:
    if options.inject is None and options.fraction is not None:
        msg = "--fraction must come with --inject; got it alone; name the signal's file"
        raise ParameterError(msg)
    with contextlib.ExitStack() as stack:
        n_background, background = _open_feed(stack, options.file, loop=options.loop)
        injection = None
        if options.inject is not None:
            _, feed = _open_feed(stack, options.inject, loop=options.loop)
            fraction = _DEFAULT_FRACTION if options.fraction is None else options.fraction
            rng = np.random.default_rng(options.seed)
            injection = Injection(feed, fraction, options.after, rng)
        log = stack.enter_context(contextlib.closing(_TruthLog(options.log)))
        shown = stack.enter_context(contextlib.closing(_Shown(options, n_background)))
        context: Context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(open_sender(context, options.endpoint, options.pattern))
        stop = _Stop()
        default_source = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
        sender = Sender(
            socket,
            options.endpoint,
            options.source or default_source,
            dtype=f"<{options.dtype}",
            timeout_s=options.timeout,
            stopped=lambda: stop.requested,
        )
        batches = replay(background, options.batch, injection=injection, limit=options.events)
        with stop.installed():
            _stream(batches, sender, log, shown, options)
            if options.end:
                sender.send_end()
        if not stop.requested:
            # What a slower consumer has yet to take; Ctrl-C cuts it short.
            socket.setsockopt(zmq.LINGER, _DRAIN_MS)


def _open_feed(
    stack: contextlib.ExitStack, source: EventRange, *, loop: bool
) -> tuple[int, EventFeed]:
    file = stack.enter_context(EventFile(source.path))
    n_events = (len(file) if source.stop is None else source.stop) - source.start
    if n_events <= 0:
        msg = f"the events to replay must be at least one; {source.path} holds {len(file)}"
        raise EventError(msg)
    return n_events, EventFeed(
        lambda: file.slices(source.start, source.stop, _BLOCK_EVENTS), loop=loop
    )


class _Shown:
    """Shows how far the stream is; a stream without an end has no bar, only its log."""

    def __init__(self, options: argparse.Namespace, n_background: int) -> None:
        limit: int | None = options.events
        endless = options.loop and limit is None
        # Until its end, how much signal a file's stream will hold is chance: count background.
        self._all = limit is not None and (options.loop or limit <= n_background)
        total = limit if self._all else n_background
        self._bar = None if endless or total is None else Progress(total, "events sent")
        self._told_s = 0.0

    def advance(self, batch: Batch, totals: _Totals, elapsed_s: float) -> None:
        if self._bar is not None:
            n_signal = 0 if self._all else len(batch.signal)
            self._bar.advance(len(batch.particles) - n_signal, f"{totals.signal} signal")
        elif elapsed_s - self._told_s >= _NOTICE_EVERY_S:
            self._told_s = elapsed_s
            _LOGGER.info("%d events sent in %.0f s", totals.events, elapsed_s)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _stream(
    batches: Iterable[Batch],
    sender: Sender,
    log: _TruthLog,
    shown: _Shown,
    options: argparse.Namespace,
) -> None:
    totals = _Totals()
    if options.pattern == "pub":
        sender.wait_for_subscriber(_SUBSCRIBER_WAIT_S)
    sender.wait()
    pacer = Pacer(options.rate, time.monotonic)
    for batch in batches:
        _sleep(pacer, totals.events, sender.stopped)
        seq = sender.send(batch.particles)
        if seq is None:
            break
        totals.add(batch)
        log.write(sender.source, seq, batch)
        shown.advance(batch, totals, pacer.elapsed_s())
    seconds = pacer.elapsed_s()
    shown.close()
    sys.stdout.write(
        f"sent {totals.messages} messages, {totals.events} events, {totals.signal} signal events "
        f"in {seconds:.2f} s ({totals.events / max(seconds, 1e-9):.0f} events/s) "
        f"as source {sender.source}\n"
    )


def _sleep(pacer: Pacer, n_events: int, stopped: Callable[[], bool]) -> None:
    while (left_s := pacer.left_s(n_events)) > 0 and not stopped():
        time.sleep(min(left_s, _TICK_S))


if __name__ == "__main__":
    sys.exit(main())
