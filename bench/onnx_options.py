"""Command: what the session options of ONNX Runtime are worth for an encoder, side by side."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from engines.command import CommandParser, positive_int, run_command
from engines.events import EventRange
from engines.pretrained import pretrained_path
from engines.samples import sample_path

if TYPE_CHECKING:
    import onnxruntime as ort

    from engines.types import FloatArray

__all__ = ["main"]

_TEXT = """\
Times one encoder under each option, round by round so that noise meets all alike; prints thousands
of events/s of the best round. The first row, with ONNX Runtime's defaults and one thread, computes
the graph as it is in the file; `engine` is all that this project does with it."""
#: Events of a timing, in as many calls as that takes.
_TIMED = 4096
#: Attributes of the session's options, and entries of its configuration, by the row's name.
_OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no optimisation": {"graph_optimization_level": "ORT_DISABLE_ALL"},
    "basic optimisation": {"graph_optimization_level": "ORT_ENABLE_BASIC"},
    "extended optimisation": {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
    "no arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "2 threads": {"intra_op_num_threads": 2},
    "2 threads, no spinning": {
        "intra_op_num_threads": 2,
        "session.intra_op.allow_spinning": "0",
    },
}


def _parser() -> CommandParser:
    prog = "python -m bench.onnx_options"
    parser = CommandParser(prog, _TEXT, f"{prog} d4.onnx --batches 256 4096 --json out.json")
    add = parser.add_argument
    add("engine", type=Path, nargs="?", default=pretrained_path("d4"), help="an .onnx file")
    add(
        "--events",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        default=EventRange(sample_path("sm_unseen")),
        help="events to embed, again from the first where a batch needs more",
    )
    sizes = [64, 256, 512, 1024, 4096]
    add("--batches", type=positive_int, nargs="+", default=sizes, help="events of a call")
    add("--rounds", type=positive_int, default=15, help="timings of each row and batch")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _session(path: Path, options: dict[str, Any]) -> "ort.InferenceSession":
    import onnxruntime as ort

    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 3
    for name, value in options.items():
        if "." in name:
            chosen.add_session_config_entry(name, value)
        elif name == "graph_optimization_level":
            chosen.graph_optimization_level = getattr(ort.GraphOptimizationLevel, value)
        else:
            setattr(chosen, name, value)
    return ort.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])


def _bound(session: "ort.InferenceSession", particles: "FloatArray") -> Callable[[], object]:
    """Return a run over memory that the session was told of beforehand."""
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, particles)
    binding.bind_output(session.get_outputs()[0].name, "cpu")
    return partial(session.run_with_iobinding, binding)


def _rows(
    path: Path, batches: Sequence["FloatArray"], stack: ExitStack
) -> Iterator[tuple[str, list[Callable[[], object]]]]:
    """Yield each row's name and its call for each batch."""
    import numpy as np

    from engines.engine import open_engine

    for name, options in _OPTIONS.items():
        session = _session(path, options)
        feed = session.get_inputs()[0].name
        yield name, [partial(session.run, None, {feed: batch}) for batch in batches]
    session = _session(path, {})
    yield "bound memory", [_bound(session, batch) for batch in batches]
    engine = stack.enter_context(open_engine(path))
    places = [np.empty((len(batch), engine.dim), dtype=np.float32) for batch in batches]
    calls = zip(batches, places, strict=True)
    yield "engine", [partial(engine.embed_into, batch, place) for batch, place in calls]


def _seconds(call: Callable[[], object], n_events: int) -> float:
    """Return the mean time of a call, after one that is not timed."""
    repeat = max(1, _TIMED // n_events)
    call()
    started = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - started) / repeat


def _run(options: argparse.Namespace) -> None:
    import numpy as np

    from bench.stamp import range_text, save_record
    from engines.artifact import check_writable
    from engines.event_files import read_events

    if options.json is not None:
        check_writable(options.json)
    particles = read_events(options.events)
    batches = [np.resize(particles, (n, *particles.shape[1:])) for n in options.batches]
    with ExitStack() as stack:
        rows = dict(_rows(options.engine, batches, stack))
        seconds: dict[str, list[list[float]]] = {name: [[] for _ in batches] for name in rows}
        for _ in range(options.rounds):
            for name, calls in rows.items():
                for taken, call, batch in zip(seconds[name], calls, batches, strict=True):
                    taken.append(_seconds(call, len(batch)))
    sys.stdout.write(_table(options.batches, seconds))
    if options.json is not None:
        settings = {
            "engine": options.engine.name,
            "events": range_text(options.events),
            "batches": options.batches,
            "rounds": options.rounds,
        }
        results = {
            name: {"min_s": [min(t) for t in taken], "median_s": [median(t) for t in taken]}
            for name, taken in seconds.items()
        }
        save_record(options.json, "onnx-options", settings, results=results)


def _table(sizes: Sequence[int], seconds: dict[str, list[list[float]]]) -> str:
    """Return thousands of events/s of the best round.

    >>> print(_table([100, 2000], {"defaults": [[0.1, 0.2], [1.0]]}), end="")
    events a call                 100      2000
    defaults                      1.0       2.0
    """
    lines = [f"{'events a call':<24}" + "".join(f"{n:>9} " for n in sizes).rstrip()]
    for name, taken in seconds.items():
        rates = [n / min(times) / 1e3 for n, times in zip(sizes, taken, strict=True)]
        lines.append(f"{name:<24}" + "".join(f"{rate:>9.1f} " for rate in rates).rstrip())
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
