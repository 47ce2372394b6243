"""The stream's measurements with real processes: all events arrive, and a stall counts."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from bench import latency_command
from bench.hdr import Recording
from bench.processes import free_endpoint
from bench.stream_rate import receive_hz
from bench.stream_run import Feed, Served, run_stream
from engines.errors import WorkerError
from stream.endpoints import Context, open_receiver
from stream.header import decode_header
from stream.stages import STAGES
from tests.conftest import Track
from tests.support_commands import TIMEOUT_S, calibrate, tiny_encoder

STALL_S, DURATION_S, RATE_HZ = 0.6, 2.0, 50_000.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder with its reference beside it, for windows of 500 events."""
    made = tiny_encoder(tmp_path_factory.mktemp("latency") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    return made


def test_a_receiver_that_stalls_shows_in_the_latency(context: Context, track: Track) -> None:
    endpoint = free_endpoint()
    socket = track(open_receiver(context, endpoint))
    # With messages of 3000 events, 684 kB, little fits into the sockets' buffers.
    command = [
        *(sys.executable, "-m", "bench.load", "--endpoint", endpoint, "--batch", "3000"),
        *("--rate", str(RATE_HZ), "--duration", str(DURATION_S)),
    ]
    waits: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        try:
            while socket.poll(int(1000 * TIMEOUT_S)):
                header = decode_header(socket.recv_multipart())
                if header.end:
                    break
                waits.append(time.time_ns() - header.t_ns)
                if len(waits) == 5:
                    time.sleep(STALL_S)
            out, _ = load.communicate(timeout=TIMEOUT_S)
        finally:
            load.kill()
    report = json.loads(out)
    assert report["messages"] == len(waits) == 34
    latency = Recording({max(0, ns): waits.count(ns) for ns in waits})
    # The message due just after the stall began waited for all of it, those after it for less.
    assert latency.max_s > STALL_S - 0.1
    assert sum(ns > 0.25e9 for ns in waits) >= 5


@pytest.mark.slow
def test_latency_of_a_real_consumer(
    engine: Path, tmp_path: Path, keep_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "out.json"
    words = [
        *("--engine", str(engine), "--capacity", "20000", "--loads", "0.5"),
        *("--duration", "1.5", "--warm-up", "0.5", "--json", str(saved)),
    ]
    assert latency_command.main(words) == 0, capsys.readouterr().err
    record: dict[str, Any] = json.loads(saved.read_text())
    untested, tested = record["results"]["points"]
    for point in (untested, tested):
        latency, stages = point["latency"], point["stages"]
        # 59 messages of 256 were sent, those of the first half second left out.
        assert 9_000 < latency["events"] < 59 * 256 - 4_500
        assert 0 < latency["p50_s"] <= latency["p99_s"] <= latency["max_s"]
        means = sum(stages[name]["mean_s"] for name in STAGES if name != "window")
        assert means == pytest.approx(latency["mean_s"], rel=0.01, abs=1e-5)
        cpu = point["cpu_s_per_million"]
        assert 0 < cpu["engine"] < cpu["total"]
    assert (untested["windows"]["tested"], untested["test_share"]) == (0, 0.0)
    assert tested["windows"]["tested"] > 0


def test_a_consumer_that_cannot_start_is_said(tmp_path: Path) -> None:
    feed = Feed(1000.0, 0.5, 0.0)
    with pytest.raises(WorkerError, match=r"missing.onnx"):
        run_stream(Served(tmp_path / "missing.onnx"), feed, skip_events=0)


def test_the_bare_loop_takes_every_message() -> None:
    assert receive_hz(Feed(0.0, 0.5, 0.0)) > 0


def test_the_end_is_told_to_a_socket_that_just_listens(context: Context, track: Track) -> None:
    endpoint = free_endpoint()
    receiver = track(open_receiver(context, endpoint))
    command = [sys.executable, "-m", "bench.load", "--endpoint", endpoint, "--duration", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        try:
            headers = []
            while receiver.poll(int(1000 * TIMEOUT_S), zmq.POLLIN):
                headers.append(decode_header(receiver.recv_multipart()))
                if headers[-1].end:
                    break
            out, _ = load.communicate(timeout=TIMEOUT_S)
        finally:
            load.kill()
    assert [header.seq for header in headers] == list(range(len(headers)))
    assert json.loads(out)["messages"] == len(headers) - 1
