"""The work of `stream-producer`: a replay, sent as the options say."""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

import numpy as np
import zmq

from engines.errors import EventError, ParameterError
from engines.event_files import EventFile
from engines.events import EventRange
from stream.replay import DEFAULT_FRACTION, Batch, EventFeed, Injection, Pacer, replay
from stream.replay_report import Shown, Totals, TruthLog
from stream.security.producer import ProducerSecurity
from stream.sender import SendsEvents
from stream.sending import check_delivery, open_sender

__all__ = ["produce"]

_TICK_S = 0.1
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


def produce(options: argparse.Namespace) -> None:
    """Replay as asked until the events end, or a signal says stop; raises what bad input raises."""
    if options.inject is None and options.fraction is not None:
        msg = "--fraction must come with --inject; got it alone; name the signal's file"
        raise ParameterError(msg)
    check_delivery(options)
    with contextlib.ExitStack() as stack:
        n_background, background = _open_feed(stack, options.file, loop=options.loop)
        injection = None
        if options.inject is not None:
            _, feed = _open_feed(stack, options.inject, loop=options.loop)
            fraction = DEFAULT_FRACTION if options.fraction is None else options.fraction
            rng = np.random.default_rng(options.seed)
            injection = Injection(feed, fraction, options.after, rng)
        log = stack.enter_context(contextlib.closing(TruthLog(options.log)))
        shown = stack.enter_context(contextlib.closing(Shown(options, n_background)))
        context = stack.enter_context(zmq.Context())
        security = stack.enter_context(contextlib.closing(ProducerSecurity(options, context)))
        stop = _Stop()
        sender = open_sender(stack, security, options, lambda: stop.requested)
        batches = replay(background, options.batch, injection=injection, limit=options.events)
        with stop.installed():
            n_messages = _stream(batches, sender, log, shown, options)
            if options.end and sender.following <= n_messages:
                sender.send_end()
            sender.finish()


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


def _stream(
    batches: Iterable[Batch],
    sender: SendsEvents,
    log: TruthLog,
    shown: Shown,
    options: argparse.Namespace,
) -> int:
    """Send the batches that were not sent by an earlier life; return how many there are."""
    totals, place = Totals(), -1
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
