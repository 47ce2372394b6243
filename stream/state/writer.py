"""The thread that writes the state: the stream hands messages over and goes on.

What comes while a write is under way is written together by the next one, so the disk's speed sets
the size of the writes and not the rate of the stream. A disk that is full or gone is tried again
until it is not: meanwhile nothing is acknowledged, and producers wait.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from engines.errors import StateError
from stream.sparse_log import SparseLog
from stream.state.store import StateStore, StoredMessage

__all__ = ["StateWriter"]

_LOG = logging.getLogger(__name__)
_RETRY_S = 0.25
_LAST_TRIES_S = 3.0
#: A write that takes so long hangs: a network disk that is gone returns neither data nor an error.
_HANGS_S = 10.0
_MAX_BYTES = 64 << 20
#: What a message takes beside its frames.
_MESSAGE_BYTES = 1024


class _Pending:
    """What the next write holds."""

    def __init__(self) -> None:
        self.messages: list[StoredMessage] = []
        self.sources: dict[str, int] = {}
        self.about: dict[str, Any] = {}
        self.first_needed = 0
        self.n_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.messages or self.sources or self.about)


class StateWriter:
    """Writes what two threads hand over, in order.

    Args:
        store: where to; used by no other thread from now on.
        sparse_log: for a disk that fails.
        written: called on the writer's thread with the sources whose messages are now on the disk,
            the seconds that it took and how often it had failed before.
        stopped: asked while the stream waits for a disk that fails; true gives up.
        max_bytes: of messages that may wait to be written; the stream waits beyond it.

    Attributes:
        max_bytes: that.
        on_wait: called ten times a second or oftener while `put` waits, by the thread that waits.
    """

    def __init__(
        self,
        store: StateStore,
        sparse_log: SparseLog,
        written: Callable[[Mapping[str, int], float, int], None],
        stopped: Callable[[], bool] = lambda: False,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Start the thread."""
        self._store, self._sparse_log, self._written = store, sparse_log, written
        self._stopped, self.max_bytes = stopped, max_bytes
        self.on_wait: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._pending = _Pending()
        self._writing_bytes = 0
        self._n_settled = self._n_settling = 0
        self._closing = self._gave_up = self._fails = False
        self._overdue_s: float | None = None
        self._writing_since_s: float | None = None
        self._told_hang = False
        self._thread = threading.Thread(target=self._work, name="state", daemon=True)
        self._thread.start()

    @property
    def n_bytes(self) -> int:
        """Bytes of messages that wait to be on the disk."""
        return self._pending.n_bytes + self._writing_bytes

    def put(
        self,
        source: str,
        following: int,
        message: StoredMessage | None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Hand a message over, or only that its source has moved on; waits while too much waits.

        To be called by one thread, the stream's.

        Args:
            source: whose.
            following: the `seq` that comes next.
            message: the message, if it is to be kept.
            about: values by name, written together with it.

        Raises:
            StateError: if the disk fails and the consumer is to stop.
        """
        size = 0 if message is None else _size(message)
        while self._must_wait(size):
            self.on_wait()
        with self._changed:
            if message is not None:
                self._pending.messages.append(message)
                self._pending.n_bytes += size
            self._pending.sources.pop(source, None)  # the last to be written goes to the end
            self._pending.sources[source] = following
            self._pending.about.update(about or {})
            self._changed.notify_all()

    def _must_wait(self, size: int) -> bool:
        """Wait a moment if so many bytes have no room yet; return whether there was none."""
        with self._changed:
            self._check()
            if not self.n_bytes or self.n_bytes + size <= self.max_bytes:
                return False
            self._changed.wait(0.1)
        return True

    def note(self, about: Mapping[str, Any]) -> None:
        """Hand values by name over, and do not wait for them to be on the disk."""
        with self._changed:
            self._pending.about.update(about)
            self._changed.notify_all()

    @property
    def is_alive(self) -> bool:
        """Whether what is handed over will be written; once closed it is."""
        return self._closing or self._thread.is_alive()

    def settle(self, about: Mapping[str, Any], first_needed: int) -> None:
        """Write values by name, and forget messages of lower numbers; on the disk on return.

        Raises:
            StateError: if the disk fails and the consumer is to stop; from then on always, as
                what comes later must not be written over what was not.
        """
        with self._changed:
            self._check()
            self._pending.about.update(about)
            self._pending.first_needed = max(self._pending.first_needed, first_needed)
            self._n_settling += 1
            mine = self._n_settling
            self._changed.notify_all()
            while self._n_settled < mine:
                self._changed.wait(0.1)
                self._check()

    def close(self) -> bool:
        """Write what waits, end the thread and close the file; return whether all was written.

        A thread that hangs is left behind with its file.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until_s = time.monotonic() + _LAST_TRIES_S
        while self._thread.is_alive():
            self._thread.join(0.1)
            if self._hangs() and time.monotonic() > until_s:
                _LOG.error("gave up writing the state to %s, which hangs", self._store.path)
                return False
        self._store.close()
        return not self._gave_up

    def _check(self) -> None:
        """Give up, for good, on a disk that still fails or hangs some seconds after the stop."""
        hangs = self._hangs()
        if hangs and not self._told_hang:
            text = "%s takes more than %.0f s to write: its disk hangs, nothing is acknowledged"
            _LOG.warning(text, self._store.path, _HANGS_S)
        self._told_hang = hangs
        if not ((self._fails or hangs) and self._stopped()):
            self._overdue_s = None
        elif self._overdue_s is None:
            self._overdue_s = time.monotonic() + _LAST_TRIES_S
        elif time.monotonic() > self._overdue_s:
            self._gave_up = True
        if self._gave_up:
            msg = (
                f"the state could not be written to {self._store.path}: what was not written was "
                "not acknowledged either; make room there and start again"
            )
            raise StateError(msg)

    def _hangs(self) -> bool:
        since_s = self._writing_since_s
        return since_s is not None and time.monotonic() - since_s > _HANGS_S

    def _work(self) -> None:
        try:
            self._write_all()
        except Exception:  # noqa: BLE001 - nobody may wait for a thread that is gone
            _LOG.exception("the state is not written any more")
            with self._changed:
                self._gave_up = True
                self._changed.notify_all()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                batch, self._pending = self._pending, _Pending()
                self._writing_bytes = batch.n_bytes
                settling = self._n_settling
            if batch and not self._write(batch):
                with self._changed:
                    self._gave_up = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._writing_bytes = 0
                self._n_settled = settling
                self._changed.notify_all()
                if self._closing and not self._pending:
                    return

    def _write(self, batch: _Pending) -> bool:
        """Write a batch, however often it takes; return False where it was given up at the end."""
        started, n_failed = time.monotonic(), 0
        give_up = None
        while True:
            self._writing_since_s = time.monotonic()
            try:
                self._store.write(batch.messages, batch.sources, batch.about, batch.first_needed)
            except sqlite3.Error as exc:
                n_failed += 1
                self._fails, self._writing_since_s = True, None
                reason = self._store.reason(exc)
                text = f"{self._store.path}: {reason}; nothing is acknowledged until it can be"
                self._sparse_log.log("state not written", text)
                self._written({}, 0.0, 1)
                now = time.monotonic()
                if self._closing:
                    give_up = give_up or now + _LAST_TRIES_S
                    if now > give_up or self._gave_up:
                        _LOG.error("gave up writing the state to %s (%s)", self._store.path, reason)
                        return False
                time.sleep(_RETRY_S)
            else:
                self._fails, self._writing_since_s = False, None
                self._written(batch.sources, time.monotonic() - started, 0)
                if n_failed:
                    _LOG.warning("the state can be written to %s again", self._store.path)
                return True


def _size(message: StoredMessage) -> int:
    frames = (message.header, message.payload)
    return sum((memoryview(frame).nbytes for frame in frames), start=_MESSAGE_BYTES)
