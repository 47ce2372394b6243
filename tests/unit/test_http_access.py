"""The HTTP port's password and TLS: who is answered, and what a guesser costs."""

import base64
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from engines.errors import ArtifactError
from stream.page import Page
from stream.security.http_access import Password, Verdict, hashed, tls_context
from stream.security.turns import Turns
from tests.support_security import self_signed


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@contextmanager
def serving(
    tls: ssl.SSLContext | None = None, password: Password | None = None
) -> Iterator[ThreadingHTTPServer]:
    page = Page(CollectorRegistry())
    page.snapshot = lambda: {"events": 1}
    server = page.serve("127.0.0.1", 0, tls=tls, password=password)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def status(
    server: ThreadingHTTPServer,
    path: str,
    authorization: str = "",
    tls: ssl.SSLContext | None = None,
) -> tuple[int, http.client.HTTPMessage]:
    port = server.server_port
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=tls)
    )
    try:
        connection.request(
            "GET", path, headers={"Authorization": authorization} if authorization else {}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()


@pytest.fixture(params=["plain", "hashed"])
def password(request: pytest.FixtureRequest) -> Password:
    return Password("prom", "s3cret:x" if request.param == "plain" else hashed("s3cret:x"))


def test_everything_but_probes_needs_the_password(password: Password) -> None:
    with serving(password=password) as server:
        for path in ("/", "/metrics", "/results.json", "/nothing", "/healthz/../metrics"):
            code, headers = status(server, path)
            assert code == 401
            assert headers["WWW-Authenticate"].startswith('Basic realm="nplm-stream"')
        assert [status(server, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
        assert status(server, "/metrics", basic("prom:s3cret:x"))[0] == 200


@pytest.mark.parametrize(
    "given",
    ["", "Basic", "Basic !", "Bearer x", basic(""), basic("prom"), basic("prom:"), basic(":s3cret"),
     "Basic " + "A" * 30_000, "Basic \xe9"],
)  # fmt: skip
def test_what_is_no_password_is_refused(given: str) -> None:
    assert Password("prom", "s3cret").check(given) is False


def test_wrong_password_or_user_is_refused() -> None:
    for stored in ("right", hashed("right")):
        kept = Password("prom", stored, turns=Turns(0.0))
        assert kept.check(basic("prom:wrong")) is False
        assert kept.check(basic("other:right")) is False
        assert kept.check(basic("prom:right")) is True


def guess(kept: Password, n: int, who: str = "guesser") -> list[Verdict]:
    """Return what comes of so many wrong passwords at once."""
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda k: kept.check(basic(f"prom:{k}"), who), range(n)))


def test_right_password_straight_after_a_wrong_one_waits_and_gets_in() -> None:
    with serving(password=Password("prom", hashed("right"))) as server:
        started = time.monotonic()
        assert status(server, "/", basic("prom:wrong"))[0] == 401
        assert status(server, "/", basic("prom:right"))[0] == 200
        assert 1.0 <= time.monotonic() - started < 4.0
        assert status(server, "/", basic("prom:wrong"))[0] == 401
        assert status(server, "/", basic("prom:right"))[0] == 200  # known: not hashed again
        assert time.monotonic() - started < 4.0


@pytest.mark.parametrize("stored", ["right", hashed("right")], ids=["plain", "hashed"])
def test_guesses_are_hashed_one_a_turn_and_most_are_sent_away(stored: str) -> None:
    kept = Password("prom", stored, turns=Turns(0.1))
    started = time.monotonic()
    found = guess(kept, 30)
    assert 0.1 * (found.count(False) - 1) <= time.monotonic() - started
    assert found.count(None) >= 15
    assert True not in found


def test_guesser_keeps_nobody_out() -> None:
    """The right one comes from elsewhere, or from an address that was wrong before."""
    for n_wrong_before in (0, 1):
        kept = Password("prom", hashed("right"), turns=Turns(0.1))
        assert [kept.check(basic("prom:typo"), "me") for _ in range(n_wrong_before)] == (
            [False] * n_wrong_before
        )
        stop = threading.Event()

        def flood(kept: Password = kept, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                guess(kept, 20)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            time.sleep(0.5)
            started = time.monotonic()
            assert kept.check(basic("prom:right"), "me") is True
            assert time.monotonic() - started < 2.0
        finally:
            stop.set()
            thread.join()


def test_password_that_is_right_lets_those_in_who_wait_with_it() -> None:
    kept = Password("prom", hashed("right"))
    with ThreadPoolExecutor(20) as pool:
        found = pool.map(lambda _: kept.check(basic("prom:right"), "me"), range(20))
        assert list(found) == [True] * 20


def test_one_too_many_is_told_to_come_again() -> None:
    turns = Turns(0.3)
    with serving(password=Password("prom", hashed("right"), turns=turns)) as server:
        with ThreadPoolExecutor(16) as pool:
            found = set(pool.map(lambda n: status(server, "/", basic(f"a:{n}"))[0], range(16)))
        assert found == {401, 429}


def test_two_hashes_of_one_password_differ() -> None:
    assert hashed("a") != hashed("a")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "user",
        "user:",
        ":password",
        "a:b\nc:d",
        "user:scrypt$12$34",
        "user:scrypt$",
        "\xff",
    ],
)
def test_password_file_of_another_form(tmp_path: Path, content: str) -> None:
    path = tmp_path / "password"
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(ArtifactError, match="password file"):
        Password.read(path)


def test_password_file_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("user:password\n")
    path.chmod(0o644)
    with pytest.raises(ArtifactError, match="chmod 600"):
        Password.read(path)
    path.chmod(0o600)
    assert Password.read(path).check(basic("user:password")) is True


def test_https_is_served(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    with serving(tls_context(cert, key), Password("prom", "s3cret")) as server:
        assert status(server, "/metrics", basic("prom:s3cret"), trusting)[0] == 200
        assert status(server, "/metrics", tls=trusting)[0] == 401
        with pytest.raises(ssl.SSLCertVerificationError):
            status(server, "/healthz", tls=ssl.create_default_context())
        with pytest.raises((http.client.HTTPException, OSError)):
            status(server, "/healthz")


def test_renewed_certificate_counts_from_the_next_connection_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = self_signed(tmp_path)
    new_cert, new_key = self_signed(tmp_path, "new")
    former, renewed = (ssl.create_default_context(cafile=path) for path in (cert, new_cert))
    with serving(tls_context(cert, key)) as server:
        assert status(server, "/healthz", tls=former)[0] == 200
        renew(cert, new_cert, 1)  # its key is still to come
        assert [status(server, "/healthz", tls=former)[0] for _ in range(3)] == [200] * 3
        assert caplog.text.count("keeps its former certificate") == 1
        renew(key, new_key, 2)
        assert status(server, "/healthz", tls=renewed)[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            status(server, "/healthz", tls=former)
        key.unlink()
        assert status(server, "/healthz", tls=renewed)[0] == 200


def renew(path: Path, new: Path, changed_s: int) -> None:
    path.write_bytes(new.read_bytes())
    os.utime(path, (changed_s, changed_s))


def test_clients_must_show_a_certificate_where_one_is_asked_for(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    client_cert, client_key = self_signed(tmp_path, "client")
    other_cert, other_key = self_signed(tmp_path, "other")
    with serving(tls_context(cert, key, client_cert)) as server:
        for chain, right in (((client_cert, client_key), True), ((other_cert, other_key), False)):
            trusting = ssl.create_default_context(cafile=cert)
            trusting.load_cert_chain(*chain)
            if right:
                assert status(server, "/metrics", tls=trusting)[0] == 200
            else:
                with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
                    status(server, "/metrics", tls=trusting)
        with pytest.raises((ssl.SSLError, http.client.HTTPException, OSError)):
            status(server, "/metrics", tls=ssl.create_default_context(cafile=cert))


def test_handshakes_that_stop_halfway_keep_nobody_waiting(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    before = threading.active_count()
    with serving(tls_context(cert, key)) as server, ExitStack() as stack:
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
            stack.enter_context(peer)
            peer.sendall(b"\x16\x03\x01")
        started = time.monotonic()
        assert status(server, "/healthz", tls=trusting)[0] == 200
        assert time.monotonic() - started < 4.0
        wait_for(lambda: threading.active_count() <= before + 1)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_old_tls_is_not_spoken(tmp_path: Path) -> None:
    assert tls_context(*self_signed(tmp_path)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_certificates_that_are_none(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    other_cert, _ = self_signed(tmp_path, "other")
    key_of_all = tmp_path / "open.pem"
    key_of_all.write_bytes(key.read_bytes())
    key_of_all.chmod(0o644)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    nonsense.chmod(0o600)
    with pytest.raises(ArtifactError, match="chmod 600"):
        tls_context(cert, key_of_all)
    for files in ((cert, tmp_path / "absent"), (tmp_path / "absent", key), (nonsense, key),
                  (cert, nonsense), (other_cert, key), (cert, key, nonsense)):  # fmt: skip
        with pytest.raises(ArtifactError):
            tls_context(*files)


def test_key_with_a_passphrase_is_explained(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = self_signed(tmp_path)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    with pytest.raises(ArtifactError, match="passphrase"):
        tls_context(cert, key)
