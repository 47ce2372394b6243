"""CURVE on real sockets: who is let in, who is not, and what each of them is told."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import zmq

from engines.errors import EndpointError, ParameterError
from stream.endpoints import (
    Context,
    Socket,
    bound_endpoint,
    open_publisher,
    open_receiver,
    open_sender,
)
from stream.security.access import AllowList, Gate
from stream.security.curve import EVENTS, RESULTS, CurveServer, read_secret_key
from stream.security.handshakes import ConnectionWatch, HandshakeWatch
from tests.support_security import client, keys

pytestmark = pytest.mark.usefixtures("keep_logging")

Track: TypeAlias = Callable[[Socket], Socket]
Receive: TypeAlias = Callable[[Socket], list[bytes]]

ANY_PORT = "tcp://127.0.0.1:*"
_PATIENCE_S = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return keys(tmp_path / "keys")


@pytest.fixture
def gate(context: Context, folder: Path) -> Iterator[Gate]:
    allowed = AllowList(folder / "clients")
    with Gate(context, {EVENTS: allowed, RESULTS: allowed}) as made:
        yield made


@pytest.fixture
def watch(context: Context) -> ConnectionWatch:
    return ConnectionWatch(context)


def server(folder: Path, domain: str = EVENTS) -> CurveServer:
    return CurveServer(read_secret_key(folder / "consumer.key_secret"), domain)


@pytest.fixture
def pull(
    context: Context, track: Track, folder: Path, gate: Gate, watch: ConnectionWatch
) -> Socket:
    del gate
    return track(open_receiver(context, ANY_PORT, curve=server(folder), prepare=watch.attach))


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def refusal(watched: HandshakeWatch) -> str:
    """Return the sentence that a client is told."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            watched.check()
        except EndpointError as exc:
            watched.close()
            return str(exc)
        time.sleep(0.01)
    watched.close()
    return ""


def test_listed_client_is_let_in(
    context: Context, track: Track, receive: Receive, folder: Path, pull: Socket
) -> None:
    watched = HandshakeWatch(context, "x", curve=True)
    push = track(
        open_sender(context, bound_endpoint(pull), curve=client(folder), prepare=watched.attach)
    )
    push.send(b"events")
    assert receive(pull) == [b"events"]
    watched.check()
    watched.close()


def test_router_answers_a_listed_dealer(
    context: Context, track: Track, receive: Receive, folder: Path, gate: Gate
) -> None:
    del gate
    router = track(open_receiver(context, ANY_PORT, "router", curve=server(folder)))
    dealer = track(open_sender(context, bound_endpoint(router), "dealer", curve=client(folder)))
    assert dealer.poll(10_000, zmq.POLLOUT)
    dealer.send(b"hello")
    peer, said = receive(router)
    router.send_multipart([peer, b"welcome"])
    assert (said, receive(dealer)) == (b"hello", [b"welcome"])


def test_unlisted_client_gets_nothing_in_and_is_told(
    context: Context,
    track: Track,
    folder: Path,
    pull: Socket,
    watch: ConnectionWatch,
    gate: Gate,
) -> None:
    keys_of_mallory = client(folder / "others", "mallory", "../consumer")
    watched = HandshakeWatch(context, "tcp://there:1", curve=True)
    push = track(
        open_sender(context, bound_endpoint(pull), curve=keys_of_mallory, prepare=watched.attach)
    )
    assert refusal(watched).startswith("the other end, tcp://there:1, refuses this key")
    assert not push.poll(200, zmq.POLLOUT)
    assert not pull.poll(200)
    wait_for(lambda: watch.n_denied == 1, "denied connection is counted")
    assert gate.n_refused == 1
    wait_for(lambda: watch.n_open == 0, "its connection ends")


def test_client_without_keys_gets_nothing_in_and_is_told(
    context: Context, track: Track, pull: Socket, watch: ConnectionWatch
) -> None:
    watched = HandshakeWatch(context, "tcp://there:1", curve=False)
    push = track(open_sender(context, bound_endpoint(pull), prepare=watched.attach))
    assert "give --curve-key and --curve-server" in refusal(watched)
    assert not push.poll(200, zmq.POLLOUT)
    assert not pull.poll(200)
    wait_for(lambda: watch.n_denied == 1, "denied connection is counted")


def test_client_of_another_server_gets_nothing_in_and_is_warned(
    context: Context,
    track: Track,
    folder: Path,
    pull: Socket,
    watch: ConnectionWatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = client(folder, server="daq1")
    watched = HandshakeWatch(context, "tcp://there:1", curve=True)
    push = track(open_sender(context, bound_endpoint(pull), curve=wrong, prepare=watched.attach))

    def warned() -> bool:
        watched.check()
        return "--curve-server must be its public key" in caplog.text

    wait_for(warned, "a client with a wrong server key is warned")
    watched.close()
    assert not push.poll(0, zmq.POLLOUT)
    assert not pull.poll(0)
    assert watch.n_denied >= 3


def test_client_with_keys_of_a_server_without_is_told(
    context: Context, track: Track, folder: Path
) -> None:
    pull = track(open_receiver(context, ANY_PORT))
    watched = HandshakeWatch(context, "tcp://there:1", curve=True)
    track(open_sender(context, bound_endpoint(pull), curve=client(folder), prepare=watched.attach))
    assert "drop --curve-key" in refusal(watched)


@pytest.mark.parametrize(("binds", "connects"), [("router", "push"), ("pull", "dealer")])
def test_reliable_on_one_side_alone_is_told(
    context: Context, track: Track, binds: str, connects: str
) -> None:
    """The connection would be left without a word, and never tried again."""
    other = track(open_receiver(context, ANY_PORT, binds))
    watched = HandshakeWatch(context, "tcp://there:1", curve=False)
    track(open_sender(context, bound_endpoint(other), connects, prepare=watched.attach))
    assert "must have --reliable or neither" in refusal(watched)


def test_consumer_that_goes_and_comes_again_is_no_refusal(
    context: Context, track: Track, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.security.handshakes._AGAIN_WITHIN_S", 0.5)
    pull = open_receiver(context, ANY_PORT)
    endpoint = bound_endpoint(pull)
    watched = HandshakeWatch(context, endpoint, curve=False)
    push = track(open_sender(context, endpoint, prepare=watched.attach))
    push.send(b"one")
    assert receive(pull) == [b"one"]
    pull.close(linger=0)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        watched.check()
        time.sleep(0.05)
    again = track(open_receiver(context, endpoint))
    push.send(b"two")
    watched.check()
    assert receive(again) == [b"two"]
    watched.close()


def test_list_counts_from_the_next_connection_on(
    context: Context, track: Track, receive: Receive, folder: Path, pull: Socket
) -> None:
    endpoint = bound_endpoint(pull)
    first = track(open_sender(context, endpoint, curve=client(folder)))
    first.send(b"before")
    assert receive(pull) == [b"before"]
    (folder / "clients" / "daq1.key").rename(folder / "taken_away")
    first.send(b"still connected")
    assert receive(pull) == [b"still connected"]
    watched = HandshakeWatch(context, endpoint, curve=True)
    second = track(open_sender(context, endpoint, curve=client(folder), prepare=watched.attach))
    assert "refuses this key" in refusal(watched)
    assert not second.poll(0, zmq.POLLOUT)
    (folder / "taken_away").rename(folder / "clients" / "daq1.key")
    third = track(open_sender(context, endpoint, curve=client(folder)))
    third.send(b"again")
    assert receive(pull) == [b"again"]


@pytest.mark.parametrize("missing", ["never there", "stopped"])
def test_nobody_gets_in_while_nobody_answers(
    context: Context, track: Track, folder: Path, missing: str
) -> None:
    if missing == "stopped":
        gate = Gate(context, {EVENTS: AllowList(folder / "clients")})
        gate.close()
        assert not gate.is_alive
    pull = track(open_receiver(context, ANY_PORT, curve=server(folder)))
    push = track(open_sender(context, bound_endpoint(pull), curve=client(folder)))
    assert not push.poll(1000, zmq.POLLOUT)
    assert not pull.poll(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_gets_in_once_the_thread_that_answers_has_died(
    context: Context, track: Track, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "a fault of ours"
        raise ValueError(msg)

    monkeypatch.setattr(AllowList, "name_of", fail)
    with Gate(context, {EVENTS: AllowList(folder / "clients")}) as gate:
        pull = track(open_receiver(context, ANY_PORT, curve=server(folder)))
        first = track(open_sender(context, bound_endpoint(pull), curve=client(folder)))
        wait_for(lambda: not gate.is_alive, "the thread has ended")
        monkeypatch.undo()
        second = track(open_sender(context, bound_endpoint(pull), curve=client(folder)))
        assert not second.poll(1000, zmq.POLLOUT)
        assert not first.poll(0, zmq.POLLOUT)
        assert not pull.poll(0)


def test_results_have_a_list_of_their_own(
    context: Context, track: Track, folder: Path, tmp_path: Path
) -> None:
    readers = tmp_path / "readers"
    readers.mkdir()
    (readers / "mallory.key").write_bytes((folder / "others" / "mallory.key").read_bytes())
    lists = {EVENTS: AllowList(folder / "clients"), RESULTS: AllowList(readers)}
    with Gate(context, lists):
        pub = track(open_publisher(context, ANY_PORT, curve=server(folder, RESULTS)))
        reader = client(folder / "others", "mallory", "../consumer")
        good = track(open_receiver(context, bound_endpoint(pub), "sub", curve=reader))
        producer = track(open_receiver(context, bound_endpoint(pub), "sub", curve=client(folder)))
        plain = track(open_receiver(context, bound_endpoint(pub), "sub"))
        deadline = time.monotonic() + _PATIENCE_S
        while not good.poll(20):
            assert time.monotonic() < deadline
            pub.send(b"a result")
        assert not producer.poll(200)
        assert not plain.poll(0)


def test_keys_of_the_other_end_are_refused(context: Context, folder: Path) -> None:
    with pytest.raises(ParameterError, match="allow-list of clients"):
        open_receiver(context, ANY_PORT, curve=client(folder))
    with pytest.raises(ParameterError, match="server's public key"):
        open_sender(context, "tcp://127.0.0.1:9", curve=server(folder))
    with pytest.raises(ParameterError, match="server's public key"):
        open_receiver(context, "tcp://127.0.0.1:9", "sub", curve=server(folder))
