"""The commands with keys, certificates and passwords: who gets in, who is told what."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest

from engines.pretrained import pretrained_path
from engines.samples import sample_path
from tests.support_commands import Launch, fetch, finish, free_port, run_command, wait_until
from tests.support_security import ENDLESS_FRAMES, hostile, self_signed

STREAM = f"{sample_path('sm_cocktail')}@100000:105300"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    code, out, err = run_command(
        *("make-keys", folder, "--server", "consumer", "--client", "daq1", "--http-user", "prom")
    )
    assert code == 0, err
    password = out.partition(", password ")[2].split()[0]
    (folder / "noted").write_text(password)
    assert run_command("make-keys", folder / "others", "--client", "mallory")[0] == 0
    return folder


@dataclass
class Consumer:
    process: Popen[str]
    endpoint: str
    port: int


Start = Callable[..., Consumer]


@pytest.fixture
def start(launch: Launch, keys: Path, tmp_path: Path) -> Start:
    def begin(*options: object) -> Consumer:
        endpoint, port = f"tcp://127.0.0.1:{free_port()}", free_port()
        process = launch(
            *("stream-consumer", "--engine", pretrained_path("d4")),
            *("--endpoint", endpoint, "--http", port, "--exit-on-end"),
            *("--results", tmp_path / "r.jsonl", "--curve-key", keys / "consumer.key_secret"),
            *("--curve-clients", keys / "clients", *options),
        )
        if "--http-cert" not in options:
            wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", process)
        return Consumer(process, endpoint, port)

    return begin


def produce(endpoint: str, *options: object) -> tuple[int, str, str]:
    return run_command("stream-producer", STREAM, "--endpoint", endpoint, *options)


def metric(port: int, name: str) -> float:
    lines = fetch(port, "/metrics")[1].splitlines()
    return float(next(x for x in lines if x.startswith(f"nplm_stream_{name} ")).split()[1])


@pytest.mark.parametrize("reliable", [False, True])
def test_only_the_listed_client_gets_events_in(
    start: Start, keys: Path, tmp_path: Path, reliable: bool
) -> None:
    mode = ("--reliable",) if reliable else ()
    state = ("--state", tmp_path / "state") if reliable else ()
    running = start(*mode, *state)
    server = ("--curve-server", keys / "consumer.key")
    code, _, err = produce(running.endpoint, *mode)
    assert (code, "give --curve-key and --curve-server" in err) == (2, True), err
    mallory = keys / "others" / "mallory.key_secret"
    code, _, err = produce(running.endpoint, *mode, "--curve-key", mallory, *server)
    assert (code, "refuses this key" in err) == (2, True), err
    assert metric(running.port, "messages_total") == 0
    assert metric(running.port, "denied_connections_total") >= 2
    daq1 = keys / "daq1.key_secret"
    code, _, err = produce(running.endpoint, *mode, "--curve-key", daq1, *server)
    assert code == 0, err
    code, out, err = finish(running.process)
    assert code == 0, err
    assert "5300 events in 22 messages; 0 messages refused, 0 missing" in out
    assert "client refused" in err
    assert "Traceback" not in err
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_http_port_speaks_tls_to_who_knows_the_password(
    start: Start, keys: Path, tmp_path: Path
) -> None:
    cert, key = self_signed(tmp_path)
    running = start(
        *("--http-cert", cert, "--http-key", key, "--http-password", keys / "prom.password")
    )
    trusting = ssl.create_default_context(cafile=cert)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusting))

    def get(path: str, password: str = "") -> int:
        request = urllib.request.Request(f"https://127.0.0.1:{running.port}{path}")
        if password:
            given = base64.b64encode(f"prom:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {given}")
        try:
            with opener.open(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code
        except OSError:
            return 0

    wait_until(lambda: get("/readyz") == 200, "ready", running.process)
    assert get("/metrics") == 401
    assert get("/metrics", (keys / "noted").read_text()) == 200
    assert get("/metrics", "wrong") in (401, 429)


def test_list_of_nobody_ends_at_once_with_one_sentence(keys: Path, tmp_path: Path) -> None:
    code, _, err = run_command(
        *("stream-consumer", "--engine", "absent.onnx", "--http", "off"),
        *("--curve-key", keys / "consumer.key_secret", "--curve-clients", tmp_path),
    )
    assert code == 2
    assert "must hold at least one NAME.key" in err
    assert "Traceback" not in err


def test_hostile_peer_fills_no_memory_and_costs_no_event(launch: Launch, tmp_path: Path) -> None:
    event_port, port = free_port(), free_port()
    endpoint = f"tcp://127.0.0.1:{event_port}"
    process = launch(
        *("stream-consumer", "--engine", pretrained_path("d4"), "--endpoint", endpoint),
        *("--http", port, "--reliable", "--state", tmp_path / "state", "--max-memory", "700MiB"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", process)
    attack = hostile(ENDLESS_FRAMES, event_port, 1000, "DEALER")
    try:
        wait_until(lambda: metric(port, "socket_resets_total") >= 2, "two resets", process)
        code, _, err = produce(endpoint, "--reliable", "--rate", 2000)
        assert code == 0, err
        most_kib = next(
            int(line.split()[1])
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    finally:
        attack.kill()
        attack.wait()
    assert most_kib < 2 * 2**20
    process.terminate()
    code, out, err = finish(process)
    assert code == 0, err
    assert "5300 events in 22 messages" in out


def test_consumer_without_keys_on_the_network_says_so_once(launch: Launch) -> None:
    port = free_port()
    process = launch(
        *("stream-consumer", "--engine", pretrained_path("d4"), "--http", f"0.0.0.0:{port}"),
        *("--endpoint", f"tcp://0.0.0.0:{free_port()}", "--log-json"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", process)
    process.terminate()
    _, _, err = finish(process)
    lines = [json.loads(line)["message"] for line in err.splitlines() if line.startswith("{")]
    assert len([line for line in lines if "is open to all who can reach it" in line]) == 1
    assert len([line for line in lines if "the HTTP port" in line and "without TLS" in line]) == 1
