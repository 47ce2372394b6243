"""`stream-producer` as a process: what it sends, what it says, how it ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np
import pytest

from engines.types import FloatArray
from stream.endpoints import Context, Socket, bound_endpoint, open_receiver, open_sender
from stream.message import Message, decode_message
from tests.support_commands import Launch, finish

MakeEvents: TypeAlias = Callable[..., FloatArray]
Track: TypeAlias = Callable[[Socket], Socket]
Receive: TypeAlias = Callable[[Socket], list[bytes]]

N_BACKGROUND = 2000


@dataclass
class Files:
    background: Path
    signal: Path
    background_events: FloatArray
    signal_events: FloatArray
    folder: Path


@pytest.fixture
def files(tmp_path: Path, make_events: MakeEvents) -> Files:
    background, signal_events = make_events(N_BACKGROUND, seed=1), make_events(400, seed=2)
    signal_events[:, 0, 0] = 5000.0
    made = Files(tmp_path / "sm.h5", tmp_path / "signal.h5", background, signal_events, tmp_path)
    for path, particles in ((made.background, background), (made.signal, signal_events)):
        with h5py.File(path, "w") as file:
            file["Particles"] = particles
    return made


@pytest.fixture
def produce(launch: Launch) -> Launch:
    return partial(launch, "stream-producer")


@pytest.fixture
def consumer(context: Context, track: Track, tmp_path: Path) -> Socket:
    return track(open_receiver(context, f"ipc://{tmp_path}/events.sock"))


def until_the_end(socket: Socket, receive: Receive) -> list[Message]:
    messages: list[Message] = []
    while not messages or not messages[-1].header.end:
        messages.append(decode_message(receive(socket)))
    return messages


def test_every_event_arrives_in_order(
    produce: Launch, consumer: Socket, receive: Receive, files: Files
) -> None:
    process = produce(
        files.background, "--endpoint", bound_endpoint(consumer), "--rate", 0, "--batch", 300
    )
    messages = until_the_end(consumer, receive)
    code, out, err = finish(process)
    assert code == 0, err
    assert [m.header.seq for m in messages] == list(range(8))
    assert [len(m) for m in messages] == [300] * 6 + [200, 0]
    assert len({m.header.source for m in messages}) == 1
    assert all(a.header.t_ns <= b.header.t_ns for a, b in pairwise(messages))
    got = np.concatenate([m.particles for m in messages])
    np.testing.assert_array_equal(got, files.background_events)
    assert "sent 7 messages, 2000 events, 0 signal events" in out
    assert "events sent: 2000/2000" in err
    assert "Traceback" not in err


def test_signal_stands_where_the_log_says(
    produce: Launch, consumer: Socket, receive: Receive, files: Files
) -> None:
    log = files.folder / "truth.jsonl"

    def run(seed: int) -> tuple[FloatArray, str]:
        process = produce(
            *(files.background, "--endpoint", bound_endpoint(consumer), "--rate", 0),
            *("--inject", files.signal, "--fraction", 0.1, "--after", 500),
            *("--seed", seed, "--log", log, "--source", f"run-{seed}"),
        )
        messages = until_the_end(consumer, receive)
        code, out, err = finish(process)
        assert code == 0, err
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        sent = [(m.header.seq, len(m)) for m in messages[:-1]]
        assert [(x["seq"], x["n"]) for x in lines] == sent
        assert {x["source"] for x in lines} == {f"run-{seed}"}
        for line, message in zip(lines, messages[:-1], strict=True):
            found = np.flatnonzero(message.particles[:, 0, 0] == 5000.0)
            assert line["signal"] == found.tolist()
        n_signal = sum(len(line["signal"]) for line in lines)
        assert f"{n_signal} signal events" in out
        return np.concatenate([m.particles for m in messages]), log.read_text()

    stream, truth = run(seed=3)
    is_signal = stream[:, 0, 0] == 5000.0
    np.testing.assert_array_equal(stream[~is_signal], files.background_events)
    np.testing.assert_array_equal(stream[is_signal], files.signal_events[: is_signal.sum()])
    assert not is_signal[:500].any()
    assert 80 < is_signal.sum() < 260
    again, truth_again = run(seed=3)
    np.testing.assert_array_equal(again, stream)
    assert truth_again == truth
    other, _ = run(seed=4)
    assert not np.array_equal(other[:, 0, 0], stream[: len(other), 0, 0])


def test_range_limit_loop_and_dtype(
    produce: Launch, consumer: Socket, receive: Receive, files: Files
) -> None:
    process = produce(
        *(f"{files.background}@100:200", "--endpoint", bound_endpoint(consumer), "--rate", 0),
        *("--events", 250, "--loop", "--dtype", "f2"),
    )
    got = np.concatenate([m.particles for m in until_the_end(consumer, receive)])
    part = files.background_events[100:200]
    wanted = np.concatenate([part, part, part])[:250].astype(np.float16)
    np.testing.assert_array_equal(got, wanted)
    assert finish(process)[0] == 0


def test_signal_that_runs_out_is_told(
    produce: Launch, consumer: Socket, receive: Receive, files: Files
) -> None:
    process = produce(
        *(files.background, "--endpoint", bound_endpoint(consumer), "--rate", 0),
        *("--inject", f"{files.signal}@0:5", "--fraction", 0.5),
    )
    assert sum(map(len, until_the_end(consumer, receive))) == N_BACKGROUND + 5
    code, _, err = finish(process)
    assert code == 0
    assert err.count("the signal file ran out after 5 events") == 1


def test_no_end_marker_where_none_is_wanted(
    produce: Launch, consumer: Socket, receive: Receive, files: Files
) -> None:
    options = ("--endpoint", bound_endpoint(consumer), "--rate", 0, "--events", 10)
    assert finish(produce(files.background, *options, "--no-end", "--source", "first"))[0] == 0
    assert finish(produce(files.background, *options, "--source", "second"))[0] == 0
    messages = until_the_end(consumer, receive)
    assert [m.header.source for m in messages] == ["first", "second", "second"]


def test_tap_gets_what_is_published(
    produce: Launch, context: Context, track: Track, receive: Receive, files: Files
) -> None:
    endpoint = f"ipc://{files.folder}/tap.sock"
    sub = track(open_receiver(context, endpoint, "sub"))
    process = produce(
        *(files.background, "--endpoint", endpoint, "--pattern", "pub"),
        *("--events", 500, "--rate", 0),
    )
    messages = until_the_end(sub, receive)
    assert finish(process)[0] == 0
    assert sum(map(len, messages)) == 500


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_stream_in_order(
    produce: Launch, consumer: Socket, receive: Receive, files: Files, number: signal.Signals
) -> None:
    process = produce(
        files.background, "--endpoint", bound_endpoint(consumer), "--loop", "--rate", 2000
    )
    first = decode_message(receive(consumer))
    process.send_signal(number)
    messages = [first, *until_the_end(consumer, receive)]
    assert [m.header.seq for m in messages] == list(range(len(messages)))
    code, out, err = finish(process)
    assert code == 0, err
    assert f"sent {len(messages) - 1} messages" in out
    assert "Traceback" not in err


def test_signal_ends_the_wait_for_a_consumer(produce: Launch, files: Files) -> None:
    endpoint = f"ipc://{files.folder}/nobody.sock"
    process = produce(files.background, "--endpoint", endpoint)
    assert process.stderr is not None
    assert "waiting for a consumer at ipc://" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    assert code == 0
    assert "sent 0 messages" in out


def damaged(name: str) -> Callable[[Files], list[object]]:
    def arguments(files: Files) -> list[object]:
        place = files.folder / f"{name}.h5"
        particles = files.background_events.copy()
        if name == "truncated":
            place.write_bytes(files.background.read_bytes()[:-500])
            return [place]
        if name == "nan":
            particles[1500, 3, 1] = np.nan
        elif name == "negative":
            particles[1500, 3, 0] = -1.0
        elif name == "shape":
            particles = particles[:, :18]
        with h5py.File(place, "w") as file:
            file["Other" if name == "foreign" else "Particles"] = particles
        return [place]

    return arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (lambda files: [files.folder / "absent.h5"], "does not exist"),
        (damaged("truncated"), "not a complete HDF5 file"),
        (damaged("foreign"), "must hold a dataset 'Particles'"),
        (damaged("shape"), "must have shape (n, 19, 3 or 4)"),
        (damaged("nan"), "/nan.h5 is not (1 such"),
        (damaged("negative"), "/negative.h5 is not (1 such"),
        (lambda files: [f"{files.background}@2000:"], "at least one"),
        (lambda files: [f"{files.background}@0:2001"], "holds 2000 events"),
        (lambda files: [files.background, "--inject", files.folder], "does not exist"),
        (
            lambda files: [files.background, "--inject", files.signal, "--fraction", "1"],
            "at least 0 and below 1; got 1",
        ),
        (lambda files: [files.background, "--fraction", "0.1"], "must come with --inject"),
        (lambda files: [files.background, "--log", files.folder], "cannot write --log"),
        (lambda files: [files.background, "--endpoint", "5555"], "malformed"),
        (lambda files: [files.background, "--batch", "65537"], "at most 65536"),
        (lambda files: [files.background, "--rate", "-1"], "0 or more"),
        (lambda files: [files.background, "--source", "x" * 300], "'source' must be"),
        (
            lambda files: [
                *(files.background, "--timeout", "0.2"),
                *("--endpoint", f"ipc://{files.folder}/nobody.sock"),
            ],
            "no consumer took a message",
        ),
    ],
)
@pytest.mark.usefixtures("keep_logging")
def test_bad_input_is_one_sentence(
    files: Files,
    capfd: pytest.CaptureFixture[str],
    arguments: Callable[[Files], list[object]],
    text: str,
) -> None:
    from stream.producer import main

    try:
        code = main([str(argument) for argument in arguments(files)])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code if isinstance(exc.code, int) else -1
    err = capfd.readouterr().err
    assert code == 2
    assert text in err
    assert err.count("\n") == 1
    assert err.startswith("stream-producer: ")


def test_taken_endpoint_is_one_sentence(
    produce: Launch, context: Context, track: Track, files: Files
) -> None:
    holder = track(open_sender(context, "tcp://127.0.0.1:*", "pub"))
    process = produce(
        files.background, "--pattern", "pub", "--endpoint", bound_endpoint(holder), "--rate", 0
    )
    code, _, err = finish(process)
    assert code == 2
    assert err.count("\n") == 1
    assert "another process" in err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\n"
        "from stream.producer import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "open-loop" in done.stdout
