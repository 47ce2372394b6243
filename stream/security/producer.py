"""A producer's keys, and why a consumer does not take them."""

import argparse
from contextlib import ExitStack

from stream.endpoints import Context, Socket, open_sender
from stream.security.access import AllowList, Gate
from stream.security.curve import EVENTS, CurveClient, CurveEnd, CurveServer
from stream.security.handshakes import HandshakeWatch
from stream.security.keys import given, own_keys, server_key

__all__ = ["ProducerSecurity"]


class ProducerSecurity:
    """Opens a producer's socket with its keys, and says why a consumer refuses it.

    Args:
        options: of `stream-producer`.
        context: of the socket; to be ended after `close`.

    Raises:
        ArtifactError: if a key or the allow-list is not one, or open to others.
        ParameterError: if an option lacks its other half.
    """

    def __init__(self, options: argparse.Namespace, context: Context) -> None:
        """Read every file."""
        self._context, keys = context, own_keys(options)
        self._watch = HandshakeWatch(context, options.endpoint, curve=keys is not None)
        binds = options.pattern == "pub"
        self._end: CurveEnd | None = None
        self._stack = ExitStack()
        server = server_key(options, keys)
        if keys is not None and binds:
            self._end = CurveServer(keys)
            allowed = AllowList(given(options.curve_clients, "--curve-clients", "--pattern pub"))
            self._stack.enter_context(Gate(context, {EVENTS: allowed}))
        elif keys is not None and server is not None:
            self._end = CurveClient(keys, server)
        elif keys is not None:
            given(None, "--curve-server", "--curve-key")
        self._stack.callback(self._watch.close)

    def open_sender(self, endpoint: str, pattern: str) -> Socket:
        """Open the socket; raises as `stream.endpoints.open_sender`."""
        prepare = None if pattern == "pub" else self._watch.attach
        return open_sender(self._context, endpoint, pattern, curve=self._end, prepare=prepare)

    def check(self) -> None:
        """Look at what became of the connection.

        Raises:
            EndpointError: if the consumer refuses this producer for good.
        """
        self._watch.check()

    def close(self) -> None:
        """Answer for no more connections; the socket's owner closes it."""
        self._stack.close()
