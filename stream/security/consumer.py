"""A consumer's keys, certificates, password and limits: read before anything else, then applied."""

import argparse
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engines.errors import ParameterError
from stream.endpoints import Context, Socket, is_local, open_publisher, open_receiver, open_sender
from stream.memory_guard import MemoryGuard, read_rss_bytes
from stream.page import parse_address
from stream.security.access import Gate
from stream.security.curve import EVENTS, RESULTS, CurveClient, CurveEnd, CurveServer
from stream.security.handshakes import ConnectionWatch, HandshakeWatch
from stream.security.http_access import Password, tls_context
from stream.security.keys import allow_lists, given, own_keys, server_key

__all__ = ["ConsumerSecurity"]

_LOG = logging.getLogger(__name__)
_MIB = 2**20
_LOCAL_HTTP = ("localhost", "::1")


class ConsumerSecurity:
    """Opens a consumer's sockets with its keys, and counts whom they turn away.

    Args:
        options: of `stream-consumer`.
        context: of the sockets; to be ended after `close`.

    Attributes:
        tls: of the HTTP port; None for HTTP.
        password: likewise; None for none.

    Raises:
        ArtifactError: if a key, a certificate, a password file or an allow-list is not one, or
            open to others.
        ParameterError: if an option lacks its other half.
    """

    def __init__(self, options: argparse.Namespace, context: Context) -> None:
        """Read every file, and answer for connections from now on."""
        self._options, self._context = options, context
        self._keys = own_keys(options)
        self._server = server_key(options, self._keys)
        self._lists = allow_lists(options)
        self.tls, self.password = _http(options)
        self._guard: MemoryGuard | None = None
        self._watch = ConnectionWatch(context)
        self._handshakes: list[HandshakeWatch] = []
        self._stack = ExitStack()
        self._gate = self._stack.enter_context(Gate(context, self._lists)) if self._lists else None
        _warn(options)

    def close(self) -> None:
        """Answer for no more connections; the sockets' owners close them."""
        self._stack.close()
        self._watch.close()
        for handshakes in self._handshakes:
            handshakes.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Answer for no more connections."""
        self.close()

    def faults(self) -> list[str]:
        """Return what is not done any more, as its thread has ended."""
        ended = self._gate is not None and not self._gate.is_alive
        return ["the check of clients' keys"] if ended else []

    def open_receiver(self, endpoint: str, pattern: str, limit_bytes: int) -> MemoryGuard:
        """Open the socket that events arrive at; raises as `stream.endpoints.open_receiver`.

        Its guard also raises if another end refuses this one. Raises a ParameterError if the limit
        is below what is resident already.

        Args:
            endpoint: where.
            pattern: pull, router or sub.
            limit_bytes: resident memory at which it is reset, if the operator gave none.
        """
        open_socket = partial(
            open_receiver,
            self._context,
            pattern=pattern,
            curve=self._end(binds=pattern != "sub"),
            max_events=self._options.max_message_events,
            prepare=self._told(endpoint) if pattern == "sub" else self._watch.attach,
        )
        given, rss_bytes = self._options.max_memory, read_rss_bytes()
        if given is not None and given <= rss_bytes:
            msg = (
                f"--max-memory must be above what is loaded, {rss_bytes / _MIB:.0f} MiB; got "
                f"{given / _MIB:.0f} MiB; give room for windows and queues, 1 GiB or more"
            )
            raise ParameterError(msg)
        limit_bytes = given or limit_bytes
        self._guard = MemoryGuard(open_socket, endpoint, limit_bytes, look_too=self._check)
        return self._guard

    @property
    def n_resets(self) -> int:
        """Times the receiving socket was reset."""
        return self._guard.n_resets if self._guard is not None else 0

    def open_publisher(self, endpoint: str) -> Socket:
        """Open the socket of results; raises as `stream.endpoints.open_publisher`."""
        curve = self._end(binds=True, domain=RESULTS)
        curve = curve if isinstance(curve, CurveServer) else None
        prepare = self._watch.attach
        return open_publisher(self._context, endpoint, curve=curve, prepare=prepare)

    def open_forwarder(self, endpoint: str, pattern: str = "dealer") -> Socket:
        """Open an embedder's socket to its tester; raises as `stream.endpoints.open_sender`."""
        curve, prepare = self._end(binds=False), self._told(endpoint)
        return open_sender(self._context, endpoint, pattern, curve=curve, prepare=prepare)

    def register(self, registry: CollectorRegistry) -> None:
        """Let a registry show what is counted here."""
        registry.register(_Counted(self, self._watch))

    def _told(self, endpoint: str) -> Callable[[Socket], None]:
        """Return what to call with a socket that connects, so that a refusal shows."""
        curve = self._keys is not None
        self._handshakes.append(HandshakeWatch(self._context, endpoint, curve=curve))
        return self._handshakes[-1].attach

    def _check(self) -> None:
        """Raise an EndpointError if an end that is connected to refuses this one.

        libzmq does not try again; a restart does.
        """
        for handshakes in self._handshakes:
            handshakes.check()

    def _end(self, *, binds: bool, domain: str = EVENTS) -> CurveEnd | None:
        if self._keys is None:
            return None
        if binds:
            return CurveServer(self._keys, domain)
        if self._server is None:
            msg = "--curve-server must name the public key of the end that is connected to"
            raise ParameterError(msg)
        return CurveClient(self._keys, self._server)


class _Counted(Collector):
    """What Prometheus sees of it."""

    def __init__(self, security: ConsumerSecurity, watch: ConnectionWatch) -> None:
        self._security, self._watch = security, watch

    def collect(self) -> Iterator[Metric]:
        prefix = "nplm_stream_"
        text = "Connections that ended in their handshake: no key, or one that is not allowed"
        yield CounterMetricFamily(f"{prefix}denied_connections", text, self._watch.n_denied)
        text = "Times the receiving socket was closed and opened again, to free memory"
        yield CounterMetricFamily(f"{prefix}socket_resets", text, self._security.n_resets)
        text = "Connections to the sockets of events and results"
        yield GaugeMetricFamily(f"{prefix}connections", text, self._watch.n_open)


def _http(options: argparse.Namespace) -> tuple[ssl.SSLContext | None, Password | None]:
    cert, key, client_ca = options.http_cert, options.http_key, options.http_client_ca
    tls = None
    if cert is not None or key is not None or client_ca is not None:
        cert = given(cert, "--http-cert", "--http-key")
        tls = tls_context(cert, given(key, "--http-key", "--http-cert"), client_ca)
    password = Password.read(options.http_password) if options.http_password is not None else None
    return tls, password


def _warn(options: argparse.Namespace) -> None:
    """Say once what is open to the network without protection."""
    if options.curve_key is None:
        bound = [options.endpoint] if options.pattern != "sub" else []
        bound += [options.publish] if options.publish is not None else []
        for endpoint in bound:
            if not is_local(endpoint):
                _LOG.warning("%s is open to all who can reach it: see make-keys", endpoint)
    if options.http != "off":
        host, _ = parse_address(options.http)
        lacking = [
            text
            for given, text in (
                (options.http_cert, "TLS (--http-cert)"),
                (options.http_password or options.http_client_ca, "a password (--http-password)"),
            )
            if given is None
        ]
        if lacking and host not in _LOCAL_HTTP and not host.startswith("127."):
            _LOG.warning("the HTTP port %s is open without %s", options.http, " and ".join(lacking))
