"""The thread behind a reliable producer: sends, listens, sends again."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, MutableMapping

import zmq

from engines.errors import ArtifactError, EndpointError, MessageError, NplmStreamError
from stream.delivery.protocol import Control, decode_control, hello
from stream.delivery.spool import Spool
from stream.delivery.wake import Wake
from stream.endpoints import Socket
from stream.message import too_large
from stream.sparse_log import SparseLog

__all__ = ["Link"]

_LOG = logging.getLogger(__name__)
_POLL_MS = 100
#: Without a word from the consumer for so long, say hello again.
_SILENCE_S = 1.0
#: And for so long, on a new connection; each one waits twice as long as that before, up to a limit.
_DEAD_S, _LONGEST_DEAD_S = 5.0, 60.0
_DROP_EVERY = 32
#: A spool that fails is tried again so much later.
_RETRY_S = 0.25


class Link:
    """Sends a source's messages in order, as far as the credit goes, and forgets acknowledged ones.

    Where the consumer is silent it says hello: the answer tells what is on the consumer's disk and
    where to go on. Everything that other threads see is guarded by `changed`.

    Args:
        connect: opens a new DEALER socket.
        source: the source's name.
        following: the `seq` of the next new message.
        pending: frames of messages that are not acknowledged, by `seq`, in order.
        changed: guards it all; told whenever room or an answer comes.
        spool: where acknowledged messages are forgotten too.
        sparse_log: for trouble that may repeat.

    Attributes:
        durable: all `seq` below it are on the consumer's disk; None until it has answered.
        n_refused: messages that the consumer refused for good.
        last_refused: `seq` and reason of the last one.
        max_bytes: payload that it takes in one message; 0 if it has not said.
        trouble: why it does not take this source for now; empty if it does.
    """

    def __init__(
        self,
        connect: Callable[[], Socket],
        source: str,
        following: int,
        pending: MutableMapping[int, list[bytes]],
        changed: threading.Condition,
        spool: Spool | None,
        sparse_log: SparseLog,
    ) -> None:
        """Start the thread."""
        self._connect, self._source, self._changed = connect, source, changed
        self._spool, self._pending, self._following = spool, pending, following
        self._sparse_log = sparse_log
        self.n_bytes = sum(len(frames[1]) for frames in pending.values())
        self.durable: int | None = None
        self.n_refused, self.last_refused = 0, (-1, "")
        self.max_bytes, self.trouble = 0, ""
        self._cursor = self._acknowledged = next(iter(pending), following)
        self._sent, self._resumed = following, False
        self._expected: int | None = None
        self._flying_bytes = self._credit = self._n_undropped = 0
        self._heard_s = self._hello_s = self._drop_s = 0.0
        self._greeted = self._closing = False
        self._patience_s = _DEAD_S
        self._wake = Wake()
        self._fault: NplmStreamError | None = None
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)
        self._thread.start()

    @property
    def n_pending(self) -> int:
        """Messages that are not acknowledged."""
        return len(self._pending)

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._fault is not None:
            raise self._fault

    def begin(self, seq: int) -> None:
        """Set where the first new message will be."""
        with self._changed:
            self._following, self._resumed = seq, True
            if not self._pending:
                self._cursor = self._acknowledged = seq

    def add(self, seq: int, frames: list[bytes]) -> None:
        """Take a message over; call it with `changed` held."""
        self.check()
        if not self._pending:
            self._heard_s = time.monotonic()  # until now nothing was owed
        self._pending[seq] = frames
        self._following = seq + 1
        self.n_bytes += len(frames[1])
        if seq < self._cursor:  # the consumer has it already
            self._flying_bytes += len(frames[1])
        self._check_name()
        self._wake()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wake()
        self._thread.join()
        self._wake.close()

    def _work(self) -> None:
        socket: Socket | None = None
        try:
            while not self._closing:
                if socket is None or self._is_dead():
                    if socket is not None:
                        socket.close(linger=0)
                        self._patience_s = min(2 * self._patience_s, _LONGEST_DEAD_S)
                    socket = self._connect()
                    self._greeted, self._heard_s, self._hello_s = False, time.monotonic(), 0.0
                with self._changed:
                    self._drop()
                    self._greet(socket)
                    can_go_on = self._send(socket)
                self._sleep(socket, to_send=not can_go_on)
                self._listen(socket)
        except (NplmStreamError, zmq.ZMQError) as exc:
            fault = exc if isinstance(exc, NplmStreamError) else EndpointError(str(exc))
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
        finally:
            if socket is not None:
                socket.close(linger=0)

    def _is_dead(self) -> bool:
        """Return whether the consumer owes an answer and has been silent for long."""
        return self._owes() and time.monotonic() - self._heard_s > self._patience_s

    def _owes(self) -> bool:
        return bool(self._pending) or not self._greeted

    def _greet(self, socket: Socket) -> None:
        now = time.monotonic()
        since = max(self._heard_s, self._hello_s)
        if self._hello_s and not (self._owes() and now - since > _SILENCE_S):
            return
        with contextlib.suppress(zmq.Again):
            first = next(iter(self._pending), self._following)
            socket.send(hello(self._source, first), zmq.DONTWAIT)
            self._hello_s = now

    def _sleep(self, socket: Socket, *, to_send: bool) -> None:
        """Wait for a word, for a message to send, or with `to_send` until the socket takes more."""
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if to_send else 0))
        poller.register(self._wake, zmq.POLLIN)
        poller.poll(_POLL_MS)
        self._wake.clear()

    def _send(self, socket: Socket) -> bool:
        """Send what the credit allows; return False where the socket takes no more for now."""
        while self._greeted and (frames := self._pending.get(self._cursor)) is not None:
            size = len(frames[1])
            if reason := too_large(self._cursor, frames, self.max_bytes):
                if self._flying_bytes:
                    break  # those before it arrive first
                raise EndpointError(reason)
            if self._flying_bytes and self._flying_bytes + size > self._credit:
                break
            try:
                socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                return False
            if not self._flying_bytes:
                self._heard_s = time.monotonic()  # it owes an answer from now on
            self._flying_bytes += size
            self._cursor += 1
            self._sent = max(self._sent, self._cursor)
        return True

    def _listen(self, socket: Socket) -> None:
        """Take every control message that has arrived."""
        while True:
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                control = decode_control(frames[0])
            except MessageError as exc:
                _LOG.warning("the consumer sent what is no control message (%s)", exc)
                continue
            if control.source in (self._source, ""):
                with self._changed:
                    self._take(control)
                    self._changed.notify_all()

    def _take(self, control: Control) -> None:
        self._heard_s, self._patience_s = time.monotonic(), _DEAD_S
        if control.op == "welcome":
            self._expected, self.trouble = control.expected, ""
            self.max_bytes = control.max_bytes
            self._check_name()
            self._acknowledge(control.next)
            self.durable, self._credit, self._greeted = control.next, control.credit, True
            first = next(iter(self._pending), self._following)
            if control.expected < first:
                self._hello_s = 0.0  # it waits for what is not held here: say so
            self._cursor = max(control.expected, first if self._pending else control.expected)
            self._flying_bytes = sum(
                len(frames[1]) for seq, frames in self._pending.items() if seq < self._cursor
            )
        elif control.op == "ack":
            self._acknowledge(control.next)
            self._credit = control.credit
        elif control.op == "who":
            self._greeted, self._hello_s = False, 0.0
        elif control.op == "refused" and control.seq < 0:
            self.trouble = f" (it says: {control.text})"
        elif control.op == "refused":
            self._refused(control)

    def _refused(self, control: Control) -> None:
        text = f"message {control.seq} was refused: {control.text}"
        self._sparse_log.log(f"source {self._source!r}", text, logging.ERROR)
        if control.seq > self.last_refused[0]:  # one that was sent again is told again
            self.n_refused += 1
            self.last_refused = control.seq, control.text

    def _check_name(self) -> None:
        """Fail where the consumer has messages under numbers that are new here: they are others.

        Whoever has resumed makes the same ones again.
        """
        if self._resumed or self._expected is None:
            return
        if self._sent < self._expected and self._sent in self._pending:
            msg = (
                f"the consumer has messages of source {self._source!r} up to {self._expected - 1}, "
                f"but message {self._sent} is new here; use a source name of its own for each run, "
                "keep a spool, or resume"
            )
            raise EndpointError(msg)

    def _acknowledge(self, following: int) -> None:
        """Forget what is below `following`."""
        while self._pending and (seq := next(iter(self._pending))) < following:
            size = len(self._pending.pop(seq)[1])
            self.n_bytes -= size
            if seq < self._cursor:
                self._flying_bytes -= size
            self._n_undropped += 1
        self._acknowledged = max(self._acknowledged, following)
        self._cursor = max(self._cursor, following)
        self._drop()

    def _drop(self) -> None:
        """Forget in the spool what is acknowledged; where that fails, later."""
        enough = self._n_undropped >= _DROP_EVERY or not self._pending
        now = time.monotonic()
        if self._spool is None or not (self._n_undropped and enough) or now < self._drop_s:
            return
        try:
            self._spool.drop_below(self._acknowledged)
        except ArtifactError as exc:
            self._drop_s = now + _RETRY_S
            self._sparse_log.log("acknowledged messages stay in the spool", f"{exc}; trying again")
        else:
            self._n_undropped = 0
