"""`stream-consumer --state` as a process: stopped, killed, on a full disk."""

import contextlib
import json
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from engines.samples import sample_path
from tests.support_commands import (
    Launch,
    calibrate,
    fetch,
    finish,
    free_port,
    tiny_encoder,
    wait_until,
)

WINDOW = 500
PER_MESSAGE = 256
FIRST = 100_000

Start: TypeAlias = Callable[..., "tuple[subprocess.Popen[str], int]"]
Send: TypeAlias = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder with its reference beside it."""
    made = tiny_encoder(tmp_path_factory.mktemp("recovery") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    return made


@pytest.fixture
def start(launch: Launch, engine: Path, tmp_path: Path) -> Start:
    def run(*options: object) -> "tuple[subprocess.Popen[str], int]":
        port = free_port()
        process = launch(
            *("stream-consumer", "--engine", engine, "--endpoint", f"ipc://{tmp_path}/e.sock"),
            *("--http", port, "--far", "1/hour", "--results", tmp_path / "r.jsonl", *options),
        )
        wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", process)
        return process, port

    return run


@pytest.fixture
def send(launch: Launch, tmp_path: Path) -> Send:
    def run(n_events: int, source: str, *options: object) -> "subprocess.Popen[str]":
        return launch(
            *("stream-producer", f"{sample_path('sm_cocktail')}@{FIRST}:{FIRST + n_events}"),
            *("--endpoint", f"ipc://{tmp_path}/e.sock", "--source", source, *options),
        )

    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "r.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def metric(port: int, name: str) -> float:
    found = re.findall(rf"^nplm_stream_{name} (\S+)$", fetch(port, "/metrics")[1], re.MULTILINE)
    return float(found[0]) if found else -1.0


def check_run(found: list[dict[str, Any]], n_windows: int) -> None:
    """Fail unless windows and trials are counted through, of one run, without a message missing."""
    assert [line["window"] for line in found] == list(range(n_windows))
    assert [line["trials"] for line in found] == list(range(1, n_windows + 1))
    assert len({line["run"] for line in found}) <= 1
    assert all(line["n_events"] == WINDOW and not line["n_missing"] for line in found)


def n_unfinished(out: str) -> int:
    found = re.search(r"(\d+) events of an unfinished window", out)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_restart_goes_on_with_the_open_window(
    start: Start,
    send: Send,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    options = ("--reliable", "--state", tmp_path / "state")
    consumer, _ = start(*options)
    assert finish(send(1800, "one", "--reliable", "--rate", 8000))[0] == 0  # all acknowledged
    consumer.send_signal(number)
    code, _, err = finish(consumer)
    assert code == (0 if number == signal.SIGTERM else code), err
    consumer, _ = start(*options, "--exit-on-end")
    producer = send(2000, "two", "--reliable", "--rate", 8000)
    code, out, err = finish(consumer)
    assert code == 0, err
    assert "Traceback" not in err
    assert ("ended by a kill" in err) == (number == signal.SIGKILL)
    assert finish(producer)[0] == 0
    check_run(lines(tmp_path), 7)
    assert n_unfinished(out) == 300


def test_stop_under_load_ends_in_order_and_every_event_counts_once(
    start: Start, send: Send, tmp_path: Path
) -> None:
    options = ("--reliable", "--state", tmp_path / "state", "--max-waiting", 1000)
    consumer, port = start(*options)
    producers = [send(16_000, source, "--reliable", "--rate", 8000) for source in ("one", "two")]
    wait_until(lambda: metric(port, "events_total") > 4000, "events", consumer)
    consumer.terminate()
    code, _, err = finish(consumer)
    assert code == 0, err
    assert 6 <= len(lines(tmp_path)) < 64  # in the middle of it
    consumer, _ = start(*options, "--exit-on-end")
    code, out, err = finish(consumer)
    assert code == 0, err
    assert not re.search(r"Traceback|kill|missing", err)
    assert [finish(producer)[0] for producer in producers] == [0, 0]
    check_run(lines(tmp_path), 64)
    assert n_unfinished(out) == 0


def test_plain_stream_counts_what_a_kill_lost(start: Start, send: Send, tmp_path: Path) -> None:
    options = ("--state", tmp_path / "state")
    consumer, port = start(*options)
    n_events = 40 * PER_MESSAGE
    producer = send(n_events, "one", "--rate", 4000)
    wait_until(lambda: metric(port, "events_total") > 2000, "events", consumer)
    consumer.kill()
    finish(consumer)
    consumer, port = start(*options, "--exit-on-end")
    code, out, err = finish(consumer)
    assert code == 0, err
    assert finish(producer)[0] == 0
    assert "not stored are lost; those of sources that it knew are counted as missing" in err
    counted = re.search(r"(\d+) missing", out)
    assert counted is not None
    in_windows = sum(line["n_events"] for line in lines(tmp_path))
    found = in_windows + n_unfinished(out) + int(counted[1]) * PER_MESSAGE
    assert found == n_events
    trials = [line["trials"] for line in lines(tmp_path)]
    assert trials == list(range(1, len(trials) + 1))


def test_other_settings_are_refused_by_name(
    start: Start, launch: Launch, engine: Path, tmp_path: Path
) -> None:
    options = ("--state", tmp_path / "state")
    consumer, _ = start(*options)
    consumer.terminate()
    assert finish(consumer)[0] == 0
    code, _, err = finish(
        launch(
            *("stream-consumer", "--engine", engine, "--endpoint", f"ipc://{tmp_path}/f.sock"),
            *("--http", "off", "--far", "1/day", *options),
        )
    )
    assert code == 2
    assert "another --far" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_second_consumer_at_the_same_state(
    start: Start, launch: Launch, engine: Path, tmp_path: Path
) -> None:
    options = ("--state", tmp_path / "state")
    start(*options)
    code, _, err = finish(
        launch(
            *("stream-consumer", "--engine", engine, "--endpoint", f"ipc://{tmp_path}/f.sock"),
            *("--http", "off", *options),
        )
    )
    assert code in (1, 2)
    assert "another consumer is using" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_holds_the_stream_and_a_stop_ends_it(
    start: Start,
    send: Send,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    options = ("--reliable", "--state", small_disk / "state")
    consumer, port = start(*options)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):  # full, as it should be
        ballast.write_bytes(bytes(64 << 20))
    producer = send(5000, "one", "--reliable")
    wait_until(lambda: metric(port, "state_failures_total") > 1, "a failure", consumer)
    started = time.monotonic()
    consumer.terminate()
    code, _, err = finish(consumer)
    assert time.monotonic() - started < 20.0
    assert code in (1, 2), err
    assert "could not be written to" in err.splitlines()[-1]
    assert "Traceback" not in err
    ballast.unlink()
    consumer, _ = start(*options, "--exit-on-end")
    code, out, err = finish(consumer)
    assert code == 0, err
    assert finish(producer)[0] == 0
    check_run(lines(tmp_path), 10)
    assert n_unfinished(out) == 0


def test_disk_that_takes_nothing_for_a_while_costs_nothing(
    start: Start, send: Send, tmp_path: Path
) -> None:
    """Every write is refused, as by a disk that became read-only: one in use cannot be remounted.

    A file of the consumer's may not grow over nothing, so SQLite sees an I/O error.
    """
    options = ("--reliable", "--state", tmp_path / "state", "--exit-on-end")
    consumer, port = start(*options)
    as_it_was = resource.prlimit(consumer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(consumer.pid, resource.RLIMIT_FSIZE, (0, as_it_was[1]))
    producer = send(5000, "one", "--reliable")
    wait_until(lambda: metric(port, "state_failures_total") > 2, "failures", consumer)
    assert producer.poll() is None  # nothing was acknowledged
    assert not lines(tmp_path)
    resource.prlimit(consumer.pid, resource.RLIMIT_FSIZE, as_it_was)
    assert finish(producer)[0] == 0
    code, out, err = finish(consumer)
    assert code == 0, err
    assert "nothing is acknowledged until it can be" in err
    assert "the state can be written" in err
    check_run(lines(tmp_path), 10)
    assert n_unfinished(out) == 0
