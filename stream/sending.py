"""The sender that a producer's options ask for: plain or reliable, under a name that fits."""

import argparse
import contextlib
import hashlib
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path

from engines.errors import ParameterError
from stream.delivery.producer import ReliableProducer, unique_name
from stream.header import DEFAULT_MAX_EVENTS
from stream.security.producer import ProducerSecurity
from stream.sender import ReliableSender, Sender, SendsEvents

__all__ = ["check_delivery", "open_sender"]

_LOG = logging.getLogger(__name__)
_ENDS_BYTES = 1 << 20


def check_delivery(options: argparse.Namespace) -> None:
    """Refuse options of delivery that do not go together.

    Raises:
        ParameterError: if there are any; names them.
    """
    if options.batch > DEFAULT_MAX_EVENTS:
        text = "a consumer disconnects who sends more than %d events a message; start it with %s"
        _LOG.warning(text, DEFAULT_MAX_EVENTS, f"--max-message-events {options.batch}")
    if options.spool is not None and not options.reliable:
        msg = "--spool must come with --reliable; got it alone; add --reliable on both sides"
        raise ParameterError(msg)
    if options.reliable and options.pattern == "pub":
        msg = "--reliable cannot be with --pattern pub, which nobody acknowledges; drop one"
        raise ParameterError(msg)


def open_sender(
    stack: contextlib.ExitStack,
    security: ProducerSecurity,
    options: argparse.Namespace,
    requested: Callable[[], bool],
) -> SendsEvents:
    """Open the way to the consumer; raises as the socket's and the spool's makers do.

    Args:
        stack: closes it.
        security: opens the socket.
        options: of `stream-producer`.
        requested: whether an end was asked for.
    """

    def stopped() -> bool:
        security.check()  # raises where waiting would be for ever
        return requested()

    open_ = _open_reliable if options.reliable else _open_plain
    return open_(stack, security, options, stopped)


def _lasting_name(options: argparse.Namespace) -> str:
    """Return a source's name that belongs to these messages: other ones are another source.

    A restart goes on after so many messages; were they others, it would leave out what was never
    sent.
    """
    if options.source is None and options.spool is None:
        _LOG.warning("without --source or --spool this replay cannot be taken up after a kill")
        return unique_name()
    name = options.source or f"{platform.node()}-{options.spool.resolve().name}"
    files = [
        (source.path.name, source.start, source.stop, *_content(source.path))
        for source in (options.file, options.inject)
        if source is not None
    ]
    settings = ("batch", "dtype", "events", "fraction", "after", "seed", "loop")
    text = repr([files, *(getattr(options, setting) for setting in settings)])
    return f"{name}#{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _content(path: Path) -> tuple[int, str]:
    """Return a file's size and a digest of its ends: other events of the same name are others."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        ends = file.read(_ENDS_BYTES)
        file.seek(max(0, size - _ENDS_BYTES))
        ends += file.read(_ENDS_BYTES)
    return size, hashlib.sha256(ends).hexdigest()


def _open_plain(
    stack: contextlib.ExitStack,
    security: ProducerSecurity,
    options: argparse.Namespace,
    stopped: Callable[[], bool],
) -> SendsEvents:
    socket = stack.enter_context(security.open_sender(options.endpoint, options.pattern))
    return Sender(
        socket,
        options.endpoint,
        options.source or unique_name(),
        dtype=f"<{options.dtype}",
        timeout_s=options.timeout,
        stopped=stopped,
    )


def _open_reliable(
    stack: contextlib.ExitStack,
    security: ProducerSecurity,
    options: argparse.Namespace,
    stopped: Callable[[], bool],
) -> SendsEvents:
    producer = ReliableProducer(
        lambda: security.open_sender(options.endpoint, "dealer"),
        _lasting_name(options),
        spool=options.spool,
        dtype=f"<{options.dtype}",
        stopped=stopped,
    )
    stack.callback(producer.close)
    return ReliableSender(producer, options.timeout)
