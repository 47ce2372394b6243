"""One HTTP port: /metrics, /healthz, /readyz, /results.json and a small live page."""

import errno
import json
import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from engines.errors import EndpointError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Page", "parse_address"]

_LOG = logging.getLogger(__name__)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}


class Page:
    """What the port shows: not ready until it is given a snapshot to show.

    Args:
        registry: the metrics.

    Attributes:
        snapshot: returns the live page's data, JSON-able; None until the consumer runs.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Start as not ready."""
        self.registry = registry
        self.snapshot: Callable[[], dict[str, object]] | None = None

    def serve(self, host: str, port: int) -> ThreadingHTTPServer:
        """Serve on a daemon thread; `shutdown` and `server_close` end it.

        Raises:
            EndpointError: if the port is taken or forbidden.
        """
        handler = type("Handler", (_Handler,), {"page": self})
        try:
            server = _Server((host, port), handler)
        except (OSError, OverflowError) as exc:
            taken = getattr(exc, "errno", None) == errno.EADDRINUSE
            reason = "another process holds it" if taken else str(exc)
            msg = f"cannot serve HTTP on {host}:{port}: {reason}; choose another port with --http"
            raise EndpointError(msg) from exc
        server.daemon_threads = True
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


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        _LOG.debug("a request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    page: ClassVar[Page]
    server_version = "nplm-stream"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._send(HTTPStatus.OK, encode(self.page.registry), kind)
        elif path == "/healthz":
            self._send(HTTPStatus.OK, b"alive\n")
        elif path in ("/readyz", "/results.json") and self.page.snapshot is None:
            loading = b"loading the engine and the reference\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, loading)
        elif path == "/readyz":
            self._send(HTTPStatus.OK, b"ready\n")
        elif path == "/results.json" and self.page.snapshot is not None:
            body = json.dumps(self.page.snapshot(), allow_nan=False).encode()
            self._send(HTTPStatus.OK, body, "application/json")
        elif path in _STATIC:
            name, kind = _STATIC[path]
            self._send(HTTPStatus.OK, (files("stream") / name).read_bytes(), kind)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"there is /, /metrics, /healthz and /readyz\n")

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        _LOG.debug(format, *args)
