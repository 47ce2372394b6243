"""The consumer's side of the reliable exchange: a message is acknowledged once it is on the disk.

Each source's messages are accepted in their order without a gap. One that was accepted before is
acknowledged again and not counted again; one that comes too early is dropped, and its producer told
where to go on. So whatever dies and whatever the network does, each message counts once.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence

import zmq

from engines.errors import MessageError
from stream.delivery import protocol
from stream.delivery.admission import Admitted
from stream.delivery.answers import Answers
from stream.delivery.plain import receive_parts
from stream.delivery.protocol import Control, decode_control
from stream.delivery.sources import Source, Sources
from stream.delivery.wake import Wake
from stream.endpoints import Socket
from stream.header import REASONS, Frame, Header, Reason, read_place
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState

__all__ = ["MOST_UNREAD", "ReliableDelivery"]

#: Shared by all sources that are connected.
_CREDIT_BYTES = 64 << 20
_LEAST_CREDIT_BYTES = 256 << 10
_LAST_WORDS_MS = 1000
_OWING_WAIT_MS = 10
#: Messages without a readable header that are passed over at a time; the rest come again.
MOST_UNREAD = 1000


class ReliableDelivery:
    """Takes messages from a ROUTER socket and acknowledges them; receiver and admission in one.

    Used by one thread. Others only wake it, when something is on the disk.

    Args:
        state: where messages are kept, and which sources are known.
        metrics: counts duplicates and what went missing.
        sparse_log: for trouble that may repeat.
        max_sources: sources that may be at it at once.
        clock: seconds.
    """

    #: A producer's spool may have waited for any time.
    max_age_s, lasts = math.inf, True

    def __init__(
        self,
        state: RunState,
        metrics: Metrics,
        sparse_log: SparseLog,
        *,
        max_sources: int = 500,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know the sources that the state knows."""
        self._state, self._metrics, self._sparse_log = state, metrics, sparse_log
        self._max_sources, self._clock = max_sources, clock
        known = {name: seq for name, seq in state.sources.items() if seq < protocol.END}
        self._sources = Sources(known, state.missing, clock)
        self._peer = b""
        self._header_frame: Frame = b""
        self._answers = Answers()
        self._wake = Wake()
        state.on_durable = self._wake

    @property
    def socket(self) -> Socket | None:
        """The ROUTER socket; None until there is one, and exchangeable."""
        return self._answers.socket

    @socket.setter
    def socket(self, socket: Socket | None) -> None:
        self._answers.socket = socket

    def receive(self, wait_ms: int) -> list[Frame] | None:
        """Return the frames of the next event message; acknowledge, and answer control messages."""
        if self.socket is None:
            return None
        until = self._clock() + wait_ms / 1e3
        while True:
            self._acknowledge()
            frames = self._next(self.socket)
            if frames is None:
                left_ms = int(1e3 * (until - self._clock()))
                if not self._wait(self.socket, max(0, left_ms)) and left_ms <= 0:
                    return None
            elif len(frames) == 1:
                self._take_control(frames[0])
                if self._clock() > until:  # no flood of them may hold the stream up
                    return None
            else:
                return frames

    def admits(self, header: Header) -> bool:
        """Return whether a message is the next of its source; tell its producer if it is not."""
        return self._is_next(header.source, header.seq)

    def accept(self, header: Header, frames: Sequence[Frame]) -> Admitted:
        """Take the next message of a source; it is acknowledged when it is on the disk.

        Raises:
            ArtifactError: if it cannot be stored and the consumer is to stop.
        """
        source = self._sources[header.source]
        source.expected = header.seq + 1
        source.ended |= header.end
        n_missing, source.missing = source.missing, 0
        pair = (frames[0], frames[1])
        return Admitted(n_missing, self._state.accept(header.source, header.seq, n_missing, pair))

    def refuse(self, header: Header | None, exc: MessageError) -> None:
        """Tell a producer that a message was refused for good, and go on with its next."""
        if header is not None:
            self._skip(header.source, header.seq, exc.reason, str(exc))
            return
        place = read_place(self._header_frame)
        if exc.reason == Reason.ENGINE:  # of a right embedder the message will be taken
            name = place[0] if place is not None else ""
            self._answers.say(self._peer, protocol.refused(name, -1, exc.reason, str(exc)))
            return
        mine = self._sources.of(self._peer)
        if place is None:
            # Which one it was shows in the next that can be read, if the peer has one source.
            name = mine[0] if len(mine) == 1 else ""
            if name:
                self._sources[name].n_unread += 1
            self._answers.say(self._peer, protocol.refused(name, -1, exc.reason, str(exc)))
        elif place[0] not in mine:
            self._answers.say(self._peer, protocol.who(place[0]))  # no other peer's may be skipped
        elif self._is_next(*place):
            self._skip(*place, exc.reason, str(exc))

    def finish(self) -> None:
        """Acknowledge all that is on the disk; the socket is its owner's to close.

        Those who have asked meanwhile, on a new connection after a long silence, are answered too.
        """
        until = self._clock() + _LAST_WORDS_MS / 1e3
        self._answers.n_undelivered = 0
        self._acknowledge()
        if self.socket is not None and self.socket.closed:
            self.socket = None
        while self.socket is not None and self._clock() < until:
            if (frames := self._next(self.socket)) is not None:
                self._answer_last(frames)
            elif self._answers.n_owed or self._answers.n_undelivered:
                time.sleep(0.01)
                self._answers.catch_up()
            else:
                break
        if self.socket is not None:
            self.socket.setsockopt(zmq.LINGER, _LAST_WORDS_MS)
        self._state.on_durable = lambda: None
        self._wake.close()

    def _next(self, socket: Socket) -> list[Frame] | None:
        """Return the frames of what has arrived, without the peer's name."""
        parts = receive_parts(socket)
        if parts is None:
            return None
        self._peer = bytes(parts[0])
        self._header_frame = parts[1] if len(parts) > 1 else b""
        return parts[1:]

    def _wait(self, socket: Socket, wait_ms: int) -> bool:
        """Wait for a message, or until something is on the disk."""
        if self._answers.n_owed:
            wait_ms = min(wait_ms, _OWING_WAIT_MS)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        ready = poller.poll(wait_ms)
        self._wake.clear()
        return bool(ready)

    def _acknowledge(self) -> None:
        self._answers.catch_up()
        for name, following in self._state.durable().items():
            source = self._sources.get(name)
            if source is None:
                continue
            source.durable = following
            if source.peer:
                text = protocol.ack(name, following, self._credit())
                self._answers.acknowledge(name, source.peer, text)
            if source.ended and following == source.expected:
                source.ended = False
                self._sources.leave(name)

    def _take_control(self, frame: Frame) -> None:
        name = ""
        try:
            control = decode_control(frame)
            name = control.source
            self._greet(control)
        except MessageError as exc:
            self._metrics.rejected[exc.reason] += 1
            self._sparse_log.log(f"message refused ({exc.reason})", str(exc))
            self._answers.say(self._peer, protocol.refused(name, -1, exc.reason, str(exc)))

    def _greet(self, control: Control) -> None:
        """Tell a producer where its source stands.

        A producer that no longer holds what comes next has lost it: that is counted as missing.

        Raises:
            MessageError: if it is no greeting, or there are too many sources.
        """
        if control.op == "refused" and control.source:
            self._pass_over(control)
            return
        if control.op != "hello":
            msg = f"a producer may send 'hello'; got {control.op!r}"
            raise MessageError(Reason.OUT_OF_RANGE, msg)
        name, first = control.source, control.first
        if not self._sources.is_present(name):
            self._sources.let_go()
            if self._sources.n_present >= self._max_sources:
                msg = f"{self._max_sources} sources are connected, no more are taken; got {name!r}"
                raise MessageError(Reason.TOO_MANY_SOURCES, msg)
        source = self._sources.get(name) or self._begin(name, first)
        if first > source.expected:
            text = f"source {name!r} goes on with {first}, {source.expected} was to come"
            self._sparse_log.log("missing messages", text)
            source.missing += first - source.expected
            source.expected = first
        self._meet(name)
        self._welcome(name, source)

    def _answer_last(self, frames: Sequence[Frame]) -> None:
        """Tell who says hello what is on the disk; nothing else is taken any more."""
        with contextlib.suppress(MessageError):
            control = decode_control(frames[0])
            source = self._sources.get(control.source)
            if control.op == "hello" and source is not None:
                self._welcome(control.source, source)

    def _begin(self, name: str, first: int) -> Source:
        source, gone = self._sources.begin(name, first)
        if gone:
            self._state.forget(gone)
        return source

    def _pass_over(self, control: Control) -> None:
        """Go on without a message that an embedder has refused, if it is the next."""
        name, seq = control.source, control.seq
        source = self._sources.get(name)
        if source is None or source.expected != seq or source.peer != self._peer:
            return
        self._meet(name)
        reason = control.reason if control.reason in REASONS else Reason.EMBEDDING
        self._metrics.rejected[reason] += 1
        self._skip(name, seq, reason, control.text)

    def _is_next(self, name: str, seq: int) -> bool:
        """Return whether a source's message is the next; tell its producer if it is not."""
        source = self._sources.get(name)
        if source is None:
            self._answers.say(self._peer, protocol.who(name))
            return False
        self._meet(name)
        n_unread, source.n_unread = source.n_unread, 0
        if seq - n_unread <= source.expected < seq:  # those without a header were the next ones
            for unread in range(source.expected, min(seq, source.expected + MOST_UNREAD)):
                self._skip(name, unread, Reason.HEADER_FORMAT, "its header could not be read")
        if seq == source.expected:
            source.told_gap = False
            return True
        if seq < source.expected:
            self._metrics.n_duplicates += 1
            self._answers.say(self._peer, protocol.ack(name, source.durable, self._credit()))
        elif not source.told_gap:
            self._welcome(name, source)
            source.told_gap = True
        return False

    def _skip(self, name: str, seq: int, reason: str, text: str) -> None:
        """Leave the next message of a source out for good: it is missing to its windows."""
        source = self._sources[name]
        source.expected, source.told_gap = seq + 1, False
        source.missing += 1
        self._state.pass_over(name, seq, source.missing)
        self._answers.say(self._peer, protocol.refused(name, seq, reason, text))

    def _meet(self, name: str) -> None:
        if self._sources.meet(name, self._peer):
            text = f"two connections take turns as {name!r}; nothing counts twice; end one of them"
            self._sparse_log.log("two producers use one name", text)

    def _welcome(self, name: str, source: Source) -> None:
        source.told_gap = False
        following, expected = min(source.durable, source.expected), source.expected
        max_bytes = self._answers.max_bytes
        text = protocol.welcome(name, following, expected, self._credit(), max_bytes)
        self._answers.say(self._peer, text)

    def _credit(self) -> int:
        return max(_LEAST_CREDIT_BYTES, _CREDIT_BYTES // max(1, self._sources.n_present))
