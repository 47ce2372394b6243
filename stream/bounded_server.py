"""An HTTP server that strangers cannot make heavy: few connections at once, none for long."""

import contextlib
import logging
import socket
import ssl
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

__all__ = ["BoundedServer"]

_LOG = logging.getLogger(__name__)
_MOST = 32
_MOST_FAULTS = 20
_LONGEST_S, _LONGEST_CROWDED_S = 10.0, 1.0
_HANDSHAKE_S = 5.0
_BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n"
    b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    b"busy with other connections\n"
)


class BoundedServer(ThreadingHTTPServer):
    """A thread a connection, at most 32 of them; the others are told 503 and to come again.

    A connection ends after 10 s whatever its client does, after 1 s while no place is free. So slow
    clients that go away let the others in within a second; hundreds that come again at once keep
    them out, though never the stream.

    Attributes:
        tls: what serves HTTPS; None for HTTP. Each handshake is its connection's thread's, so that
            a client that stops halfway keeps nobody waiting.
    """

    tls: ssl.SSLContext | None = None

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], *args: Any) -> None:  # noqa: ANN401 - the base's
        """Bind as the base class does, also to an address of IPv6."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._lock = threading.Lock()
        self._opened_s: dict[socket.socket, float] = {}
        self._faults: set[str] = set()
        super().__init__(address, *args)

    @property
    def is_private(self) -> bool:
        """Whether it is this machine's alone and speaks HTTP."""
        return self.tls is None and ip_address(str(self.server_address[0])).is_loopback

    @property
    def n_open(self) -> int:
        """Connections being answered now."""
        return len(self._opened_s)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; nothing is read from it yet."""
        request, address = super().get_request()
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, address

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Shake hands and answer, on the connection's own thread."""
        if self.tls is not None:
            request.settimeout(_HANDSHAKE_S)
            request.do_handshake()
        super().finish_request(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer on a thread of its own, or say at once that there is none."""
        with self._lock:
            has_place = len(self._opened_s) < _MOST
            if has_place:
                self._opened_s[request] = time.monotonic()
        if has_place:
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            if self.tls is None:
                request.send(_BUSY)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """Close a connection and give its place back."""
        with self._lock:
            self._opened_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End what has been open for too long; the base calls this twice a second, or oftener."""
        super().service_actions()
        now = time.monotonic()
        with self._lock:
            longest_s = _LONGEST_S if len(self._opened_s) < _MOST else _LONGEST_CROWDED_S
            old = [held for held, since in self._opened_s.items() if now - since > longest_s]
            for held in old:
                with contextlib.suppress(OSError):
                    # Not the TLS socket's own, which would pull it from under its thread.
                    socket.socket.shutdown(held, socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Log a fault of ours once; what a broken connection raised, for those who ask for it."""
        fault = sys.exception()
        if isinstance(fault, OSError) or repr(fault) in self._faults:
            _LOG.debug("a request of %s failed", client_address, exc_info=True)
        elif len(self._faults) < _MOST_FAULTS:
            self._faults.add(repr(fault))
            _LOG.error("the HTTP port cannot answer: %r", fault, exc_info=True)
