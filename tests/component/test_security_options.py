"""Options that say who gets in: those that do not fit together stop the start, in one sentence."""

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from prometheus_client import CollectorRegistry, generate_latest

from engines.errors import EndpointError, NplmStreamError, ParameterError
from stream.assembly.roles import check_roles
from stream.consumer import _parser as consumer_parser
from stream.endpoints import Context, bound_endpoint, open_receiver, open_sender
from stream.memory_guard import MemoryGuard
from stream.producer import _parser as producer_parser
from stream.security.access import AllowList, Gate
from stream.security.consumer import ConsumerSecurity
from stream.security.curve import EVENTS, CurveServer, read_secret_key
from stream.security.producer import ProducerSecurity
from tests.support_security import keys as make_all

pytestmark = pytest.mark.usefixtures("keep_logging")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return make_all(tmp_path / "keys")


def consumer(*options: object) -> argparse.Namespace:
    words = ["--engine", "x.onnx", *map(str, options)]
    return consumer_parser().parse(words)


def producer(*options: object) -> argparse.Namespace:
    return producer_parser().parse(["x.h5", *map(str, options)])


Options = Callable[[Path], list[object]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (lambda k: ["--curve-clients", k], "--curve-key must come with --curve-clients"),
        (lambda k: ["--curve-server", k], "--curve-key must come with --curve-server"),
        (lambda k: ["--curve-subscribers", k], "--curve-key must come with --curve-subscribers"),
        (lambda k: ["--curve-key", k / "consumer.key_secret"], "--curve-clients must come with"),
        (lambda k: ["--curve-key", k / "consumer.key"], "must be a secret key"),
        (
            lambda k: ["--curve-key", k / "consumer.key_secret", "--curve-clients", k / "absent"],
            "must be a folder of public keys",
        ),
        (
            lambda k: ["--curve-key", k / "consumer.key_secret", "--pattern", "sub"],
            "--curve-server must come with",
        ),
        (
            lambda k: ["--curve-key", k / "daq1.key_secret", "--curve-server", k / "daq1.key"],
            "must be the other end's public key",
        ),
        (lambda k: ["--http-key", k / "consumer.key_secret"], "--http-cert must come with"),
        (lambda k: ["--http-client-ca", k / "x"], "--http-cert must come with"),
        (lambda k: ["--http-cert", k / "x"], "--http-key must come with"),
        (lambda k: ["--http-password", k / "absent"], "password file"),
    ],
)
def test_consumer_does_not_start(context: Context, keys: Path, options: Options, text: str) -> None:
    with pytest.raises(NplmStreamError) as caught:
        ConsumerSecurity(consumer(*options(keys)), context)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (lambda k: ["--curve-key", k / "daq1.key_secret"], "--curve-server must come with"),
        (lambda k: ["--curve-server", k / "consumer.key"], "--curve-key must come with"),
        (
            lambda k: ["--pattern", "pub", "--curve-key", k / "daq1.key_secret"],
            "--curve-clients must come with --pattern pub",
        ),
    ],
)
def test_producer_does_not_start(context: Context, keys: Path, options: Options, text: str) -> None:
    with pytest.raises(NplmStreamError) as caught:
        ProducerSecurity(producer(*options(keys)), context)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--max-memory", "4GB", "must be a size"),
        ("--max-message-events", "65537", "at most 65536"),
        ("--max-sources", "0", "above zero"),
    ],
)
def test_limits_that_are_none(
    option: str, value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        consumer(option, value)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "n_warnings"),
    [
        ([], 0),
        (["--endpoint", "tcp://*:0", "--http", "0.0.0.0:0"], 2),
        (["--endpoint", "tcp://*:0", "--http", "off"], 1),
        (["--endpoint", "tcp://10.0.0.1:5", "--pattern", "sub"], 0),
        (["--publish", "tcp://0.0.0.0:5"], 1),
    ],
)
def test_what_is_open_to_the_network_is_said_once(
    context: Context, caplog: pytest.LogCaptureFixture, options: list[str], n_warnings: int
) -> None:
    caplog.set_level(logging.WARNING)
    with ConsumerSecurity(consumer(*options), context):
        assert len(caplog.records) == n_warnings


def test_counts_are_there_from_the_start(context: Context) -> None:
    registry = CollectorRegistry()
    with ConsumerSecurity(consumer(), context) as security:
        security.register(registry)
        shown = generate_latest(registry).decode()
    for name in ("denied_connections_total", "socket_resets_total", "connections"):
        assert f"nplm_stream_{name} 0.0" in shown


def test_gate_that_answers_no_more_is_a_fault(context: Context, keys: Path) -> None:
    options = consumer(
        "--curve-key", keys / "consumer.key_secret", "--curve-clients", keys / "clients"
    )
    with ConsumerSecurity(options, context) as security:
        assert security.faults() == []
        assert security._gate is not None
        security._gate.close()
        assert security.faults() == ["the check of clients' keys"]
    with ConsumerSecurity(consumer(), context) as security:
        assert security.faults() == []


def test_tap_with_keys(context: Context, keys: Path) -> None:
    """A producer that binds has the list; the consumer that taps it names the producer's key."""
    serving = ProducerSecurity(
        producer(
            *("--pattern", "pub", "--curve-key", keys / "consumer.key_secret"),
            *("--curve-clients", keys / "clients", "--endpoint", "ipc:///tmp/unused"),
        ),
        context,
    )
    pub = serving.open_sender("tcp://127.0.0.1:*", "pub")
    endpoint = pub.get_string(32).rstrip("\0")
    options = consumer(
        *("--pattern", "sub", "--endpoint", endpoint, "--curve-key", keys / "daq1.key_secret"),
        *("--curve-server", keys / "consumer.key"),
    )
    with ConsumerSecurity(options, context) as security:
        guard = security.open_receiver(endpoint, "sub", 2**40)
        assert pub.poll(10_000)  # its subscription
        pub.recv()
        pub.send(b"events")
        assert guard.socket.poll(10_000)
        guard.close()
    pub.close(linger=0)
    serving.close()


def look_for(guard: MemoryGuard, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        guard.check(guard.socket)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("connects_to", "options"),
    [("router", ("--role", "embed", "--forward", "x")), ("pub", ("--pattern", "sub"))],
)
def test_an_end_that_refuses_this_one_is_told_while_the_stream_is_watched(
    context: Context, keys: Path, connects_to: str, options: tuple[str, ...]
) -> None:
    """It would stand still for ever, its probes green: libzmq does not ask again."""
    curve = CurveServer(read_secret_key(keys / "consumer.key_secret"), EVENTS)
    open_end = open_receiver if connects_to == "router" else open_sender
    theirs: Context = zmq.Context()  # a gate is a context's
    with theirs, Gate(theirs, {EVENTS: AllowList(keys / "others" / "clients")}):
        other = open_end(theirs, "tcp://127.0.0.1:*", connects_to, curve=curve)
        endpoint = bound_endpoint(other)
        given = ("--curve-key", keys / "daq1.key_secret", "--curve-server", keys / "consumer.key")
        forwards = connects_to == "router"
        clients = ("--curve-clients", keys / "clients") if forwards else ()
        read = consumer(*options, *given, *clients)
        with ConsumerSecurity(read, context) as security:
            if forwards:
                guard = security.open_receiver("tcp://127.0.0.1:*", "pull", 2**40)
                tester = security.open_forwarder(endpoint)
            else:
                guard = security.open_receiver(endpoint, "sub", 2**40)
            with pytest.raises(EndpointError, match="refuses this key"):
                look_for(guard, 10.0)
            guard.close()
            if forwards:
                tester.close(linger=0)
        other.close(linger=0)


def test_embedder_cannot_tap_and_forward_with_one_server_key(keys: Path) -> None:
    options = consumer(
        *("--role", "embed", "--forward", "tcp://there:1", "--pattern", "sub"),
        *("--curve-key", keys / "daq1.key_secret", "--curve-server", keys / "consumer.key"),
    )
    with pytest.raises(ParameterError, match="let producers connect"):
        check_roles(options)


def test_memory_limit_below_what_is_loaded_is_refused(context: Context) -> None:
    with (
        ConsumerSecurity(consumer("--max-memory", "3"), context) as security,
        pytest.raises(ParameterError, match="above what is loaded"),
    ):
        security.open_receiver("tcp://127.0.0.1:*", "pull", 2**40)
