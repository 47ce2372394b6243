"""The consumer's side of the reliable exchange: a message is acknowledged once it is on the disk.

Each source's messages are accepted in their order without a gap. One that was accepted before is
acknowledged again and not counted again; one that comes too early is dropped, and its producer told
where to go on. So whatever dies and whatever the network does, each message counts once.
"""

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
from stream.delivery.wake import Wake
from stream.endpoints import Socket
from stream.message import REASONS, Frame, Header, Reason
from stream.metrics import Metrics
from stream.sparse_log import SparseLog
from stream.state.run import RunState

__all__ = ["ReliableDelivery"]

#: Shared by all sources that are connected.
_CREDIT_BYTES = 64 << 20
_LEAST_CREDIT_BYTES = 256 << 10
_LAST_WORDS_MS = 1000
_OWING_WAIT_MS = 10
#: Sources that are recognised when they come again.
_MOST_KNOWN = 10_000


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
        self._expected, self._durable = known, dict(known)
        self._missing = dict(state.missing)
        self._told_gap: set[str] = set()
        self._peers: dict[str, bytes] = {}
        self._seen_s: dict[str, float] = {}
        self._ended: set[str] = set()
        self._peer = b""
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
        source, expected = header.source, self._expected.get(header.source)
        if expected is None:
            self._answers.say(self._peer, protocol.who(source))
            return False
        self._meet(source)
        if header.seq == expected:
            self._told_gap.discard(source)
            return True
        if header.seq < expected:
            self._metrics.n_duplicates += 1
            self._answers.say(
                self._peer, protocol.ack(source, self._durable[source], self._credit())
            )
        elif source not in self._told_gap:
            self._told_gap.add(source)
            self._welcome(source)
        return False

    def accept(self, header: Header, frames: Sequence[Frame]) -> Admitted:
        """Take the next message of a source; it is acknowledged when it is on the disk.

        Raises:
            ArtifactError: if it cannot be stored and the consumer is to stop.
        """
        self._expected[header.source] = header.seq + 1
        if header.end:
            self._ended.add(header.source)
        n_missing = self._missing.pop(header.source, 0)
        pair = (frames[0], frames[1])
        return Admitted(n_missing, self._state.accept(header.source, header.seq, n_missing, pair))

    def refuse(self, header: Header | None, exc: MessageError) -> None:
        """Tell a producer that a message was refused for good, and go on with its next."""
        if header is None:
            self._answers.say(self._peer, protocol.refused("", -1, exc.reason, str(exc)))
            return
        source, seq = header.source, header.seq
        self._skip(source, seq)
        self._answers.say(self._peer, protocol.refused(source, seq, exc.reason, str(exc)))

    def finish(self) -> None:
        """Send the acknowledgements that are left; the socket is its owner's to close."""
        until = self._clock() + _LAST_WORDS_MS / 1e3
        self._acknowledge()
        while self._answers.n_owed and self._clock() < until:
            time.sleep(0.01)
            self._answers.catch_up()
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
        durable = self._state.durable()
        for source, following in durable.items():
            self._durable[source] = following
            if source in self._peers:
                text = protocol.ack(source, following, self._credit())
                self._answers.acknowledge(source, self._peers[source], text)
            if source in self._ended and following == self._expected[source]:
                self._ended.discard(source)
                self._leave(source)

    def _take_control(self, frame: Frame) -> None:
        source = ""
        try:
            control = decode_control(frame)
            source = control.source
            self._greet(control)
        except MessageError as exc:
            self._metrics.rejected[exc.reason] += 1
            self._sparse_log.log(f"message refused ({exc.reason})", str(exc))
            self._answers.say(self._peer, protocol.refused(source, -1, exc.reason, str(exc)))

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
        source, expected = control.source, self._expected.get(control.source)
        if source not in self._peers and self._n_present() >= self._max_sources:
            msg = f"{self._max_sources} sources are connected, no more are taken; got {source!r}"
            raise MessageError(Reason.TOO_MANY_SOURCES, msg)
        if expected is None:
            self._forget_oldest()
            expected = self._expected[source] = self._durable[source] = control.first
        elif control.first > expected:
            n_missing = control.first - expected
            self._missing[source] = self._missing.get(source, 0) + n_missing
            self._expected[source] = control.first
            text = f"source {source!r} goes on with {control.first}, {expected} was to come"
            self._sparse_log.log("missing messages", text)
        self._meet(source)
        self._told_gap.discard(source)
        self._welcome(source)

    def _pass_over(self, control: Control) -> None:
        """Go on without a message that an embedder has refused, if it is the next."""
        source, seq = control.source, control.seq
        if self._expected.get(source) != seq:
            return
        self._meet(source)
        reason = control.reason if control.reason in REASONS else Reason.EMBEDDING
        self._metrics.rejected[reason] += 1
        self._skip(source, seq)
        self._answers.say(self._peer, protocol.refused(source, seq, reason, control.text))

    def _skip(self, source: str, seq: int) -> None:
        """Leave a message out for good: it is missing to its windows."""
        self._expected[source] = seq + 1
        self._missing[source] = self._missing.get(source, 0) + 1
        self._state.pass_over(source, seq, self._missing[source])

    def _meet(self, source: str) -> None:
        self._peers[source], self._seen_s[source] = self._peer, self._clock()

    def _n_present(self) -> int:
        """Return how many sources were heard of within the hour; let go of the others."""
        since = self._clock() - 3600.0
        for source in [source for source, seen_s in self._seen_s.items() if seen_s < since]:
            self._leave(source)
        return len(self._peers)

    def _leave(self, source: str) -> None:
        """Let a source that is done make room for others; it is known all the same."""
        self._seen_s.pop(source, None)
        self._peers.pop(source, None)

    def _forget_oldest(self) -> None:
        """Make room for the name of a new source: hostile ones have any number of them."""
        if len(self._expected) >= _MOST_KNOWN:
            gone = next((name for name in self._expected if name not in self._peers), None)
            if gone is not None:
                del self._expected[gone], self._durable[gone]
                self._missing.pop(gone, None)
                self._told_gap.discard(gone)
                self._ended.discard(gone)
                self._state.forget(gone)

    def _welcome(self, source: str) -> None:
        following = min(self._durable[source], self._expected[source])
        text = protocol.welcome(source, following, self._expected[source], self._credit())
        self._answers.say(self._peers[source], text)

    def _credit(self) -> int:
        return max(_LEAST_CREDIT_BYTES, _CREDIT_BYTES // max(1, len(self._peers)))
