"""The reliable exchange for tests: a consumer that keeps messages, producers, a faulty network."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import zmq

from engines.errors import MessageError
from engines.types import FloatArray
from stream.delivery import protocol
from stream.delivery.consumer import ReliableDelivery
from stream.delivery.producer import ReliableProducer
from stream.delivery.protocol import decode_control
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.header import DEFAULT_MAX_EVENTS, Reason, decode_header
from stream.message import decode_message
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.state.store import StateStore

Drops: TypeAlias = Callable[[list[bytes]], bool]
WAIT_S = 20.0
#: Mark of events that no encoder can embed.
BAD = 666


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.01)


def check(particles: FloatArray) -> None:
    if particles[:1, 0, 0].tolist() == [BAD]:
        msg = "the encoder cannot embed\nsuch an event"
        raise MessageError(Reason.EMBEDDING, msg)


class Server:
    """A consumer that keeps every message and tests none."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        endpoint: str,
        max_events: int = DEFAULT_MAX_EVENTS,
        engine: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.folder, self.metrics, self.accepted, self.engine = folder, Metrics(), 0, engine
        self.state = RunState(folder, {}, self.metrics, SparseLog(), name="r")
        self.delivery = ReliableDelivery(self.state, self.metrics, SparseLog(), **options)
        self.socket = open_receiver(context, endpoint, "router", max_events=max_events)
        self.endpoint = bound_endpoint(self.socket)
        self.delivery.socket = self.socket
        self.paused, self.stopped = threading.Event(), threading.Event()
        self._patch = pytest.MonkeyPatch()
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            while not self.stopped.is_set():
                if self.paused.is_set():
                    time.sleep(0.01)
                elif (frames := self.delivery.receive(20)) is not None:
                    self._take(frames)
        except BaseException as exc:
            self.fault = exc
            raise

    def _take(self, frames: list[Any]) -> None:
        header = None
        try:
            header = decode_header(frames, engine=self.engine)
            if not self.delivery.admits(header):
                return
            check(decode_message(frames).particles)
            self.delivery.accept(header, frames)
            self.accepted += 1
        except MessageError as exc:
            self.delivery.refuse(header, exc)

    def stop(self) -> None:
        """End in order."""
        self._halt()
        self.state.close(clean=True)
        self.delivery.finish()
        self.socket.close()

    def kill(self) -> None:
        """End with what is on the disk, and not another word."""

        def write(*_words: object) -> None:
            msg = "killed"
            raise sqlite3.OperationalError(msg)

        self._halt()
        writer = self.state._writer
        writer._gave_up = True
        self._patch.setattr(writer._store, "write", write)
        self.socket.close(linger=0)
        self.state.close(clean=False)
        self.delivery._wake.close()

    def _halt(self) -> None:
        self.stopped.set()
        self.thread.join()
        assert self.fault is None


@contextmanager
def producing(
    context: Context,
    endpoint: str,
    source: str = "daq",
    **options: Any,  # noqa: ANN401
) -> Iterator[ReliableProducer]:
    """A producer that is closed without waiting for anything."""
    producer = ReliableProducer(lambda: open_sender(context, endpoint, "dealer"), source, **options)
    try:
        yield producer
    finally:
        producer.close()


def stored(folder: Path) -> list[tuple[str, int, int, float]]:
    """Return source, seq, messages missing before and the mark of what is kept, in order."""
    store = StateStore(folder, {})
    found = []
    for one in store.messages():
        message = decode_message([one.header, one.payload])
        mark = float(message.particles[0, 0, 0]) if len(message) else -1.0
        found.append((message.header.source, message.header.seq, one.n_missing, mark))
    store.close()
    return found


def marked(mark: int, n: int = 10) -> FloatArray:
    particles = np.zeros((n, 19, 3), np.float32)
    particles[:, 0, 0] = mark
    return particles


def once(source: str, n: int, first: int = 0) -> list[tuple[str, int, int, float]]:
    return [(source, seq, 0, float(seq)) for seq in range(first, n)]


class Proxy:
    """Stands between producers and a consumer and drops what it is told to."""

    def __init__(self, context: Context, target: str) -> None:
        self._context, self._target = context, target
        self.drops_up: Drops = lambda _: False
        self.drops_down: Drops = lambda _: False
        self._front = context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.endpoint = bound_endpoint(self._front)
        self._backs: dict[bytes, Socket] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._stopped.is_set():
            ready = dict(poller.poll(20))
            if self._front in ready:
                name, *frames = self._front.recv_multipart()
                if name not in self._backs:
                    self._backs[name] = open_sender(self._context, self._target, "dealer")
                    poller.register(self._backs[name], zmq.POLLIN)
                if not self.drops_up(frames):
                    self._backs[name].send_multipart(frames)
            for name, back in self._backs.items():
                if back in ready:
                    frames = back.recv_multipart()
                    if not self.drops_down(frames):
                        self._front.send_multipart([name, *frames])

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        for socket in (self._front, *self._backs.values()):
            socket.close(linger=0)


def talk(peer: Socket, text: bytes | list[bytes], op: str) -> protocol.Control:
    """Send something; return the first answer of a kind."""
    peer.send_multipart([text] if isinstance(text, bytes) else text)
    return hear(peer, op)


def hear(peer: Socket, op: str) -> protocol.Control:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if peer.poll(100):
            control = decode_control(peer.recv())
            if control.op == op:
                return control
    pytest.fail(f"no {op!r} came")
