"""Messages of PULL and SUB sockets: each counts when it arrives, and gaps are counted."""

from collections.abc import Sequence

import zmq

from engines.errors import MessageError
from stream.delivery.admission import Admitted
from stream.endpoints import Socket
from stream.header import Frame, Header
from stream.sequence import SequenceTracker
from stream.state.run import RunState

__all__ = ["PlainAdmission", "SocketReceiver", "receive_parts"]


#: No message has so many, a peer's name among them; further ones are not kept.
_MOST_FRAMES = 4


class PlainAdmission:
    """Accepts whatever continues its source's sequence; nothing is sent again.

    Args:
        sequences: of the sources.
        state: where messages are kept for the open window of a restart; None keeps none.
    """

    max_age_s, lasts = 86_400.0, False

    def __init__(self, sequences: SequenceTracker, state: RunState | None = None) -> None:
        """Start with the sources that the state knows."""
        self._sequences, self._state = sequences, state
        if state is not None:
            sequences.on_forget = state.forget
            sequences.restore(state.sources)

    def admits(self, header: Header) -> bool:
        """Return True: a message that comes twice is refused by `accept`, as an error."""
        del header
        return True

    def accept(self, header: Header, frames: Sequence[Frame]) -> Admitted:
        """Take a message.

        Raises:
            MessageError: if its source has passed this `seq`, or leaps ahead.
            ArtifactError: if it must be stored and cannot be.
        """
        n_missing = self._sequences.check(header.source, header.seq)
        if header.end:
            self._sequences.end(header.source)
        if self._state is None:
            return Admitted(n_missing)
        pair = (frames[0], frames[1])
        return Admitted(n_missing, self._state.accept(header.source, header.seq, n_missing, pair))

    def refuse(self, header: Header | None, exc: MessageError) -> None:
        """Do nothing: the gap that it leaves is counted."""


class SocketReceiver:
    """Takes messages from a PULL or SUB socket.

    Attributes:
        socket: the socket; None until there is one, and exchangeable.
    """

    def __init__(self, socket: Socket | None = None) -> None:
        """Take the socket, if there is one."""
        self.socket = socket

    def receive(self, wait_ms: int) -> list[Frame] | None:
        """Return the frames of the next message, its payload not copied; None if none comes."""
        socket = self.socket
        if socket is None:
            return None
        # Half the cost of a poll, whose price is paid for every message where they are few.
        socket.setsockopt(zmq.RCVTIMEO, max(0, wait_ms))
        return receive_parts(socket, 0)


def receive_parts(socket: Socket, flags: int = zmq.DONTWAIT) -> list[Frame] | None:
    """Return the frames of the next message, not copied, four at most; None if there is none."""
    try:
        frame = socket.recv(flags, copy=False, track=False)
    except zmq.Again:
        return None
    frames: list[Frame] = [frame.buffer]
    while frame.more:
        frame = socket.recv(copy=False, track=False)
        if len(frames) < _MOST_FRAMES:
            frames.append(frame.buffer)
    return frames
