"""The HTTP port: what each path answers, and to whom."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter

from engines.errors import EndpointError, ParameterError
from stream.page import Page, parse_address


@pytest.fixture(scope="module")
def page() -> Page:
    registry = CollectorRegistry()
    Counter("nplm_stream_events", "Events", registry=registry).inc(7)
    return Page(registry)


@pytest.fixture(scope="module")
def server(page: Page) -> Iterator[ThreadingHTTPServer]:
    made = page.serve("127.0.0.1", 0)
    yield made
    made.shutdown()
    made.server_close()


def get(
    server: ThreadingHTTPServer, path: str, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def test_metrics_are_the_registrys(server: ThreadingHTTPServer) -> None:
    status, headers, body = get(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert "nplm_stream_events_total 7.0" in body


def test_alive_before_ready(
    server: ThreadingHTTPServer, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/readyz")[0] == 503
    assert get(server, "/results.json")[0] == 503
    monkeypatch.setattr(page, "snapshot", lambda: {"events": 3, "windows": []})
    assert get(server, "/readyz")[::2] == (200, "ready\n")
    status, headers, body = get(server, "/results.json?x=1")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {"events": 3, "windows": []}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")],
)
def test_live_page_needs_nothing_from_elsewhere(
    server: ThreadingHTTPServer, path: str, kind: str
) -> None:
    status, headers, body = get(server, path)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    assert "http://" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in body


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nothing"])
def test_every_answer_is_locked_down(server: ThreadingHTTPServer, path: str) -> None:
    _, headers, _ = get(server, path)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("path", ["/nothing", "/../engines/errors.py", "/page.py", "/metrics/"])
def test_other_paths_are_not_found(server: ThreadingHTTPServer, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(server: ThreadingHTTPServer, method: str) -> None:
    assert get(server, "/", method)[0] == 501


def test_client_that_breaks_off_leaves_no_traceback(
    page: Page, capfd: pytest.CaptureFixture[str]
) -> None:
    server = page.serve("127.0.0.1", 0)
    server.daemon_threads = False  # so that server_close waits for the handler
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(b"GET /metrics HT")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert get(server, "/healthz")[0] == 200
    server.shutdown()
    server.server_close()
    assert capfd.readouterr().err == ""


def test_port_in_use_is_explained(server: ThreadingHTTPServer, page: Page) -> None:
    with pytest.raises(EndpointError, match=r"another process holds it; choose another port"):
        page.serve("127.0.0.1", server.server_port)


def test_unknown_host_is_explained(page: Page) -> None:
    with pytest.raises(EndpointError, match="cannot serve HTTP on"):
        page.serve("256.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [("9108", ("127.0.0.1", 9108)), ("10.0.0.1:80", ("10.0.0.1", 80)), (":9", ("127.0.0.1", 9)),
     ("host:0", ("host", 0)), ("[::1]:65535", ("::1", 65535))],
)  # fmt: skip
def test_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "65536", "-1", "h:x", "\u00b2", "9" * 5000])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ParameterError, match="HOST:PORT or PORT"):
        parse_address(text)
