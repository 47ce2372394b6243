"""The HTTP port: what each path answers, and to whom."""

import base64
import hashlib
import http.client
import json
import logging
import re
import socket
import struct
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from engines.errors import EndpointError, ParameterError
from stream.page import Page, parse_address
from stream.security.http_access import Password


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
    server: ThreadingHTTPServer, path: str, method: str = "GET", host: str = ""
) -> tuple[int, http.client.HTTPMessage, str]:
    address = str(server.server_address[0])
    connection = http.client.HTTPConnection(address, server.server_port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
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


def test_probes_say_which_part_has_ended() -> None:
    page, ended = Page(CollectorRegistry()), list[str]()
    page.faults.append(lambda: ended)
    made = page.serve("127.0.0.1", 0)
    try:
        page.show(dict, list)
        assert [get(made, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
        ended.append("the test of windows")
        for path in ("/healthz", "/readyz"):
            code, _, text = get(made, path)
            assert code == 503
            assert text.startswith("the test of windows has ended")
        assert get(made, "/results.json")[0] == 200
    finally:
        made.shutdown()
        made.server_close()


def test_live_page_is_one_small_file_that_needs_nothing_from_elsewhere(
    server: ThreadingHTTPServer,
) -> None:
    status, headers, body = get(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(body.encode()) < 30_000
    assert "://" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in body


def test_policy_lets_nothing_run_but_what_is_in_the_page(server: ThreadingHTTPServer) -> None:
    _, headers, body = get(server, "/")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag in ("style", "script"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


@pytest.mark.parametrize(
    ("path", "method"),
    [("/", "GET"), ("/metrics", "GET"), ("/healthz", "HEAD"), ("/nothing", "GET"), ("/", "PUT"),
     ("/results.json", "GET")],
)  # fmt: skip
def test_every_answer_is_locked_down(server: ThreadingHTTPServer, path: str, method: str) -> None:
    _, headers, _ = get(server, path, method)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


def test_broken_request_is_answered_without_markup_of_its_own(server: ThreadingHTTPServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(b"<script>alert(1)</script> / / HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert " 400 " in answer.splitlines()[0]
    assert "default-src 'none'" in answer
    assert "<script>" not in answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    "path", ["/nothing", "/../engines/errors.py", "/page.html", "/metrics/", "/%2e%2e/"]
)
def test_other_paths_are_not_found(server: ThreadingHTTPServer, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_changed(server: ThreadingHTTPServer, method: str) -> None:
    status, headers, _ = get(server, "/results.json", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(server: ThreadingHTTPServer, path: str) -> None:
    status, headers, body = get(server, path, "HEAD")
    shown = get(server, path)
    assert (status, headers["Content-Type"], body) == (shown[0], shown[1]["Content-Type"], "")
    assert int(headers["Content-Length"]) == len(shown[2].encode())


def test_snapshot_is_taken_once_for_many_viewers() -> None:
    now_s, n_taken = [0.0], [0]

    def snapshot() -> dict[str, object]:
        n_taken[0] += 1
        return {"events": n_taken[0]}

    page = Page(CollectorRegistry(), clock=lambda: now_s[0])
    assert page.data() is None
    page.snapshot = snapshot
    assert [page.data() for _ in range(9)] == [{"events": 1}] * 9
    now_s[0] = 0.5
    assert page.data() == {"events": 2}


def test_metrics_are_written_seldom_for_however_many_ask() -> None:
    now_s, n_collected = [0.0], [0]

    class Counting(Collector):
        def collect(self) -> list[Metric]:
            n_collected[0] += 1
            return [CounterMetricFamily("scrapes", "Scrapes", n_collected[0])]

    registry = CollectorRegistry(auto_describe=False)
    page = Page(registry, clock=lambda: now_s[0])
    registry.register(Counting())
    n_collected[0] = 0
    assert {page.metrics("")[0] for _ in range(9)} == {page.metrics("")[0]}
    assert n_collected == [1]
    now_s[0] = 0.1
    assert b"scrapes_total 2.0" in page.metrics("")[0]
    kinds = [f"application/openmetrics-text; version=1.0.{k}" for k in range(50)]
    assert "openmetrics" in page.metrics(kinds[0])[1]
    assert "openmetrics" not in [page.metrics(kind) for kind in kinds][-1][1]
    assert n_collected[0] < 10


def test_results_are_written_seldom_for_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, asked = [0.0], list[str]()

    def written(data: dict[str, object], query: str) -> dict[str, object]:
        asked.append(query)
        return data

    monkeypatch.setattr("stream.page.unseen", written)
    page = Page(CollectorRegistry(), clock=lambda: now_s[0])
    assert page.results("") is None
    page.snapshot = lambda: {"events": 3}
    answers = {page.results(f"after=a:{k % 50}") for k in range(200)}
    assert answers == {b'{"events": 3}'}
    # The others were told everything, which is right for whoever has not been seen.
    assert asked == [*(f"after=a:{k}" for k in range(4)), ""]
    now_s[0] = 0.5
    page.results("after=a:7")
    assert asked[-1] == "after=a:7"


@pytest.mark.parametrize(
    ("host", "code"),
    [("localhost:9108", 200), ("LOCALHOST", 200), ("127.0.0.1:1", 200), ("127.1.2.3", 200),
     ("[::1]:80", 200), ("evil.example", 403), ("127.0.0.1.evil.example:9108", 403),
     ("localhost.evil.example", 403), ("10.0.0.1:9108", 403), ("127.evil.example", 403),
     ("localhost:9108 evil", 403)],
)  # fmt: skip
def test_page_of_another_site_cannot_read_what_is_this_machines(
    server: ThreadingHTTPServer, host: str, code: int
) -> None:
    for path in ("/", "/metrics", "/nothing"):
        status, _, said = get(server, path, host=host)
        assert status == (404 if code == 200 and path == "/nothing" else code)
        assert ("pages of other sites" in said) == (code == 403)
    assert get(server, "/healthz", host=host)[0] == 200


def test_port_open_to_others_or_with_a_password_goes_by_any_name(page: Page) -> None:
    for address, password in (("0.0.0.0", None), ("127.0.0.1", Password("prom", "right"))):  # noqa: S104
        made = page.serve(address, 0, password=password)
        try:
            wanted = 200 if password is None else 401
            assert get(made, "/metrics", host="consumer.example")[0] == wanted
        finally:
            made.shutdown()
            made.server_close()


def test_request_without_a_host_comes_from_no_browser(server: ThreadingHTTPServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(65536).split()[1] == b"200"


def test_ipv6_is_served(page: Page) -> None:
    made = page.serve(*parse_address("[::1]:0"))
    try:
        assert get(made, "/metrics", host=f"[::1]:{made.server_port}")[0] == 200
        assert get(made, "/metrics", host="evil.example")[0] == 403
    finally:
        made.shutdown()
        made.server_close()


def test_request_moves_no_cursor_of_who_reads_the_log(
    server: ThreadingHTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="stream.page")
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        client.sendall(b"GET /\x1b[2J\xe2\x80\xae HTTP/1.0\r\n\r\n")
        assert client.recv(65536)
    (said,) = [one.getMessage() for one in caplog.records if "[2J" in one.getMessage()]
    assert said.isprintable()
    assert said.isascii()


def test_page_is_told_only_what_it_has_not_seen(
    server: ThreadingHTTPServer, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [{"run": "a b&c", "window": index} for index in range(3)]
    monkeypatch.setattr(page, "snapshot", lambda: {"windows": windows})
    _, _, body = get(server, "/results.json?after=a+b%26c%3A1")
    assert json.loads(body) == {"windows": windows[2:], "continues": True}


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
