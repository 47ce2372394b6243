"""The work of `stream-producer`: a replay, sent as the options say."""

import argparse
import contextlib
import hashlib
import json
import logging
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import numpy as np
import zmq

from engines.errors import ArtifactError, EventError, ParameterError
from engines.event_files import EventFile
from engines.events import EventRange
from engines.progress import Progress
from stream.delivery.producer import ReliableProducer, unique_name
from stream.message import DEFAULT_MAX_EVENTS
from stream.replay import DEFAULT_FRACTION, Batch, EventFeed, Injection, Pacer, replay
from stream.security.producer import ProducerSecurity
from stream.sender import ReliableSender, Sender, SendsEvents

__all__ = ["produce"]

_LOGGER = logging.getLogger(__name__)
_TICK_S = 0.1
_NOTICE_EVERY_S = 10.0
_BLOCK_EVENTS = 8192


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


def produce(options: argparse.Namespace) -> None:
    """Replay as asked until the events end, or a signal says stop; raises what bad input raises."""
    if options.inject is None and options.fraction is not None:
        msg = "--fraction must come with --inject; got it alone; name the signal's file"
        raise ParameterError(msg)
    _check_delivery(options)
    with contextlib.ExitStack() as stack:
        n_background, background = _open_feed(stack, options.file, loop=options.loop)
        injection = None
        if options.inject is not None:
            _, feed = _open_feed(stack, options.inject, loop=options.loop)
            fraction = DEFAULT_FRACTION if options.fraction is None else options.fraction
            rng = np.random.default_rng(options.seed)
            injection = Injection(feed, fraction, options.after, rng)
        log = stack.enter_context(contextlib.closing(_TruthLog(options.log)))
        shown = stack.enter_context(contextlib.closing(_Shown(options, n_background)))
        context = stack.enter_context(zmq.Context())
        security = stack.enter_context(contextlib.closing(ProducerSecurity(options, context)))
        stop = _Stop()
        open_ = _open_reliable if options.reliable else _open_plain
        sender = open_(stack, security, options, stop)
        batches = replay(background, options.batch, injection=injection, limit=options.events)
        with stop.installed():
            n_messages = _stream(batches, sender, log, shown, options)
            if options.end and sender.following <= n_messages:
                sender.send_end()
            sender.finish()


def _check_delivery(options: argparse.Namespace) -> None:
    if options.batch > DEFAULT_MAX_EVENTS:
        text = "a consumer disconnects who sends more than %d events a message; start it with %s"
        _LOGGER.warning(text, DEFAULT_MAX_EVENTS, f"--max-message-events {options.batch}")
    if options.spool is not None and not options.reliable:
        msg = "--spool must come with --reliable; got it alone; add --reliable on both sides"
        raise ParameterError(msg)
    if options.reliable and options.pattern == "pub":
        msg = "--reliable cannot be with --pattern pub, which nobody acknowledges; drop one"
        raise ParameterError(msg)


def _lasting_name(options: argparse.Namespace) -> str:
    """Return a source's name that belongs to these messages: other ones are another source.

    A restart goes on after so many messages; were they others, it would leave out what was never
    sent.
    """
    if options.source is None and options.spool is None:
        _LOGGER.warning("without --source or --spool this replay cannot be taken up after a kill")
        return unique_name()
    name = options.source or f"{platform.node()}-{options.spool.resolve().name}"
    files = [
        (source.path.name, source.start, source.stop)
        for source in (options.file, options.inject)
        if source is not None
    ]
    settings = ("batch", "dtype", "events", "fraction", "after", "seed", "loop")
    text = repr([files, *(getattr(options, setting) for setting in settings)])
    return f"{name}#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _asked_to_stop(security: ProducerSecurity, stop: _Stop) -> Callable[[], bool]:
    """Return what is asked while waiting; it raises where waiting would be for ever."""

    def stopped() -> bool:
        security.check()
        return stop.requested

    return stopped


def _open_plain(
    stack: contextlib.ExitStack,
    security: ProducerSecurity,
    options: argparse.Namespace,
    stop: _Stop,
) -> SendsEvents:
    socket = stack.enter_context(security.open_sender(options.endpoint, options.pattern))
    return Sender(
        socket,
        options.endpoint,
        options.source or unique_name(),
        dtype=f"<{options.dtype}",
        timeout_s=options.timeout,
        stopped=_asked_to_stop(security, stop),
    )


def _open_reliable(
    stack: contextlib.ExitStack,
    security: ProducerSecurity,
    options: argparse.Namespace,
    stop: _Stop,
) -> SendsEvents:
    producer = ReliableProducer(
        lambda: security.open_sender(options.endpoint, "dealer"),
        _lasting_name(options),
        spool=options.spool,
        dtype=f"<{options.dtype}",
        stopped=_asked_to_stop(security, stop),
    )
    stack.callback(producer.close)
    return ReliableSender(producer, options.timeout)


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
    sender: SendsEvents,
    log: _TruthLog,
    shown: _Shown,
    options: argparse.Namespace,
) -> int:
    """Send the batches that were not sent by an earlier life; return how many there are."""
    totals, place = _Totals(), -1
    n_done = sender.begin()
    pacer = Pacer(options.rate, time.monotonic)
    for place, batch in enumerate(batches):
        if place < n_done:
            log.write(sender.source, place, batch)
            continue
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
    return place + 1


def _sleep(pacer: Pacer, n_events: int, stopped: Callable[[], bool]) -> None:
    while (left_s := pacer.left_s(n_events)) > 0 and not stopped():
        time.sleep(min(left_s, _TICK_S))
