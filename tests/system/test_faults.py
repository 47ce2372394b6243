"""Faults around a reliable stream, and what they change in its windows: nothing.

kill -9 at random: test_kills.py; SIGTERM, a full disk, a read-only disk: test_recovery.py; a slow
disk, a clock that jumps, a Prometheus that hangs: here.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from engines.samples import sample_path
from tests import support_faults
from tests.support_commands import (
    Launch,
    calibrate,
    fetch,
    finish,
    free_port,
    launcher,
    tiny_encoder,
    wait_until,
)

SOURCES = ("one", "two", "three")
PER_SOURCE, PER_MESSAGE, WINDOW = 1400, 16, 500
N_WINDOWS = len(SOURCES) * PER_SOURCE // WINDOW
#: Of a source; the last one says that it ends.
MESSAGES = -(-PER_SOURCE // PER_MESSAGE) + 1
HOUR_S = 3600.0
#: Windows may be charged for so much more than has passed: tests take their time.
ALLOWANCE_S = 5.0
BIN = Path(sys.executable).parent

Windows: TypeAlias = list[dict[str, Any]]
Consumer: TypeAlias = "subprocess.Popen[str]"


class Stream:
    """A reliable consumer that runs, and producers that send to it one after the other.

    Args:
        launch: starts them.
        engine: an encoder with its reference beside it.
        folder: where everything lies.
        command: the words that start a consumer.
    """

    def __init__(
        self, launch: Launch, engine: Path, folder: Path, command: tuple[object, ...]
    ) -> None:
        self._launch, self._folder, self.port = launch, folder, free_port()
        self.consumer = launch(
            *(*command, "--engine", engine, "--endpoint", f"ipc://{folder}/e.sock", "--reliable"),
            *("--http", self.port, "--state", folder / "state", "--results", folder / "r.jsonl"),
            *("--far", "1/hour", "--max-waiting", 1000),
        )
        wait_until(lambda: fetch(self.port, "/readyz")[0] == 200, "ready", self.consumer)

    def send(self, source: str) -> None:
        """Send a source's events; return once they are acknowledged."""
        first = 100_000 + PER_SOURCE * SOURCES.index(source)
        producer = self._launch(
            *("stream-producer", f"{sample_path('sm_cocktail')}@{first}:{first + PER_SOURCE}"),
            *("--endpoint", f"ipc://{self._folder}/e.sock", "--source", source, "--reliable"),
            *("--batch", PER_MESSAGE, "--rate", 10_000),
        )
        code, _, err = finish(producer)
        assert code == 0, err

    def metric(self, name: str) -> float:
        text = fetch(self.port, "/metrics")[1]
        found = re.findall(rf"^nplm_stream_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def end(self) -> Windows:
        """Stop it; return its windows, which hold every event sent but those of the open one."""
        assert self.metric("events_total") == len(SOURCES) * PER_SOURCE
        assert self.metric("rejected_messages_total") == 0
        assert self.metric("duplicate_messages_total") == 0
        self.consumer.terminate()
        code, out, err = finish(self.consumer)
        assert code == 0, err
        assert "Traceback" not in err
        n_open = len(SOURCES) * PER_SOURCE - N_WINDOWS * WINDOW
        assert f"{n_open} events of an unfinished window" in out
        return [json.loads(line) for line in (self._folder / "r.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder with its reference beside it."""
    made = tiny_encoder(tmp_path_factory.mktemp("faults") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    return made


@pytest.fixture(scope="module")
def undisturbed(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Windows:
    """Return the windows of a stream that nothing happens to; each event sent is in one."""
    with launcher() as launch:
        folder = tmp_path_factory.mktemp("undisturbed")
        stream = Stream(launch, engine, folder, ("stream-consumer",))
        for source in SOURCES:
            stream.send(source)
        windows = stream.end()
    assert [window["window"] for window in windows] == list(range(N_WINDOWS))
    stop = 0
    for span in (span for window in windows for span in window["spans"]):
        before = PER_SOURCE * SOURCES.index(span["source"].partition("#")[0])
        assert before + PER_MESSAGE * span["first_seq"] + span["first_event"] == stop
        stop = before + PER_MESSAGE * span["last_seq"] + span["stop_event"]
    assert stop == N_WINDOWS * WINDOW
    return windows


def check_same(windows: Windows, undisturbed: Windows) -> None:
    """Fail unless windows hold the same events, with the same accounts and t."""
    kept = ("window", "n_events", "n_missing", "spans", "trials", "alarm")
    found, wanted = (
        [{name: window[name] for name in kept} for window in run] for run in (windows, undisturbed)
    )
    assert found == wanted
    assert [window["t"] for window in windows] == pytest.approx(
        [window["t"] for window in undisturbed], rel=1e-6
    )


def play(stream: Stream) -> Windows:
    """Send everything; return the windows."""
    for source in SOURCES:
        stream.send(source)
    return stream.end()


@contextmanager
def slow_syncs(process: Consumer, log: Path, seconds: float) -> Iterator[None]:
    """Make each sync of a process take longer, and log it; end with the process."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    slow = f"inject=fsync,fdatasync:delay_enter={round(1e6 * seconds)}"
    command = [program, "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync", "-e", slow]
    tasks = Path(f"/proc/{process.pid}/task")

    def all_traced() -> bool:
        with suppress(OSError):  # a thread that has just ended
            statuses = [(task / "status").read_text() for task in tasks.iterdir()]
            return all("TracerPid:\t0\n" not in status for status in statuses)
        return False

    tracer = subprocess.Popen([*command, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: tracer.poll() is not None or all_traced(), "the tracer", process)
        if tracer.poll() is not None:
            pytest.skip(f"this process may not trace another: {finish(tracer)[2]}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


def test_slow_disk_costs_neither_an_event_nor_a_write_each(
    launch: Launch, engine: Path, undisturbed: Windows, tmp_path: Path
) -> None:
    stream = Stream(launch, engine, tmp_path, ("stream-consumer",))
    with slow_syncs(stream.consumer, tmp_path / "syncs", 0.15):
        windows = play(stream)
    check_same(windows, undisturbed)
    n_syncs = (tmp_path / "syncs").read_text().count("(DELAYED)")
    # Each window's account is written alone; messages are not, which keeps the rate.
    assert N_WINDOWS <= n_syncs < len(SOURCES) * MESSAGES / 4


def test_clock_that_jumps_costs_no_event_and_charges_no_time(
    launch: Launch, engine: Path, undisturbed: Windows, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    support_faults.set_wall_clock(offset, 0.0)
    started_s = time.monotonic()
    command = (sys.executable, support_faults.__file__, offset)
    stream = Stream(launch, engine, tmp_path, command)
    for source, wrong_s in zip(SOURCES, (0.0, -HOUR_S, HOUR_S), strict=True):
        support_faults.set_wall_clock(offset, wrong_s)
        stream.send(source)
    # Seen from an hour ago, what is sent now lies ahead; it counts as sent an hour ago.
    assert stream.metric("restamped_messages_total") == MESSAGES
    windows = stream.end()
    check_same(windows, undisturbed)
    charged_s = sum(window["spacing_s"] for window in windows)
    assert 0 < charged_s < time.monotonic() - started_s + ALLOWANCE_S


def test_prometheus_that_hangs_costs_no_event_and_no_other_scrape(
    launch: Launch, engine: Path, undisturbed: Windows, tmp_path: Path
) -> None:
    stream = Stream(launch, engine, tmp_path, ("stream-consumer",))
    with ExitStack() as stack:
        for source in SOURCES:
            for place in range(50):
                one = socket.create_connection(("127.0.0.1", stream.port))
                stack.enter_context(one)
                # Half a request, or a whole one whose answer nobody reads.
                rest = b"\r\n" if place % 2 else b"X-Slow: "
                with suppress(OSError):  # refused already
                    one.sendall(b"GET /metrics HTTP/1.1\r\n" + rest)
            stream.send(source)
            # 32 connections have a place; while all are taken, none keeps it longer than a second.
            wait_until(lambda: fetch(stream.port, "/metrics")[0] == 200, "metrics", stream.consumer)
        check_same(stream.end(), undisturbed)
