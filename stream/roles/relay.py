"""The embedder's part of the reliable exchange: it passes on what both sides say, keeps nothing.

A message that is lost here, with a killed embedder or because the tester takes no more, was not
acknowledged by the tester; its producer sends it again, by this embedder or another.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence

import zmq

from engines.errors import MessageError
from engines.types import FloatArray
from stream.delivery import protocol
from stream.delivery.admission import Admitted
from stream.delivery.answers import Answers
from stream.delivery.consumer import MOST_UNREAD
from stream.delivery.plain import receive_parts
from stream.delivery.protocol import Control, decode_control
from stream.endpoints import Socket
from stream.header import Frame, Header, Reason, read_place
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.wire import encode_embeddings

__all__ = ["Relay"]

_TESTER_WAIT_S, _POLL_MS = 1.0, 100
_LAST_WORDS_MS = 1000
_MOST_SOURCES = 10_000
_OWING_WAIT_MS = 10


class Relay:
    """Receiver, admission and way to the tester in one; used by one thread.

    Args:
        tester: a DEALER socket that connects to the tester.
        fingerprint: of the engine.
        metrics: counts what is refused here.
        sparse_log: for trouble that may repeat.

    Attributes:
        n_dropped: messages that the tester did not take in time; they will come again.
        on_wait: called ten times a second while `send` waits.
    """

    #: How old a message may be is the tester's to say.
    max_age_s, lasts = math.inf, True

    def __init__(
        self, tester: Socket, fingerprint: str, metrics: Metrics, sparse_log: SparseLog
    ) -> None:
        """Know no source."""
        self._tester, self._fingerprint = tester, fingerprint
        self._metrics, self._sparse_log = metrics, sparse_log
        self._peers: dict[str, bytes] = {}
        self._ends: dict[str, int] = {}
        self._known: set[str] = set()
        self._unread: dict[bytes, int] = {}
        self._peer = b""
        self._header_frame: Frame = b""
        self._answers = Answers()
        self._tester_takes = True
        self.n_dropped = 0
        self.on_wait: Callable[[], None] = lambda: None

    @property
    def is_done(self) -> bool:
        """Whether every source that has ended has been told that the tester has all of it."""
        return not self._ends and not self._answers.n_owed

    @property
    def socket(self) -> Socket | None:
        """The ROUTER socket that producers connect to; None until there is one."""
        return self._answers.socket

    @socket.setter
    def socket(self, socket: Socket | None) -> None:
        self._answers.socket = socket

    def receive(self, wait_ms: int) -> list[Frame] | None:
        """Return the frames of the next event message; pass on control messages of both sides."""
        if self.socket is None:
            return None
        until = time.monotonic() + wait_ms / 1e3
        while True:
            self._pass_back()
            parts = receive_parts(self.socket)
            if parts is None:
                left_ms = int(1e3 * (until - time.monotonic()))
                if not self._wait(self.socket, max(0, left_ms)) and left_ms <= 0:
                    return None
                continue
            self._peer = bytes(parts[0])
            if len(parts) != 2:
                self._header_frame = parts[1] if len(parts) > 1 else b""
                return parts[1:]
            self._pass_on(bytes(parts[1]))
            if time.monotonic() > until:  # no flood of them may hold the stream up
                return None

    def admits(self, header: Header) -> bool:
        """Return True: which messages count is the tester's to say."""
        n_unread = self._unread.pop(self._peer, 0)
        if self._is_mine(header.source):
            text = "its header could not be read"
            first = max(0, header.seq - n_unread)
            for seq in range(first, min(header.seq, first + MOST_UNREAD)):
                self._on(protocol.refused(header.source, seq, Reason.HEADER_FORMAT, text))
        self._meet(header.source)
        return True

    def accept(self, header: Header, frames: Sequence[Frame]) -> Admitted:
        """Take a message; what is missing is counted by the tester."""
        del frames
        if header.end and header.source in self._known:
            self._ends[header.source] = header.seq + 1
        return Admitted(0)

    def refuse(self, header: Header | None, exc: MessageError) -> None:
        """Tell the tester that a message will not come, which tells its producer."""
        place = read_place(self._header_frame) if header is None else (header.source, header.seq)
        if place is None:
            # Which one it was shows in the next of this peer that can be read.
            if self._peer in self._unread or len(self._unread) < _MOST_SOURCES:
                self._unread[self._peer] = self._unread.get(self._peer, 0) + 1
            self._answers.say(self._peer, protocol.refused("", -1, exc.reason, str(exc)))
        elif header is None and not self._is_mine(place[0]):
            self._answers.say(self._peer, protocol.who(place[0]))  # no other peer's may be skipped
        else:
            self._on(protocol.refused(*place, exc.reason, str(exc)))

    def send(self, header: Header, embeddings: FloatArray) -> bool:
        """Send one message's embeddings, (n, d); return whether the tester took it in time."""
        frames = encode_embeddings(header, embeddings, self._fingerprint)
        # Once is enough: a whole micro-batch must not wait for a tester that is gone.
        until = time.monotonic() + (_TESTER_WAIT_S if self._tester_takes else 0.0)
        while True:
            with contextlib.suppress(zmq.Again):
                self._tester.send_multipart(frames, zmq.DONTWAIT)
                self._tester_takes = True
                return True
            if time.monotonic() > until:
                break
            self._tester.poll(_POLL_MS, zmq.POLLOUT)
            self.on_wait()
        self._tester_takes = False
        self.n_dropped += 1
        text = "it takes no more, or is not there; producers send again"
        self._sparse_log.log("message not passed to the tester", text)
        return False

    def finish(self) -> None:
        """Let the last answers go out; the sockets are their owner's to close."""
        if self.socket is not None and not self.socket.closed:
            self.socket.setsockopt(zmq.LINGER, _LAST_WORDS_MS)

    def _wait(self, socket: Socket, wait_ms: int) -> bool:
        if self._answers.n_owed:
            wait_ms = min(wait_ms, _OWING_WAIT_MS)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._tester, zmq.POLLIN)
        return bool(poller.poll(max(0, wait_ms)))

    def _pass_on(self, frame: bytes) -> None:
        """Pass a producer's greeting on."""
        try:
            control = decode_control(frame)
        except MessageError as exc:
            self._metrics.rejected[exc.reason] += 1
            self._sparse_log.log(f"message refused ({exc.reason})", str(exc))
            self._answers.say(self._peer, protocol.refused("", -1, exc.reason, str(exc)))
            return
        self._meet(control.source)
        if control.op == "hello":
            self._on(frame)

    def _pass_back(self) -> None:
        """Pass back what the tester has said."""
        self._answers.catch_up()
        while True:
            try:
                frame = self._tester.recv_multipart(zmq.DONTWAIT)[0]
            except zmq.Again:
                return
            try:
                control = decode_control(frame)
            except MessageError as exc:
                self._sparse_log.log("the tester sent what is no control message", str(exc))
                continue
            if control.op == "refused" and not control.source:
                self._sparse_log.log("message refused by the tester", control.text)
            if control.source in self._peers:
                peer = self._peers[control.source]
                if control.op == "ack":
                    self._answers.acknowledge(control.source, peer, frame)
                else:
                    self._answers.say(peer, self._limited(control, frame))
                if control.op == "welcome":
                    # Else its end will never be acknowledged.
                    self._known.add(control.source)
            end = self._ends.get(control.source)
            if end is not None and control.op in ("ack", "welcome") and control.next >= end:
                del self._ends[control.source]

    def _limited(self, control: Control, frame: bytes) -> bytes:
        """Return what to pass back: no message may be larger than both here and there."""
        if control.op != "welcome":
            return frame
        limits = [limit for limit in (control.max_bytes, self._answers.max_bytes) if limit]
        numbers = control.next, control.expected, control.credit
        return protocol.welcome(control.source, *numbers, min(limits, default=0))

    def _is_mine(self, source: str) -> bool:
        """Return whether the peer that speaks was the last to speak for a source."""
        return self._peers.get(source) == self._peer

    def _meet(self, source: str) -> None:
        """Note who speaks for a source; the one that was met longest ago is forgotten first."""
        self._peers.pop(source, None)
        self._peers[source] = self._peer
        if len(self._peers) > _MOST_SOURCES:
            gone = next(iter(self._peers))
            del self._peers[gone]
            self._known.discard(gone)
            self._ends.pop(gone, None)

    def _on(self, frame: bytes) -> None:
        """Send to the tester; what does not go is said again by the producer."""
        with contextlib.suppress(zmq.Again):
            self._tester.send(frame, zmq.DONTWAIT)
