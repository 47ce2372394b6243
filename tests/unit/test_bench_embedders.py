"""Embedders and a tester on machines of their own: the network, the account, one run in earnest."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import embedders, embedders_net, embedders_run
from bench.embedders_net import Machine, network
from bench.embedders_run import _windows
from engines.errors import NplmStreamError, ParameterError


def _namespaces() -> set[str]:
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in said.stdout.splitlines() if line}


def _may_make_namespaces() -> bool:
    try:
        with network(["a"]):
            return True
    except NplmStreamError:
        return False


needs_namespaces = pytest.mark.skipif(
    not _may_make_namespaces(), reason="needs root, ip, and a system with network namespaces"
)


def span(source: str, first: tuple[int, int], last: tuple[int, int]) -> dict[str, Any]:
    return {
        "source": source,
        "first_seq": first[0],
        "first_event": first[1],
        "last_seq": last[0],
        "stop_event": last[1],
    }


def window(n_events: int, *spans: dict[str, Any]) -> str:
    return json.dumps({"scale": 1, "n_events": n_events, "n_missing": 0, "spans": list(spans)})


def test_windows_that_share_no_event_are_told_from_those_that_do(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = window(15, span("a", (0, 0), (0, 10)), span("b", (0, 0), (0, 5)))
    second = window(15, span("b", (0, 5), (1, 10)))
    path.write_text(f"{first}\n{second}\n")
    found = _windows(path, 10, 40)
    assert found["each_event_once"]
    assert (found["tested"], found["events_in_windows"], found["events_elsewhere"]) == (2, 30, 10)
    again = window(15, span("b", (0, 4), (1, 9)))
    path.write_text(f"{first}\n{again}\n")
    assert not _windows(path, 10, 40)["each_event_once"]
    path.write_text(f"{first}\n{window(16, span('b', (0, 5), (1, 10)))}\n")
    assert not _windows(path, 10, 40)["each_event_once"]


@pytest.mark.usefixtures("keep_logging")
def test_without_root_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert embedders.main([]) == 2
    said = capsys.readouterr().err
    assert "must be run as root" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("keep_logging")
def test_without_ip_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert embedders.main([]) == 2
    assert "the program `ip` must be installed" in capsys.readouterr().err


def _send_and_fail(a: Machine, b: Machine) -> None:
    """Send 99 bytes from one to the other, then be an error."""
    send = "import socket, sys; socket.create_connection((sys.argv[1], 5555)).sendall(b'x' * 99)"
    take = "import socket; s = socket.create_server(('', 5555)); s.accept()[0].recv(99)"
    before = a.traffic().sent_bytes
    with subprocess.Popen(["ip", "netns", "exec", b.namespace, "python3", "-c", take]) as taking:
        words = ["ip", "netns", "exec", a.namespace, "python3", "-c", send, b.address]
        # Until it listens.
        while subprocess.run(words, capture_output=True, check=False).returncode:
            assert taking.poll() is None
        assert taking.wait(10) == 0
    assert a.traffic().sent_bytes - before >= 99
    msg = "enough"
    raise ParameterError(msg)


@needs_namespaces
def test_machines_reach_each_other_and_leave_nothing_behind() -> None:
    before = _namespaces()
    with pytest.raises(ParameterError, match="enough"), network(["a", "b"]) as machines:
        _send_and_fail(machines["a"], machines["b"])
    assert _namespaces() == before


@needs_namespaces
def test_a_network_that_cannot_be_finished_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _namespaces()

    def fail(*_: object) -> None:
        msg = "no more"
        raise ParameterError(msg)

    monkeypatch.setattr(embedders_net, "_plug", fail)
    with pytest.raises(ParameterError, match="no more"), network(["a"]):
        pass
    assert _namespaces() == before


@needs_namespaces
@pytest.mark.slow
@pytest.mark.usefixtures("keep_logging")
def test_two_embedders_and_a_tester_count_every_event_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedders_run, "_SETTLING_EVENTS", 5000)
    saved = tmp_path / "out.json"
    words = ["--repeat", "1", "--rate", "15000", "--duration", "1", "--warm-up", "0.2"]
    assert embedders.main([*words, "--json", str(saved)]) == 0
    results = json.loads(saved.read_text())["results"]
    for name in ("embedders", "single"):
        found = results[name]
        (account,) = found["windows"]
        assert account["each_event_once"]
        assert account["sources"] == ["daq-0", "daq-1"]
        assert account["events_in_windows"] + account["events_elsewhere"] == sum(found["events"])
        assert account["events_in_windows"] > 0
        # 228 bytes an event, headers and acknowledgements on top.
        assert 228 < found["bytes_an_event"]["producer"]["median"] < 300
    assert 16 < results["embedders"]["bytes_an_event"]["tester"]["median"] < 32
    assert "no event in two" in capsys.readouterr().out
