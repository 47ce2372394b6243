"""Command: malformed messages and damaged files, and what the program makes of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.command import CommandParser, count, positive_float, positive_int, run_command
from engines.errors import WorkerError

__all__ = ["main"]

_PROG = "bench-fuzz"
_DESCRIPTION = """\
messages: malformed messages, good ones among them, through the consumer's intake, where each is
judged by the rules of the wire written a second time; embeddings and control messages likewise;
and through a socket into a real consumer. artefacts: damaged .onnx, .plan, .ref, .toml and HDF5
files, opened by the real loaders in processes that may crash, hang or run out of memory. all: both.
Ends with exit code 1 if anything went wrong; the same seed draws the same again."""
_TARGETS = ("onnx", "plan", "reference", "config", "events")
_SETTINGS = ("part", "n", "socket", "control", "files", "targets", "time_limit", "memory", "seed")


def _parser() -> CommandParser:
    parser = CommandParser(_PROG, _DESCRIPTION, f"{_PROG} messages --n 1000000 --json fuzz.json")
    add = parser.add_argument
    add("part", choices=("messages", "artefacts", "all"), help="what to damage")
    add("--n", type=positive_int, default=1_000_000, help="messages through the intake")
    add("--socket", type=count, default=200_000, metavar="N", help="messages through a socket")
    add("--control", type=count, default=200_000, metavar="N", help="control messages")
    add("--files", type=positive_int, default=4000, metavar="N", help="damaged files of each kind")
    add("--targets", nargs="+", choices=_TARGETS, default=list(_TARGETS), help="kinds of file")
    add("--time-limit", type=positive_float, default=20.0, metavar="S", help="of one file")
    add("--memory", type=positive_int, default=1024, metavar="MIB", help="of one file")
    add("--seed", type=count, default=0, help="of everything that is drawn")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.fuzzing.report import text
    from engines.artifact import check_writable

    if options.json is not None:
        check_writable(options.json)
    results: dict[str, Any] = {}
    if options.part != "artefacts":
        results["messages"] = _messages(options)
    if options.part != "messages":
        results["files"] = _files(options)
    sys.stdout.write(text(results))
    if options.json is not None:
        from bench.stamp import save_record

        said = {name: getattr(options, name) for name in _SETTINGS}
        save_record(options.json, "fuzz", said, results=results)
    wrong = [
        f"{one['wrong']} of {name} ({one['examples'][0]})"
        for part in results.values()
        for name, one in part.items()
        if one["wrong"]
    ]
    if wrong:
        msg = f"nothing must go wrong; got {'; '.join(wrong)}"
        raise WorkerError(msg)


def _messages(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from bench.fuzzing.control_run import ControlRun
    from bench.fuzzing.intake_run import IntakeRun
    from bench.fuzzing.report import control_record, intake_record, socket_record
    from bench.fuzzing.socket_run import fuzz_consumer
    from engines.progress import Progress

    records = {}
    # The tester of several embedders takes embeddings: a tenth as many.
    for k, (name, n) in enumerate((("intake", options.n), ("embeddings", options.n // 10))):
        run = IntakeRun(np.random.default_rng([options.seed, k]), embeddings=bool(k))
        shown = Progress(n, name)
        resident = run.feed(n, shown.advance)
        shown.close()
        run.check_account()
        records[name] = intake_record(run, resident)
    control = ControlRun(np.random.default_rng([options.seed, 2]))
    shown = Progress(options.control, "control messages")
    control.feed(options.control, shown.advance)
    shown.close()
    records["control"] = control_record(control)
    if options.socket:
        shown = Progress(options.socket, "socket")
        records["socket"] = socket_record(
            fuzz_consumer(options.socket, options.seed, shown.advance)
        )
        shown.close()
    return records


def _files(options: argparse.Namespace) -> dict[str, Any]:
    from bench.fuzzing.report import files_record
    from bench.fuzzing.workers import CaseLimits, Outcome, run_cases
    from engines.progress import Progress

    limits, records = CaseLimits(options.time_limit, options.memory), {}
    for target in options.targets:
        shown = Progress(options.files, target)

        def advance(outcome: Outcome, shown: Progress = shown) -> Outcome:
            shown.advance()
            return outcome

        cases = run_cases(target, options.seed, options.files, limits)
        records[target] = files_record(map(advance, cases))
        shown.close()
    return records


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
