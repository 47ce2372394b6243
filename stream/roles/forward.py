"""Embeddings to the tester over PUSH: back-pressure reaches producers, a crash may lose some."""

from collections.abc import Callable

import zmq

from engines.types import FloatArray
from stream.endpoints import Socket
from stream.header import Header
from stream.wire import encode_embeddings

__all__ = ["PushForward"]

_POLL_MS = 100


class PushForward:
    """Sends each message's embeddings on, and waits while the tester takes no more.

    Args:
        socket: a PUSH socket that connects to the tester.
        fingerprint: of the engine.
        stopped: whether to give up waiting.

    Attributes:
        on_wait: called ten times a second while `send` waits.
    """

    def __init__(self, socket: Socket, fingerprint: str, stopped: Callable[[], bool]) -> None:
        """Take the socket over."""
        self._socket, self._fingerprint, self._stopped = socket, fingerprint, stopped
        self._gave_up = False
        self.on_wait: Callable[[], None] = lambda: None

    @property
    def is_done(self) -> bool:
        """Whether everything has gone that will: what is sent is the tester's."""
        return True

    def send(self, header: Header, embeddings: FloatArray) -> bool:
        """Send one message's embeddings, (n, d); return False if asked to stop before it went."""
        frames = encode_embeddings(header, embeddings, self._fingerprint)
        while True:
            try:
                self._socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                # Once is enough: what was taken in by then may be thousands of messages.
                if self._gave_up or (
                    not self._socket.poll(_POLL_MS, zmq.POLLOUT) and self._stopped()
                ):
                    self._gave_up = True
                    return False
                self.on_wait()
            else:
                return True
