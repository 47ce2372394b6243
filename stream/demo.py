"""Command: the whole chain on bundled events, as separate processes over real ZeroMQ."""

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.command import CommandParser, positive_int, run_command
from engines.errors import ArtifactError, NplmStreamError, ParameterError
from engines.samples import SIGNALS, sample_path
from stream.truth import join_truth, read_lines

__all__ = ["main"]

_DESCRIPTION = """\
Trains an encoder on bundled events, calibrates a reference, then streams pure background followed
by background with a signal from one process to another over ZeroMQ. Writes results.jsonl and
report.png, and shows a live page while it runs."""
_TRAINING, _CALIBRATION, _STREAM = (0, 45_000), (45_000, 150_000), (150_000, 235_000)
_RARE = (0, 12_000)
_WINDOW, _AFTER = 4000, 40_000
_PATIENCE_S = 120.0


class DemoError(NplmStreamError, RuntimeError):
    """The demo did not come out as promised."""

    exit_code = 1


@dataclass(frozen=True)
class _Files:
    """What the demo writes into its folder."""

    engine: Path
    lines: Path
    truth: Path
    log: Path
    alarms: Path
    metrics: Path
    results: Path
    report: Path

    @classmethod
    def of(cls, folder: Path) -> "_Files":
        return cls(
            engine=folder / "d4.onnx",
            lines=folder / "consumer.jsonl",
            truth=folder / "producer.jsonl",
            log=folder / "producer.log",
            alarms=folder / "alarms",
            metrics=folder / "metrics.txt",
            results=folder / "results.jsonl",
            report=folder / "report.png",
        )


def _parser() -> CommandParser:
    parser = CommandParser("stream-demo", _DESCRIPTION, "stream-demo --signal LQbtau")
    add = parser.add_argument
    add("-o", "--output", type=Path, default=Path("demo"), help="folder for what it writes")
    add("--signal", choices=SIGNALS, default="A4l", help="which signal enters the stream")
    add("--fraction", type=float, default=0.03, help="signal share of the events, once it enters")
    add("--rate", type=positive_int, default=2500, help="events per second")
    add("--http", help="address of the live page (default: 127.0.0.1:9108, or a free port)")
    add("--hold", action="store_true", help="keep the live page up until Ctrl-C")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not 0 < options.fraction < 1:
        msg = f"--fraction must lie between 0 and 1; got {options.fraction}"
        raise ParameterError(msg)
    started = time.monotonic()
    files = _Files.of(options.output)
    _clear(files)
    background = sample_path("sm_cocktail")
    _say("1/4  train a 4-dimensional encoder on Standard Model events, without any signal")
    _command(
        "training.train_encoder",
        *("--events", _part(background, _TRAINING), _part(sample_path("sm_rare"), _RARE)),
        *("--dim", "4", "--fresh", "-o", str(files.engine)),
    )
    _say("2/4  calibrate a reference: background that the encoder never saw")
    _command(
        "engines.calibrate_reference",
        *("--engine", str(files.engine), "--events", _part(background, _CALIBRATION)),
        *("--window", str(_WINDOW), "--toys", "300"),
    )
    _say(
        f"3/4  stream {_AFTER} background events, then {100 * options.fraction:g} % of "
        f"{options.signal} among them, in windows of {_WINDOW}"
    )
    _stream(options, files, _part(background, _STREAM))
    _say("4/4  report")
    lines = join_truth(read_lines(files.lines), read_lines(files.truth))
    files.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    from stream.report import draw_report

    draw_report(lines, files.alarms, files.metrics.read_text(), files.report)
    _say(f"wrote {files.report} and {files.results} in {time.monotonic() - started:.0f} s")
    _judge(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"\n== {text}\n")
    sys.stdout.flush()


def _part(path: Path, events: tuple[int, int]) -> str:
    return f"{path}@{events[0]}:{events[1]}"


def _clear(files: _Files) -> None:
    """Remove what an earlier demo left, and only that; the folder is there then, and writable."""
    try:
        files.alarms.mkdir(parents=True, exist_ok=True)
        for path in (files.lines, files.truth, files.results, *files.alarms.glob("alarm-*.h5")):
            path.unlink(missing_ok=True)
        files.log.write_text("")
    except OSError as exc:
        folder = files.alarms.parent
        msg = f"cannot write into {folder} ({exc.strerror or exc}); name another folder with -o"
        raise ArtifactError(msg) from exc


def _command(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)  # noqa: S603
    if done.returncode:
        msg = f"{module} ended with exit code {done.returncode}; its own message is above"
        raise DemoError(msg)


def _stream(options: argparse.Namespace, files: _Files, background: str) -> None:
    endpoint = f"tcp://127.0.0.1:{_free_port()}"
    address = options.http or f"127.0.0.1:{9108 if _is_free(9108) else _free_port()}"
    consume = [
        *(sys.executable, "-m", "stream.consumer", "--engine", str(files.engine)),
        *("--endpoint", endpoint, "--http", address),
        *("--results", str(files.lines), "--alarms", str(files.alarms)),
        *("--log-level", "WARNING"),
    ]
    produce = [
        *(sys.executable, "-m", "stream.producer", background, "--endpoint", endpoint),
        *("--inject", str(sample_path(options.signal)), "--fraction", str(options.fraction)),
        *("--after", str(_AFTER), "--rate", str(options.rate), "--log", str(files.truth)),
        *("--log-level", "WARNING"),
    ]
    consumer = subprocess.Popen(consume)  # noqa: S603
    try:
        _wait(consumer, f"http://{address}/readyz", lambda _: True)
        _say(f"live page: http://{address}/\n")
        _produce(produce, files.log)
        sent = sum(message["n"] for message in read_lines(files.truth))
        goal = f"nplm_stream_events_total {sent:.1f}"
        metrics = _wait(
            consumer,
            f"http://{address}/metrics",
            lambda text: goal in text and 'nplm_stream_queue_length{queue="tests"} 0.0' in text,
        )
        files.metrics.write_text(metrics)
        if options.hold:
            _say(f"holding http://{address}/ until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                consumer.wait()
    finally:
        consumer.send_signal(signal.SIGTERM)
        code = consumer.wait(timeout=60)
    if code:
        msg = f"the consumer ended with exit code {code}; its own message is above"
        raise DemoError(msg)


def _produce(command: list[str], log: Path) -> None:
    """Run the producer, its progress in a log: the consumer's table shows how far the demo is."""
    with log.open("w") as errors:
        done = subprocess.run(command, stderr=errors, check=False)  # noqa: S603
    if done.returncode:
        msg = f"the producer ended with exit code {done.returncode}: {log.read_text()[-300:]}"
        raise DemoError(msg)


def _wait(consumer: "subprocess.Popen[bytes]", url: str, good: Any) -> str:  # noqa: ANN401
    """Return the page once it answers and is good."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and consumer.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 - our own address
                text = str(page.read().decode())
            if good(text):
                return text
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    if consumer.poll() is not None:
        msg = f"the consumer ended with exit code {consumer.poll()}; its own message is above"
        raise DemoError(msg)
    msg = f"{url} did not answer as expected within {_PATIENCE_S:.0f} s"
    raise DemoError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _judge(lines: list[dict[str, Any]]) -> None:
    """Say what came out, and fail if it is not what the demo promises."""
    lines = [line for line in lines if line["scale"] == 1]
    background = [line["alarm"] for line in lines if line["n_injected"] == 0]
    injected = [line["alarm"] for line in lines if line["n_injected"] > 0]
    _say(
        f"background windows: {len(background)}, alarms {sum(background)}; "
        f"windows with signal: {len(injected)}, alarms {sum(injected)}"
    )
    if any(background) or 2 * sum(injected) <= len(injected) or not background:
        msg = "the demo must raise no alarm on background and alarm on most windows with signal"
        raise DemoError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
