"""One HTTP port: /metrics, /healthz, /readyz, /results.json and a small live page. Read-only."""

import base64
import errno
import hashlib
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import ClassVar, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from engines.errors import EndpointError, ParameterError
from stream.bounded_server import BoundedServer
from stream.kept import Kept
from stream.page_data import unseen
from stream.plain_text import plain_text
from stream.security.http_access import STRANGE_NAME, Password, Verdict, is_own_name

__all__ = ["Page", "parse_address"]

_LOG = logging.getLogger(__name__)
#: What the page shows is so old at most, and /metrics: they are made no oftener, whoever asks.
_FRESH_S, _METRICS_FRESH_S = 0.5, 0.1
_NOT_FOUND = b"there is /, /metrics, /healthz, /readyz and /results.json\n"
_LOADING = b"loading the engine and the reference\n"
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Faults: TypeAlias = Callable[[], list[str]]
_METHODS = ("GET", "HEAD")
_LONGEST_LINE = 300
#: Probes ask these, and learn no more than that the consumer runs.
_OPEN_PATHS = ("/healthz", "/readyz")
_CHALLENGE = 'Basic realm="nplm-stream", charset="UTF-8"'


class Page:
    """What the port shows: not ready until it is given a snapshot to show.

    Args:
        registry: the metrics.
        clock: seconds.

    Attributes:
        snapshot: returns the live page's data, JSON-able; None until the consumer runs.
        faults: each returns the names of parts whose thread has ended, and the work with it.
    """

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start as not ready."""
        self.registry = registry
        self.snapshot: Callable[[], dict[str, object]] | None = None
        self.faults: list[Faults] = []
        self._kept, self._kept_metrics = Kept(_FRESH_S, clock), Kept(_METRICS_FRESH_S, clock)

    def show(self, snapshot: Callable[[], dict[str, object]], faults: Faults) -> None:
        """Be ready: show this, and say so where a part has ended."""
        self.faults.append(faults)
        self.snapshot = snapshot

    def data(self) -> dict[str, object] | None:
        """Return the snapshot, at most half a second old; None if not ready."""
        source = self.snapshot
        return None if source is None else self._kept.get(source, lambda _: source())

    def results(self, query: str) -> bytes | None:
        """Return what of the snapshot a page has not seen, as JSON; None if not ready."""
        source, data = self.snapshot, self.data()
        if data is None:
            return None

        def written(query: str) -> bytes:
            return json.dumps(unseen(data, query), allow_nan=False).encode()

        return self._kept.get((source, "JSON"), written, query)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in a form that is accepted, or as plain text, and their type."""

        def written(accept: str) -> tuple[bytes, str]:
            encode, kind = choose_encoder(accept)
            return encode(self.registry), kind

        return self._kept_metrics.get("metrics", written, accept)

    def serve(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        password: Password | None = None,
    ) -> ThreadingHTTPServer:
        """Serve on a daemon thread; `shutdown` and `server_close` end it.

        Args:
            host: the address to bind.
            port: likewise; 0 for any that is free.
            tls: serves HTTPS; None for HTTP.
            password: needed for all but /healthz and /readyz; None for none.

        Raises:
            EndpointError: if the port is taken or forbidden.
        """
        handler = type("Handler", (_Handler,), {"page": self, "password": password})
        try:
            server = BoundedServer((host, port), handler)
            server.tls = tls
        except (OSError, OverflowError) as exc:
            taken = getattr(exc, "errno", None) == errno.EADDRINUSE
            reason = "another process holds it" if taken else str(exc)
            msg = f"cannot serve HTTP on {host}:{port}: {reason}; choose another port with --http"
            raise EndpointError(msg) from exc
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        return server


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT or PORT.

    Raises:
        ParameterError: if the port is no number from 0 to 65535.

    >>> parse_address("9108")
    ('127.0.0.1', 9108)
    """
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or float(port) > 65535:
        msg = f"an HTTP address must be HOST:PORT or PORT; got {text!r}"
        raise ParameterError(msg)
    return (host.strip("[]") if colon and host else "127.0.0.1"), int(port)


@cache
def _html() -> tuple[bytes, str]:
    """Return the page and its policy: of scripts and styles nothing runs but the page's own."""
    text = (files("stream") / "page.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        for tag, inline in re.findall(r"<(style|script)>(.*?)</\1>", text, re.DOTALL)
    }
    own = "; ".join(f"{tag}-src 'sha256-{digest}'" for tag, digest in hashes.items())
    return text.encode(), f"{_POLICY}; {own}; connect-src 'self'; img-src data:"


class _Handler(BaseHTTPRequestHandler):
    page: ClassVar[Page]
    password: ClassVar[Password | None]
    server: BoundedServer
    server_version = "nplm-stream"
    sys_version = ""
    timeout = 5
    policy = _POLICY

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path not in _OPEN_PATHS and not self._lets_in():
            return
        if path == "/":
            body, self.policy = _html()
            self._send(HTTPStatus.OK, body, "text/html; charset=utf-8")
        elif path == "/metrics":
            self._send(HTTPStatus.OK, *self.page.metrics(self.headers.get("Accept", "")))
        elif path in _OPEN_PATHS:
            self._send_probe(path)
        elif path == "/results.json":
            self._send_data(query)
        else:
            self._send(HTTPStatus.NOT_FOUND, _NOT_FOUND)

    def do_HEAD(self) -> None:
        self.do_GET()

    def parse_request(self) -> bool:
        """Read the request; refuse what would change something."""
        if not super().parse_request():
            return False
        if self.command in _METHODS:
            return True
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"this port can only be read\n")
        return False

    def _send_probe(self, path: str) -> None:
        ended = [name for faults in self.page.faults for name in faults()]
        if ended:
            text = f"{', '.join(ended)} has ended, see the log; start the consumer again\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())
        elif path == "/healthz":
            self._send(HTTPStatus.OK, b"alive\n")
        elif self.page.snapshot is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, _LOADING)
        else:
            self._send(HTTPStatus.OK, b"ready\n")

    def _send_data(self, query: str) -> None:
        body = self.page.results(query)
        if body is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, _LOADING)
        else:
            self._send(HTTPStatus.OK, body, "application/json")

    def _lets_in(self) -> bool:
        """Return whether this client may read; say so to one that may not."""
        verdict: Verdict = True
        if self.password is not None:
            given = self.headers.get("Authorization", "")
            verdict = self.password.check(given, self.client_address[0])
        elif self.server.is_private and not is_own_name(self.headers.get("Host", "localhost")):
            self._send(HTTPStatus.FORBIDDEN, STRANGE_NAME)
            return False
        if verdict is None:
            self._send(HTTPStatus.TOO_MANY_REQUESTS, b"too many passwords; come again\n")
        elif not verdict:
            self._send(HTTPStatus.UNAUTHORIZED, b"this port needs a user and a password\n")
        return bool(verdict)

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(_METHODS))
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", _CHALLENGE)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Lock every answer down, those of the base class to broken requests among them."""
        self.send_header("Content-Security-Policy", self.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        # A request may hold what moves a terminal's cursor.
        _LOG.debug("%s", plain_text(format % args, _LONGEST_LINE))
