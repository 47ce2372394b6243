"""Clients that are slow, silent or many: the others are still served, and nothing piles up."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from stream.bounded_server import BoundedServer
from stream.page import Page

_PATIENCE_S = 20.0


@pytest.fixture
def server() -> Iterator[BoundedServer]:
    made = Page(CollectorRegistry()).serve("127.0.0.1", 0)
    assert isinstance(made, BoundedServer)
    yield made
    made.shutdown()
    made.server_close()


def status(server: BoundedServer, path: str = "/healthz") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def open_many(server: BoundedServer, stack: ExitStack, n: int) -> list[socket.socket]:
    address = ("127.0.0.1", server.server_port)
    return [
        stack.enter_context(socket.create_connection(address, timeout=_PATIENCE_S))
        for _ in range(n)
    ]


def wait_for(server: BoundedServer, n_open: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while server.n_open != n_open:
        assert time.monotonic() < deadline, f"{server.n_open} open, not {n_open}"
        time.sleep(0.01)


def test_silent_clients_keep_others_out_for_a_moment_only(server: BoundedServer) -> None:
    with ExitStack() as stack:
        open_many(server, stack, 32)
        wait_for(server, 32)
        assert status(server) == 503
        deadline = time.monotonic() + _PATIENCE_S
        while status(server) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_thousand_connections_leave_few_threads(server: BoundedServer) -> None:
    before = threading.active_count()
    most = 0
    with ExitStack() as stack:
        for _ in range(10):
            open_many(server, stack, 40)
            most = max(most, threading.active_count())
    assert most <= before + 32
    wait_for(server, 0)
    assert status(server) == 200


def test_client_that_sends_a_letter_at_a_time_is_ended(server: BoundedServer) -> None:
    with ExitStack() as stack:
        (slow, *_) = open_many(server, stack, 32)
        wait_for(server, 32)
        deadline = time.monotonic() + _PATIENCE_S / 2
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while slow.send(b"G"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    wait_for(server, 0)


def test_fault_of_the_page_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> dict[str, object]:
        msg = "the snapshot is broken"
        raise ValueError(msg)

    page = Page(CollectorRegistry())
    page.snapshot = fail
    made = cast("BoundedServer", page.serve("127.0.0.1", 0))
    try:
        for _ in range(3):
            with pytest.raises(http.client.RemoteDisconnected):
                status(made, "/results.json")
        assert status(made) == 200
        wait_for(made, 0)
    finally:
        made.shutdown()
        made.server_close()
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == "the HTTP port cannot answer: ValueError('the snapshot is broken')"
