"""A tiny encoder, a reference for it, and the commands as processes."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.samples import sample_path

__all__ = [
    "INTERRUPTED",
    "TIMEOUT_S",
    "Launch",
    "calibrate",
    "fetch",
    "finish",
    "free_port",
    "launcher",
    "run_command",
    "tiny_encoder",
    "wait_until",
]

TIMEOUT_S = 60.0
#: Exit codes of a command that was interrupted; a shell shows both as 130. Python kills itself with
#: SIGINT where the interrupt fell into an exec of source text, as when a module with dataclasses
#: loads, though the command has caught it and asked for 130.
INTERRUPTED = (130, -signal.SIGINT)
#: Events of the bundled background: the first part calibrates, the rest is the stream.
N_CALIBRATION = 16_000

Launch: TypeAlias = Callable[..., "subprocess.Popen[str]"]


def tiny_encoder(path: Path, seed: int = 0) -> Path:
    """Write an encoder of an event's logarithms to three numbers."""
    weights = np.random.default_rng(seed).normal(size=(57, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=1),
            helper.make_node("Abs", ["flat"], ["size"]),
            helper.make_node("Add", ["size", "one"], ["shifted"]),
            helper.make_node("Log", ["shifted"], ["logs"]),
            helper.make_node("MatMul", ["logs", "w"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 19, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path)
    return path


def start(command: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(Path(sys.executable).parent / command), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for the end; return exit code, stdout and stderr."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def run_command(command: str, *arguments: object) -> tuple[int, str, str]:
    process = start(command, *arguments)
    try:
        return finish(process)
    finally:
        process.kill()


def calibrate(engine: Path, *options: object) -> tuple[int, str, str]:
    """Run `calibrate-reference` for windows of 500 events with 100 toys."""
    return run_command(
        *("calibrate-reference", "--engine", engine, "--window", 500, "--toys", 100),
        *("--events", f"{sample_path('sm_cocktail')}@0:{N_CALIBRATION}", *options),
    )


@contextmanager
def launcher() -> Iterator[Launch]:
    """Start commands; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(command: str, *arguments: object) -> "subprocess.Popen[str]":
        started.append(start(command, *arguments))
        return started[-1]

    try:
        yield launch
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int, path: str) -> tuple[int, str]:
    """Return status and body; status 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()
    except OSError:
        return 0, ""


def wait_until(condition: Callable[[], bool], what: str, process: "subprocess.Popen[str]") -> None:
    """Poll until the condition holds; fail where the process ends or time runs out first."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            msg = f"the process ended before {what}: {finish(process)}"
            raise AssertionError(msg)
        if time.monotonic() > deadline:
            msg = f"waited {TIMEOUT_S:g} s for {what}"
            raise AssertionError(msg)
        time.sleep(0.02)
