"""Alarms told to a webhook: on a thread of its own, tried again, never waited for by the stream."""

import json
import logging
import threading
from collections import Counter
from queue import Empty, Full, Queue
from urllib.parse import urlsplit

import urllib3

from engines.errors import ParameterError
from stream.results import duration
from stream.sparse_log import SparseLog
from stream.window_result import WindowResult

__all__ = ["Webhook"]

_LOG = logging.getLogger(__name__)
_CAPACITY = 64
_TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
#: 0, 1, 2, 4, 8 s apart. A POST may be repeated: its `id` says that it is the same alarm.
_RETRIES = urllib3.Retry(
    total=5,
    backoff_factor=0.5,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
    allowed_methods=None,
)
_LAST_WAIT_S = 5.0
_ANSWERED = range(200, 300)


class Webhook:
    """Posts each alarm, when its first window is tested, as JSON.

    The body holds `text`, one sentence for people (what chat services show), `id`, the same in
    every attempt, and `result`, the window's line of the results.

    Args:
        url: http or https.
        outcomes: counts `delivered`, `failed` and `dropped` alarms.
        sparse_log: for trouble that may repeat.
        retries: how often to try again, and when.

    Raises:
        ParameterError: if the URL is none.
    """

    def __init__(
        self,
        url: str,
        outcomes: Counter[str],
        sparse_log: SparseLog,
        retries: urllib3.Retry = _RETRIES,
    ) -> None:
        """Start the thread."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"a webhook must be a URL such as https://host/path; got {url!r}"
            raise ParameterError(msg)
        self._url, self._place = url, f"{parts.scheme}://{parts.hostname}"
        self._outcomes, self._sparse_log = outcomes, sparse_log
        # It logs the path of each attempt, where chat services keep their secret.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._pool, self._retries = urllib3.PoolManager(timeout=_TIMEOUT), retries
        self._queue: Queue[WindowResult | None] = Queue(_CAPACITY)
        self._n_left = 0
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
        self._thread.start()

    @property
    def capacity(self) -> int:
        """Alarms that may wait."""
        return self._queue.maxsize

    @property
    def n_waiting(self) -> int:
        """Alarms that wait."""
        return self._queue.qsize()

    def write(self, result: WindowResult) -> None:
        """Queue the window if it opens an alarm; one that finds the queue full is dropped."""
        if not result.onset:
            return
        try:
            self._queue.put_nowait(result)
        except Full:
            self._outcomes["dropped"] += 1
            self._sparse_log.log("notification dropped", f"{_CAPACITY} wait for {self._place}")

    @property
    def is_done(self) -> bool:
        """Whether it was closed with nothing left to tell."""
        return not self._n_left and not self._thread.is_alive()

    def close(self) -> None:
        """Deliver what waits, for at most five seconds; the rest counts as failed."""
        try:
            self._queue.put(None, timeout=_LAST_WAIT_S)
        except Full:
            pass
        else:
            self._thread.join(_LAST_WAIT_S)
        self._n_left = self._drain()
        if self._n_left:
            self._outcomes["failed"] += self._n_left
            _LOG.warning("%d notifications were not delivered to %s", self._n_left, self._place)

    def _drain(self) -> int:
        """Take out what waits; return how many alarms."""
        n = 0
        while True:
            try:
                n += self._queue.get_nowait() is not None
            except Empty:
                return n

    def _work(self) -> None:
        while (result := self._queue.get()) is not None:
            trouble = self._post(result)
            self._outcomes["failed" if trouble else "delivered"] += 1
            if trouble:
                self._sparse_log.log("notification failed", f"{self._place}: {trouble}")

    def _post(self, result: WindowResult) -> str:
        """Return what went wrong, or nothing; the URL may hold a secret, so it is not named."""
        try:
            status = self._status(_body(result))
        except urllib3.exceptions.MaxRetryError as exc:
            return type(exc.reason or exc).__name__
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            return type(exc).__name__
        return "" if status in _ANSWERED else f"it answered {status}"

    def _status(self, body: dict[str, object]) -> int:
        """Post until it is answered for good, by this URL alone.

        The status alone is read: what follows may have no end, and urllib3 reads it to try again.
        """
        retries = self._retries
        while True:
            answer = self._pool.request(
                *("POST", self._url),
                json=body,
                redirect=False,
                preload_content=False,
                retries=retries.new(status_forcelist=(), respect_retry_after_header=False),
            )
            answer.close()
            if not retries.is_retry("POST", answer.status):
                return answer.status
            retries = retries.increment("POST", self._url, answer)
            retries.sleep(answer)


def _body(result: WindowResult) -> dict[str, object]:
    name = f"window {result.window}"
    name += f" of scale {result.scale}" if result.scale > 1 else ""
    text = (
        f"ALARM in {name} of run {result.run}: Z {result.z_alarm:.1f}, t {result.t:.1f}, expected "
        f"from background once in {duration(result.inverse_far_s)}"
    )
    key = f"{result.run}/{result.scale}/{result.window}"
    # Through JSON: what it cannot hold is found here, in one place.
    return {"text": text, "id": key, "result": json.loads(json.dumps(result.record()))}
