"""`stream-consumer` as a process, fed by `stream-producer`: results, metrics, how it ends."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import pytest

from engines.artifact import fingerprint, load_onnx
from engines.event_files import EventFile
from engines.samples import sample_path
from tests.support_commands import (
    TIMEOUT_S,
    Launch,
    calibrate,
    fetch,
    finish,
    free_port,
    run_command,
    tiny_encoder,
    wait_until,
)
from tests.support_webhook import receiving

WINDOW = 500
PER_MESSAGE = 256
STREAM = f"{sample_path('sm_cocktail')}@100000:105300"
N_STREAM = 5300


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder with its reference beside it."""
    made = tiny_encoder(tmp_path_factory.mktemp("consumer") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    return made


@dataclass
class Running:
    """A consumer that is ready, with everything switched on."""

    process: "subprocess.Popen[str]"
    folder: Path
    port: int

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.folder}/events.sock"

    def lines(self) -> list[dict[str, Any]]:
        def fail(token: str) -> float:
            msg = f"{token} is no JSON"
            raise ValueError(msg)

        text = (self.folder / "r.jsonl").read_text()
        return [json.loads(line, parse_constant=fail) for line in text.splitlines()]

    def metric(self, name: str) -> float:
        status, body = fetch(self.port, "/metrics")
        assert status == 200
        found = [line for line in body.splitlines() if line.startswith(f"nplm_stream_{name} ")]
        assert len(found) == 1, name
        return float(found[0].rpartition(" ")[2])


StartConsumer = Callable[..., Running]


@pytest.fixture
def consumer(launch: Launch, engine: Path, tmp_path: Path) -> StartConsumer:
    def start(*options: object) -> Running:
        port = free_port()
        process = launch(
            *("stream-consumer", "--engine", engine, "--endpoint"),
            *(f"ipc://{tmp_path}/events.sock", "--http", port, "--far", "1/hour"),
            *("--results", tmp_path / "r.jsonl", "--alarms", tmp_path / "alarms", *options),
        )
        wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", process)
        return Running(process, tmp_path, port)

    return start


def check_each_event_once(lines: list[dict[str, Any]], place: int = 0) -> None:
    """Fail unless windows follow each other without gap or overlap (one source, no loss)."""
    for line in lines:
        (span,) = line["spans"]
        first = span["first_seq"] * PER_MESSAGE + span["first_event"]
        stop = span["last_seq"] * PER_MESSAGE + span["stop_event"]
        assert (first, stop - first) == (place, WINDOW)
        place = stop


def test_stream_to_its_end(consumer: StartConsumer, launch: Launch) -> None:
    running = consumer("--exit-on-end")
    producer = launch("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 20_000)
    code, out, err = finish(running.process)
    assert code == 0, err
    assert finish(producer)[0] == 0
    lines = running.lines()
    assert [line["window"] for line in lines] == list(range(N_STREAM // WINDOW))
    check_each_event_once(lines)
    assert all(line["n_events"] == WINDOW and line["mode"] == "count" for line in lines)
    assert all(0 < line["p"] <= 1 and line["converged"] for line in lines)
    assert f"{N_STREAM} events in 22 messages; 0 messages refused, 0 missing" in out
    assert "10 windows tested, 0 skipped" in out
    assert f"{N_STREAM % WINDOW} events of an unfinished window not tested" in out
    assert "Traceback" not in err
    rows = [line for line in out.splitlines() if " ms" in line]
    assert len(rows) == 10


def test_windows_slide(consumer: StartConsumer, launch: Launch) -> None:
    running = consumer("--exit-on-end", "--slide", 250, "--max-waiting", 100)
    launch("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 3000)
    code, out, err = finish(running.process)
    assert code == 0, err
    assert "windows     of 500 events, one each 250" in out
    assert f"{N_STREAM % 250} events of an unfinished window not tested" in out
    lines = running.lines()
    assert [line["window"] for line in lines] == list(range(N_STREAM // 250 - 1))
    assert {line["overlap"] for line in lines} == {0.5}
    check_each_event_once(lines[::2])
    check_each_event_once(lines[1::2], place=250)


def test_longer_scales_and_several_widths(launch: Launch, tmp_path: Path) -> None:
    made = tiny_encoder(tmp_path / "tiny.onnx")
    code, _, err = calibrate(made, "--scales", 3, "--sigma", 1.0, 3.0)
    assert code == 0, err
    process = launch(
        *("stream-consumer", "--engine", made, "--endpoint", f"ipc://{tmp_path}/events.sock"),
        *("--http", "off", "--results", tmp_path / "r.jsonl", "--exit-on-end"),
        *("--max-waiting", 100),
    )
    launch(
        *("stream-producer", STREAM, "--endpoint", f"ipc://{tmp_path}/events.sock"),
        *("--rate", 3000),
    )
    code, out, err = finish(process)
    assert code == 0, err
    assert "windows     of 500 events, each 3 also as one" in out
    assert "10 windows tested and 3 of longer scales" in out
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    merged = [line for line in lines if line["scale"] == 3]
    assert [line["window"] for line in merged] == [0, 1, 2]
    assert {line["n_events"] for line in merged} == {3 * WINDOW}
    assert {line["loss"] for line in merged} == {"likelihood"}
    assert all(line["sigmas"] == [1.0, 3.0] == sorted(line["sigmas"]) for line in lines)
    assert all(len(line["t_by_width"]) == 2 for line in lines)
    assert "2x3" in out


def test_signal_alarms_and_is_kept(consumer: StartConsumer, launch: Launch) -> None:
    running = consumer(
        *("--exit-on-end", "--relabellings", 19, "--alarm-on", "gamma", "--max-waiting", 100)
    )
    launch(
        *("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 10_000),
        *("--inject", sample_path("LQbtau"), "--fraction", 0.4, "--after", 2000),
    )
    code, out, err = finish(running.process)
    assert code == 0, err
    lines = running.lines()
    background, mixed = lines[:4], lines[5:]
    assert min(line["t"] for line in mixed) > max(line["t"] for line in background)
    alarms = [line for line in lines if line["alarm"]]
    assert len(alarms) >= len(mixed)
    kept = sorted((running.folder / "alarms").iterdir())
    largest = accumulate((line["z_alarm"] for line in alarms), max)
    steps = [z for z, _ in groupby(largest)]
    assert len(kept) == len(steps)
    with EventFile(kept[0]) as events:
        assert len(events) == 200
    assert [line["onset"] for line in alarms] == [True] + [False] * (len(alarms) - 1)
    assert {line["alarm_window"] for line in alarms} == {alarms[0]["window"]}
    assert [line["p_relabelled"] for line in lines if line["onset"]] == [1 / 20]
    assert all(line["p_relabelled"] is None for line in lines if not line["onset"])
    assert out.count("ALARM (relabelled p 0.05)") == 1
    assert f"1 alarms ({len(alarms)} windows)" in out


def test_alarm_is_told_while_the_webhook_hangs(consumer: StartConsumer, launch: Launch) -> None:
    """The stream goes on; an alarm is posted again until it is taken; discoveries are decided."""
    with receiving() as webhook:
        webhook.answers = [500]
        webhook.may_answer.clear()
        options = ("--notify", webhook.url, "--fdr", 0.1, "--relabellings", 0)
        running = consumer("--alarm-on", "gamma", "--max-waiting", 100, *options)
        launch(
            *("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 10_000),
            *("--inject", sample_path("LQbtau"), "--fraction", 0.4, "--after", 2000),
        )
        tested = 'windows_total{outcome="tested"}'
        wait_until(lambda: running.metric(tested) >= 10, "ten windows", running.process)
        assert running.metric('notifications_total{outcome="delivered"}') == 0
        webhook.may_answer.set()
        wait_until(
            lambda: running.metric('notifications_total{outcome="delivered"}') == 1,
            "the notification",
            running.process,
        )
        first, again = webhook.bodies
        running.process.send_signal(signal.SIGTERM)
        code, out, err = finish(running.process)
    assert code == 0, err
    assert "secret" not in out + err
    assert first == again
    (onset,) = (line for line in running.lines() if line["onset"])
    assert first["result"] == onset
    assert onset["discovery"] is True


def test_metrics_match_and_sigterm_drains(consumer: StartConsumer, launch: Launch) -> None:
    running = consumer()
    assert running.metric('windows_total{outcome="tested"}') == 0
    first = launch(
        *("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 0, "--no-end"),
        *("--source", "first"),
    )
    assert finish(first)[0] == 0
    wait_until(
        lambda: (
            running.metric('windows_total{outcome="tested"}')
            + running.metric('windows_total{outcome="skipped"}')
            == 10
        ),
        "ten windows",
        running.process,
    )
    assert running.metric("events_total") == N_STREAM
    assert running.metric("messages_total") == 21
    assert running.metric("window_fill_events") == N_STREAM % WINDOW
    assert running.metric("missing_messages_total") == 0
    assert running.metric('rejected_messages_total{reason="non-finite"}') == 0
    lines = running.lines()
    assert running.metric("test_seconds_count") == len(lines)
    assert running.metric('window_t{scale="1"}') == lines[-1]["t"]
    assert running.metric('window_p_value{scale="1"}') == lines[-1]["p"]
    assert running.metric("features_seconds_count") > 0
    assert running.metric('alarms_total{scale="1"}') == sum(line["onset"] for line in lines)
    status, body = fetch(running.port, "/results.json")
    assert status == 200
    assert [shown["t"] for shown in json.loads(body)["windows"]] == [line["t"] for line in lines]

    flowing = launch(
        *("stream-producer", STREAM, "--endpoint", running.endpoint, "--rate", 4000, "--loop"),
    )
    wait_until(lambda: running.metric("events_total") > N_STREAM + 1000, "more", running.process)
    running.process.send_signal(signal.SIGTERM)
    code, out, err = finish(running.process)
    assert code == 0, err
    assert "Traceback" not in err
    lines = running.lines()
    assert f"; {len(lines)} windows tested" in out
    n_events = int(out.splitlines()[-1].split()[0])
    skipped = int(out.partition(" windows tested, ")[2].split()[0])
    assert (len(lines) + skipped) * WINDOW + n_events % WINDOW == n_events
    flowing.send_signal(signal.SIGTERM)
    assert finish(flowing)[0] == 0


def test_interrupt_before_any_event_ends_in_order(consumer: StartConsumer) -> None:
    running = consumer()
    running.process.send_signal(signal.SIGINT)
    code, out, err = finish(running.process)
    assert (code, err) == (0, "")
    assert "0 events in 0 messages" in out
    assert running.lines() == []


@dataclass
class Inputs:
    """What the bad command lines are made of."""

    engine: Path
    folder: Path
    taken_http: int
    taken_endpoint: str

    def copy(self, name: str) -> Path:
        """Return the path of a copy of the engine, without its reference."""
        made = self.folder / f"{name}.onnx"
        shutil.copy(self.engine, made)
        return made

    def with_reference(self, name: str, keep: int | None = None, content: bytes = b"") -> Path:
        made = self.copy(name)
        whole = self.engine.with_suffix(".ref").read_bytes()
        made.with_suffix(".ref").write_bytes(content or whole[:keep])
        return made

    def cut(self, name: str) -> Path:
        made = self.copy(name)
        made.write_bytes(made.read_bytes()[:200])
        return made

    def foreign(self, name: str) -> Path:
        made = self.folder / f"{name}.onnx"
        made.write_bytes(b"# not an engine\n" * 20)
        return made

    def other_engine(self, name: str) -> Path:
        made = tiny_encoder(self.folder / f"{name}.onnx", seed=99)
        shutil.copy(self.engine.with_suffix(".ref"), made.with_suffix(".ref"))
        return made


Case = tuple[Callable[[Inputs], list[object]], list[str]]
CONSUMER_CASES: dict[str, Case] = {
    "no engine": (lambda given: [given.folder / "absent.onnx"], ["absent.onnx does not exist"]),
    "truncated engine": (lambda given: [given.cut("cut")], ["not a complete ONNX file"]),
    "foreign engine": (lambda given: [given.foreign("text")], ["not a complete ONNX file"]),
    "missing plan": (lambda given: [given.folder / "d4.plan"], ["d4.plan"]),
    "unknown kind": (lambda given: [given.folder / "d4.pt"], [".onnx or .plan; got"]),
    "no reference": (lambda given: [given.copy("bare")], ["bare.ref does not exist"]),
    "truncated reference": (
        lambda given: [given.with_reference("short", keep=-100)],
        ["short.ref is not a complete reference file"],
    ),
    "foreign reference": (
        lambda given: [given.with_reference("odd", content=b"text\n" * 50)],
        ["odd.ref is not a complete reference file"],
    ),
    "reference of another engine": (
        lambda given: [given.other_engine("other")],
        ["do not belong together"],
    ),
    "other window": (
        lambda given: [given.engine, "--window", 400],
        ["calibrated for windows of 500 events; got 400 events"],
    ),
    "time window": (
        lambda given: [given.engine, "--window", "10s"],
        ["calibrated for windows of 500 events; got 10 s"],
    ),
    "step that does not divide": (
        lambda given: [given.engine, "--slide", 300],
        ["--slide must divide the window of 500 events", "got '300'"],
    ),
    "step of another kind": (
        lambda given: [given.engine, "--slide", "10s"],
        ["--slide must be a number of events for windows of 500 events; got '10s'"],
    ),
    "no such device": (
        lambda given: [given.engine, "--device", "abacus"],
        ["abacus"],
    ),
    "http port in use": (
        lambda given: [given.engine, "--http", given.taken_http],
        ["another process holds it; choose another port with --http"],
    ),
    "second consumer": (
        lambda given: [given.engine, "--endpoint", given.taken_endpoint],
        ["perhaps a second consumer, holds it"],
    ),
    "no such folder for results": (
        lambda given: [given.engine, "--results", given.folder / "absent" / "r.jsonl"],
        ["cannot write results to"],
    ),
    "no rate": (lambda given: [given.engine, "--far", "often"], ["NUMBER/hour|day"]),
}


@pytest.fixture(scope="module")
def inputs(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    with (
        socket.create_server(("127.0.0.1", 0)) as http,
        socket.create_server(("127.0.0.1", 0)) as holder,
    ):
        yield Inputs(
            engine,
            tmp_path_factory.mktemp("bad"),
            http.getsockname()[1],
            f"tcp://127.0.0.1:{holder.getsockname()[1]}",
        )


@pytest.fixture
def _keep_process(keep_logging: None) -> Iterator[None]:
    """Put back what a command that runs inside the test changes of the process."""
    import torch

    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def command_line(name: str, inputs: Inputs) -> list[str]:
    engine, *options = CONSUMER_CASES[name][0](inputs)
    if "--http" not in options:
        options += ["--http", "off"]
    if "--endpoint" not in options:
        options += ["--endpoint", f"ipc://{inputs.folder}/{name.replace(' ', '-')}"]
    return ["--engine", *map(str, (engine, *options))]


def check_sentence(name: str, code: int, err: str) -> None:
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("stream-consumer: ")
    assert all(text in err for text in CONSUMER_CASES[name][1]), err


@pytest.mark.parametrize("name", CONSUMER_CASES)
@pytest.mark.usefixtures("_keep_process")
def test_bad_input_is_one_sentence(
    inputs: Inputs, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    from stream.consumer import main  # in this process: it takes seconds to start another

    code = main(command_line(name, inputs))
    check_sentence(name, code, capfd.readouterr().err)


@pytest.mark.parametrize("name", ["foreign reference"])
def test_bad_input_ends_the_process_with_one_sentence(inputs: Inputs, name: str) -> None:
    code, out, err = run_command("stream-consumer", *command_line(name, inputs))
    check_sentence(name, code, err)
    assert out == ""


@pytest.mark.usefixtures("_keep_process")
def test_mismatch_shows_both_fingerprints(
    inputs: Inputs, capfd: pytest.CaptureFixture[str]
) -> None:
    from stream.consumer import main

    assert main(command_line("reference of another engine", inputs)) == 2
    err = capfd.readouterr().err
    for path in (inputs.engine, inputs.folder / "other.onnx"):
        assert fingerprint(load_onnx(path)) in err


@pytest.mark.usefixtures("_keep_process")
def test_second_consumer_leaves_the_first_alone(
    consumer: StartConsumer, engine: Path, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    from stream.consumer import main

    running = consumer("--exit-on-end")
    second = ["--engine", str(engine), "--endpoint", running.endpoint, "--http", "off"]
    assert main(second) == 2
    assert "second consumer" in capfd.readouterr().err
    launch("stream-producer", STREAM, "--endpoint", running.endpoint, "--events", 600, "--rate", 0)
    code, out, err = finish(running.process)
    assert code == 0, err
    assert len(running.lines()) == 1, out + err


def test_fewer_than_no_relabellings_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    from stream.consumer import main

    with pytest.raises(SystemExit) as ended:
        main(["--engine", "d4.onnx", "--relabellings", "-1"])
    assert ended.value.code == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "--relabellings: must be a whole number, 0 or above; got -1" in err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\n"
        "from stream.consumer import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SIGTERM or Ctrl-C" in done.stdout
