"""Stored messages as blocks again: decoded and embedded as they were when they came."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from engines.engine import Engine, embed_surely
from engines.errors import EngineError, MessageError
from engines.types import FloatArray
from stream.block import Block
from stream.features import PendingFeatures
from stream.header import EVENT_ROW, Header
from stream.state.store import StoredMessage
from stream.wire import NO_KINEMATICS, Wire

__all__ = ["replayed"]


class _Message(NamedTuple):
    """A stored message; without a header where it cannot be read."""

    stored: StoredMessage
    header: Header | None
    rows: FloatArray


def replayed(
    stored: Sequence[StoredMessage],
    wire: Wire,
    engine: Engine,
    featurise: Callable[[FloatArray], PendingFeatures],
    max_batch: int,
    unreadable: dict[int, str],
) -> Generator[Block, None, int]:
    """Yield a block for each stored message that holds events, in order.

    Args:
        stored: the messages.
        wire: what they hold.
        engine: what embedded them.
        featurise: queues (n, d) embeddings for their features.
        max_batch: events embedded together.
        unreadable: is given the messages that break a rule of the wire by now, by their number, and
            which; they count as missing.

    Returns:
        Messages after the last block that are missing: the next block is to say so.
    """
    n_lost = 0
    for batch in _batches((_read(one, wire, unreadable) for one in stored), max_batch):
        for message, embeddings in _embedded(batch, engine):
            # Or it was refused when it came, and is again.
            if message.header is None or embeddings is None:
                n_lost += message.stored.n_missing + 1
                continue
            if not message.header.n:
                n_lost += message.stored.n_missing
                continue
            yield Block(
                source=message.header.source,
                seq=message.header.seq,
                t_ns=message.header.t_ns,
                particles=message.rows if wire.row == EVENT_ROW else NO_KINEMATICS,
                embeddings=embeddings,
                features=featurise(embeddings),
                n_missing=message.stored.n_missing + n_lost,
                number=message.stored.number,
            )
            n_lost = 0
    return n_lost


def _read(stored: StoredMessage, wire: Wire, unreadable: dict[int, str]) -> _Message:
    try:
        header = wire.header((stored.header, stored.payload), stored=True)
        rows = np.empty((header.n, *wire.row), dtype=np.float32)
        wire.read(stored.payload, header, rows)
    except MessageError as exc:
        unreadable[stored.number] = str(exc)
        return _Message(stored, None, np.empty((0, *wire.row), dtype=np.float32))
    return _Message(stored, header, rows)


def _batches(messages: Iterable[_Message], max_batch: int) -> Iterator[list[_Message]]:
    batch: list[_Message] = []
    n = 0
    for message in messages:
        if batch and n + len(message.rows) > max_batch:
            yield batch
            batch, n = [], 0
        batch.append(message)
        n += len(message.rows)
    if batch:
        yield batch


def _embedded(
    batch: list[_Message], engine: Engine
) -> Iterator[tuple[_Message, FloatArray | None]]:
    """Embed a batch; where the encoder refuses it, each message alone.

    Raises:
        EngineFailedError: if it embeds nothing any more.
    """
    events = np.concatenate([message.rows for message in batch])
    embeddings = np.empty((len(events), engine.dim), dtype=np.float32)
    try:
        if len(batch) == 1 and len(events):
            embed_surely(engine, events, embeddings)
        elif len(events):
            engine.embed_into(events, embeddings)
    except EngineError:
        for message in batch:
            if len(batch) == 1:
                yield message, None
            else:
                yield from _embedded([message], engine)
        return
    ends = accumulate((len(message.rows) for message in batch), initial=0)
    for message, (start, stop) in zip(batch, pairwise(ends), strict=True):
        yield message, embeddings[start:stop]
