"""Consumers of the reliable exchange that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.endpoints import Context
from tests.support_reliable import Proxy, Server


@pytest.fixture
def serve(context: Context, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(endpoint: str = "tcp://127.0.0.1:*", **options: Any) -> Server:  # noqa: ANN401
        servers.append(Server(tmp_path / "state", context, endpoint, **options))
        return servers[-1]

    yield start
    for server in servers:
        if not server.stopped.is_set():
            server.stop()


@pytest.fixture
def proxy(context: Context, serve: Callable[..., Server]) -> Iterator[tuple[Proxy, Server]]:
    server = serve()
    made = Proxy(context, server.endpoint)
    yield made, server
    made.close()
