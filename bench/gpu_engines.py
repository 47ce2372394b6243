"""Command: every way to run an encoder on a GPU, beside ONNX Runtime on the CPU."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.pretrained import pretrained_path

if TYPE_CHECKING:
    from engines.engine import Engine
    from engines.types import FloatArray

__all__ = ["main"]

_TEXT = """\
Opens an encoder with torch, with torch compiled, with ONNX Runtime's CUDA provider and with
TensorRT in every precision, as far as this machine has them; compares the embeddings with those of
ONNX Runtime on the CPU and times batches. The same graph in half precision is compared with torch
as well, where there may be no TensorRT."""
_N_COMPARED = 5000
_BUILD_S = 100
_TORCH, _PROVIDER = "torch", "ONNX Runtime"


def _parser() -> CommandParser:
    prog = "python -m bench.gpu_engines"
    parser = CommandParser(prog, _TEXT, f"{prog} d4.onnx --device cuda --json out.json")
    add = parser.add_argument
    add("engine", type=Path, nargs="?", default=pretrained_path("d4"), help="an .onnx file")
    add("--device", default="cuda", help="cuda, or cpu to try this command out")
    add("--batches", type=positive_int, nargs="+", default=[1, 64, 1024, 4096], help="events")
    add("--seconds", type=positive_float, default=0.1, help="of one timing, at least")
    add("--repeat", type=positive_int, default=5, help="timings of everything, taking turns")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.stamp import save_record
    from engines.engine import open_engine
    from engines.event_files import read_events
    from engines.events import EventRange
    from engines.samples import sample_path

    events = read_events(EventRange(sample_path("sm_unseen"), 0, _N_COMPARED))
    with open_engine(options.engine) as engine:
        expected = engine.embed(events)
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: _measure(opened, events, expected, options)
            for name, opened in _ways(options.engine, options.device, Path(folder))
        }
    results = {
        "ways": ways,
        "precisions": dict(_precisions(options.engine, options.device, events, expected)),
        "faster": _faster(ways),
    }
    sys.stdout.write(_text(results))
    if options.json is not None:
        settings = {key: getattr(options, key) for key in ("device", "batches", "repeat")}
        settings["engine"] = options.engine.name
        save_record(options.json, "gpu-engines", settings, results=results)


def _ways(path: Path, device: str, folder: Path) -> Iterator[tuple[str, "Callable[[], Engine]"]]:
    """Yield each way's name and how to open the encoder so."""
    from engines.engine import open_engine
    from engines.gpu.cuda_engine import OnnxCudaEngine
    from engines.gpu.torch_engine import TorchEngine
    from engines.plans.precision import PRECISIONS

    yield _TORCH, lambda: TorchEngine(path, device=device)
    if device != "cpu":
        yield "torch, compiled", lambda: TorchEngine(path, device=device, compiled=True)
    yield _PROVIDER, lambda: OnnxCudaEngine(path, device=device)
    for precision in PRECISIONS:
        plan = folder / f"{path.stem}-{precision}.plan"

        def compiled(plan: Path = plan, precision: str = precision) -> "Engine":
            _build(path, plan, precision)
            return open_engine(plan)

        yield f"TensorRT, {precision}", compiled


def _build(path: Path, plan: Path, precision: str) -> None:
    """Compile a plan in a process of its own, which may take long or fail.

    Raises:
        EngineUnavailableError: with the sentence that it ended with.
    """
    from engines.errors import EngineUnavailableError
    from engines.plans.tensorrt_api import gpu_capability

    if gpu_capability() is None:
        msg = "TensorRT must have an NVIDIA GPU and its driver; this machine has none"
        raise EngineUnavailableError(msg)
    words = [sys.executable, "-m", "engines.build_engine", str(path), "-o", str(plan)]
    words += ["--precision", precision, "--log-level", "WARNING"]
    words += ["--tolerance", "9", "--max-t-shift", "9", "--max-z-shift", "9"]  # judged here
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, this package
            words, capture_output=True, text=True, timeout=_BUILD_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"build-engine must end within {_BUILD_S} s; it did not"
        raise EngineUnavailableError(msg) from exc
    if done.returncode != 0:
        raise EngineUnavailableError((done.stderr.strip().splitlines() or ["no reason"])[-1])


def _measure(
    opened: "Callable[[], Engine]",
    events: "FloatArray",
    expected: "FloatArray",
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return an engine's differences and rates, or why there is none."""
    from bench.embedding import EngineRate
    from bench.spread import spread
    from engines.errors import NplmStreamError

    try:
        with opened() as engine:
            rates = {n: EngineRate(engine, n, options.seconds) for n in options.batches}
            hz = {
                n: [rate.measure_hz() for _ in range(options.repeat)] for n, rate in rates.items()
            }
            return {
                "runtime": engine.runtime,
                **_differences(engine.embed(events), expected),
                "rates": [{"batch": n, "events_hz": spread(values)} for n, values in hz.items()],
            }
    except (NplmStreamError, RuntimeError) as exc:
        return {"unavailable": str(exc).strip().partition("\n")[0]}


def _differences(embeddings: "FloatArray", expected: "FloatArray") -> dict[str, float]:
    """Return the largest difference, in itself and over the spread of its coordinate."""
    difference = abs(embeddings - expected).max(axis=0)
    return {
        "largest_difference": float(difference.max()),
        "largest_over_spread": float((difference / expected.std(axis=0)).max()),
    }


def _precisions(
    path: Path, device: str, events: "FloatArray", expected: "FloatArray"
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each precision's differences, the graph computed by torch."""
    import torch

    from engines.artifact import load_onnx
    from engines.gpu.onnx_torch import OnnxModule
    from engines.nplm import check_device
    from engines.plans.precision import PRECISIONS, with_precision

    check_device(device)
    particles, cublas = torch.from_numpy(events).to(device), torch.backends.cuda.matmul
    before = cublas.allow_tf32
    for precision in PRECISIONS:
        module = OnnxModule(with_precision(load_onnx(path), precision)).to(device)
        cublas.allow_tf32 = precision == "tf32"
        try:
            embeddings = module(particles).cpu().numpy()
        finally:
            cublas.allow_tf32 = before
        yield precision, _differences(embeddings, expected)


def _faster(ways: dict[str, dict[str, Any]]) -> str | None:
    """Return torch or ONNX Runtime, whichever takes less time over all batch sizes, if both run."""
    if "rates" not in ways[_TORCH] or "rates" not in ways[_PROVIDER]:
        return None

    def event_seconds(name: str) -> float:
        return sum(1 / float(rate["events_hz"]["median"]) for rate in ways[name]["rates"])

    return min((_TORCH, _PROVIDER), key=event_seconds)


def _text(results: dict[str, Any]) -> str:
    lines = []
    for name, way in results["ways"].items():
        if "unavailable" in way:
            lines.append(f"{name:<16} not available: {way['unavailable']}")
            continue
        rates = "  ".join(f"{r['batch']}: {r['events_hz']['median']:.0f}" for r in way["rates"])
        lines.append(f"{name:<16} differs by {way['largest_difference']:.2g}; events/s  {rates}")
    for name, found in results["precisions"].items():
        share = found["largest_over_spread"]
        lines.append(f"{name:<16} differs by {share:.2g} of a coordinate's spread, in torch")
    faster = results["faster"]
    said = f"{faster} is faster" if faster else "torch and ONNX Runtime cannot be compared here"
    lines.append(f"without TensorRT {said}")
    return "".join(f"{line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
