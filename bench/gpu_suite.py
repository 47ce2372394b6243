"""Command: the GPU tests and every GPU benchmark within ten minutes, without a network."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.pretrained import PRETRAINED, pretrained_path

__all__ = ["Outcome", "Part", "main", "parts", "run_part"]

_PROG = "bench-gpu"
_TEXT = """\
Runs pytest -m gpu, then: engines (parity by precision and rates of every way to run an encoder),
NPLM at 1M reference events, windows of 100k and 1000 centres, 1000 toys of it, embedding rates
beside the GPU's limits, and latency of the whole stream. Each is a process with a time limit; what
fails, does not fit any more, or is not installed is named, and the rest goes on. Leaves at most
eight files: JSON with a stamp of the machine, and plots.

It needs this package (python -m pip install --no-deps --no-build-isolation -e .), torch, numpy,
scipy, numba, onnx, onnxruntime, h5py, safetensors, matplotlib, msgpack, prometheus-client, pyzmq
and pytest. TensorRT and PyCUDA are used where they are. What a machine without a network lacks can
be brought as wheels: pip install --no-index --no-deps --target site *.whl, PYTHONPATH=site."""
_TOYS = 1000
#: A part is not begun with less time than this.
_LEAST_S = 10.0
_TAIL_LINES = 80
_Words: TypeAlias = list[str]
_LARGE = ["--n-ref", "1000000", "--window", "100000", "--centres", "1000"]
_SMALL = ["--n-ref", "20000", "--window", "2000", "--centres", "50", "--repeat", "2"]
_SHORT = ["--loads", "0.5", "--capacity", "20000", "--duration", "1.5", "--warm-up", "0.5"]
_ROOT = Path(__file__).parents[1]
_TESTS = _ROOT / "tests" / "gpu"


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: of the part.
        words: its command line after `python -m`, from the seconds it has; None leaves it out.
        limit_s: its share of the time; what others left over comes on top.
    """

    name: str
    words: Callable[[float], _Words | None]
    limit_s: float


@dataclass(frozen=True)
class Outcome:
    """What came of a part: done, failed, stopped (out of time) or left out."""

    name: str
    status: str
    seconds: float
    output: tuple[str, ...] = ()


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _TEXT, f"{_PROG} -o gpu")
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="FOLDER", required=True, help="made if missing")
    add("--device", default="cuda", help="cuda, one of several as cuda:1, or cpu for a rehearsal")
    add("--minutes", type=positive_float, default=9.5, help="for everything")
    add("--toys", type=positive_int, default=_TOYS, help="of NPLM, or as many as there is time for")
    add("--quick", action="store_true", help="small sizes, to see that everything runs")
    return parser


def parts(folder: Path, device: str, n_toys: int, *, quick: bool) -> list[Part]:
    """Return the parts in order, the most important first."""
    nplm = ["--device", device, "--no-falkon"]
    nplm += _SMALL if quick else _LARGE
    engines = [str(pretrained_path(name)) for name in PRETRAINED]
    embed = ["--engine", *engines, "--device", device, "--json", str(folder / "embedding.json")]
    embed += ["--repeat", "1", "--seconds", "0.02", "--batch", "64"] if quick else []
    ways = ["--device", device, "--json", str(folder / "engines.json")]
    ways += ["--repeat", "1", "--seconds", "0.02", "--batches", "64"] if quick else []
    latency = ["--device", device, "--json", str(folder / "latency.json")]
    latency += ["--plot", str(folder / "latency.png")]
    latency += _SHORT if quick else ["--loads", "0.1", "0.5", "0.8", "--duration", "8"]
    once = folder / "nplm.json"

    def toys(limit_s: float) -> _Words | None:
        n = min(n_toys, _toys_that_fit(once, limit_s))
        words = ["bench.throughput", "nplm", *nplm, "--repeat", "2", "--toys", str(n)]
        return [*words, "--json", str(folder / "nplm-toys.json")] if n else None

    def fixed(*words: str) -> Callable[[float], _Words]:
        return lambda _: list(words)

    tests = ["pytest", str(_TESTS), "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider"]
    return [
        Part("tests", lambda _: tests if _TESTS.is_dir() else None, 110),
        Part("nplm", fixed("bench.throughput", "nplm", *nplm, "--json", str(once)), 90),
        Part("engines", fixed("bench.gpu_engines", *ways), 120),
        Part("embedding", fixed("bench.throughput", "embed", *embed), 50),
        Part("latency", fixed("bench.latency_command", *latency), 90),
        Part("toys", toys, 110),
    ]


def _toys_that_fit(record: Path, limit_s: float) -> int:
    """Return how many toys the rest of the time is enough for, by what one took."""
    try:
        results = json.loads(record.read_text())["results"]
    except OSError:
        return 0
    # Everything but the toys takes about as long again as before them.
    rest_s = (
        2 * results["build_s"] + 20 * results["both_s"]["median"] + 2 * results["pool_features_s"]
    )
    return max(0, int(0.8 * (limit_s - _LEAST_S - rest_s) / results["toy_s"]))


def run_part(part: Part, limit_s: float) -> Outcome:
    """Run a part as a process, and stop it with all its own when its time is over."""
    words = part.words(limit_s) if limit_s >= _LEAST_S else None
    if words is None:
        return Outcome(
            part.name, "left out", 0.0, ("no time left, or what it builds on is missing",)
        )
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [sys.executable, "-m", *words],
            stdout=said,
            stderr=said,
            cwd=_ROOT,
            start_new_session=True,
        )
        try:
            status = "done" if process.wait(limit_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "stopped"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        lines = tuple(said.read().splitlines()[-_TAIL_LINES:])
    return Outcome(part.name, status, time.monotonic() - started, lines)


def _run(options: argparse.Namespace) -> None:
    from bench.gpu_plot import draw_suite
    from bench.gpu_stamp import gpu_stamp
    from bench.stamp import save_record
    from engines.errors import ParameterError, WorkerError
    from engines.nplm import check_device

    check_device(options.device)
    folder = options.output.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        msg = f"--output must be a folder that can be written; got {folder} ({exc.strerror})"
        raise ParameterError(msg) from exc
    end = time.monotonic() + 60 * options.minutes
    outcomes = []
    left = parts(folder, options.device, options.toys, quick=options.quick)
    while left:
        part, *left = left
        later_s = sum(other.limit_s for other in left)
        remaining_s = end - time.monotonic()
        outcomes.append(run_part(part, min(remaining_s, max(part.limit_s, remaining_s - later_s))))
        sys.stdout.write(_line(outcomes[-1]))
        sys.stdout.flush()
        settings = {"device": options.device, "minutes": options.minutes, "quick": options.quick}
        found = {"gpu": gpu_stamp(options.device), "parts": [asdict(one) for one in outcomes]}
        save_record(folder / "suite.json", "gpu-suite", settings, **found)
    draw_suite(folder, folder / "suite.png")
    broken = [one.name for one in outcomes if one.status in ("failed", "stopped")]
    if broken:
        msg = f"every part must end well; {', '.join(broken)} did not; see {folder}/suite.json"
        raise WorkerError(msg)


def _line(outcome: Outcome) -> str:
    last = outcome.output[-1] if outcome.output else ""
    said = last if outcome.name in ("tests", "engines") or outcome.status != "done" else ""
    return f"{outcome.name:<10} {outcome.status:<9}{outcome.seconds:6.1f} s  {said}".rstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 1 if a part failed or was stopped."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
