"""What is sent back to the peers of a ROUTER socket: the last word to each that is slow is kept."""

import contextlib
from typing import TYPE_CHECKING

import zmq

from stream.security.curve import CURVE_BYTES

if TYPE_CHECKING:
    from stream.endpoints import Socket

__all__ = ["Answers"]


class Answers:
    """Sends control messages to peers; used by one thread.

    Attributes:
        socket: the ROUTER socket; None until there is one, and exchangeable.
        n_undelivered: acknowledgements whose peer had gone, and will ask on a new connection.
    """

    def __init__(self) -> None:
        """Owe nothing."""
        self.socket: Socket | None = None
        self._owed: dict[str, tuple[bytes, bytes]] = {}
        self.n_undelivered = 0

    @property
    def n_owed(self) -> int:
        """Acknowledgements that have still to go."""
        return len(self._owed)

    @property
    def max_bytes(self) -> int:
        """Payload that a message may have here; 0 for any."""
        if self.socket is None:
            return 0
        frame_bytes = int(self.socket.getsockopt(zmq.MAXMSGSIZE))
        is_encrypted = self.socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
        return max(0, frame_bytes - (CURVE_BYTES if is_encrypted else 0))

    def say(self, peer: bytes, text: bytes) -> None:
        """Send; what cannot go now, or to a peer that has gone, is made good by its hello."""
        if self.socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                self.socket.send_multipart([peer, text], zmq.DONTWAIT)

    def acknowledge(self, source: str, peer: bytes, text: bytes) -> None:
        """Send an acknowledgement; of those that cannot go now the last one of a source is kept."""
        self._owed[source] = (peer, text)
        self._try(source)

    def catch_up(self) -> None:
        """Send what is owed, as far as the peers read."""
        for source in list(self._owed):
            self._try(source)

    def _try(self, source: str) -> None:
        if self.socket is None:
            return
        try:
            self.socket.send_multipart(list(self._owed[source]), zmq.DONTWAIT)
        except zmq.Again:
            return
        except zmq.ZMQError:
            self.n_undelivered += 1
        del self._owed[source]
