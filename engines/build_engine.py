"""Command: an ONNX encoder to a TensorRT plan."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.events import EventRange

__all__ = ["main"]

_DESCRIPTION = """\
Compiles an encoder with TensorRT: tensorrt on the GPU that will run it, or tensorrt_rtx, which
needs no GPU to compile for one. The plan is kept only if its embeddings are those of ONNX Runtime
within the precision's bound, and, where there is a reference, if t and Z of background windows and
of one with signal stay where they were. Where this machine cannot run the plan, the network before
compilation is compared in its place, on the CPU."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "build-engine", _DESCRIPTION, "build-engine d4.onnx -o d4.plan --precision fp16"
    )
    add = parser.add_argument
    add("onnx", type=Path, metavar="FILE.onnx", help="made by train-encoder")
    add("-o", "--output", type=Path, metavar="FILE.plan", help="default: beside the encoder")
    add(
        "--precision",
        choices=("fp32", "tf32", "fp16", "bf16"),
        default="fp32",
        help="of the matrix products but the last; all else stays fp32",
    )
    add("--opt-batch", type=positive_int, default=256, help="events at once that run fastest")
    add("--max-batch", type=positive_int, default=4096, help="most events at once")
    _add_compiling(parser)
    _add_comparing(parser)
    return parser


def _add_compiling(parser: CommandParser) -> None:
    add = parser.add_argument_group("compiling").add_argument
    add(
        "--tensorrt",
        choices=("tensorrt", "tensorrt_rtx"),
        help="which package (default: the one installed; of both, tensorrt where there is a GPU)",
    )
    add(
        "--compute-capability",
        nargs="+",
        metavar="X.Y",
        help="GPUs to compile for with tensorrt_rtx, such as 8.6 8.9 12.0 (default: this machine's,"
        " or all that it can)",
    )
    add(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="what tensorrt measured, for the next build (default: FILE.plan.cache beside it)",
    )


def _add_comparing(parser: CommandParser) -> None:
    add = parser.add_argument_group("comparing").add_argument
    add("--reference", type=Path, metavar="FILE.ref", help="for Z (default: the one beside)")
    add(
        "--events",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        help="background like the reference's (default: the bundled sm_unseen.h5)",
    )
    add(
        "--tolerance",
        type=positive_float,
        metavar="SPREADS",
        help="largest difference of an embedding, over its coordinate's spread (default: 2e-4 for "
        "fp32, 0.06 for tf32 and fp16, 0.4 for bf16)",
    )
    add(
        "--max-t-shift",
        type=positive_float,
        default=0.1,
        metavar="SPREADS",
        help="largest shift of t, over the null's spread",
    )
    add("--max-z-shift", type=positive_float, default=0.1, metavar="Z", help="largest shift of Z")
    add("--threads", type=positive_int, default=2, help="CPU threads of the comparison")


def _run(options: argparse.Namespace) -> None:
    from engines.inspect_engine import describe_plan
    from engines.plans.build_plan import BuildConfig, build_plan
    from engines.plans.compile_plan import Batches
    from engines.plans.plan_comparison import Comparison

    output = options.output or options.onnx.with_suffix(".plan")
    comparison = Comparison(
        events=options.events,
        tolerance=options.tolerance,
        max_t_shift=options.max_t_shift,
        max_z_shift=options.max_z_shift,
        threads=options.threads,
    )
    config = BuildConfig(
        precision=options.precision,
        batches=Batches(options.opt_batch, options.max_batch),
        flavour=options.tensorrt,
        capabilities=tuple(options.compute_capability or ()),
        timing_cache=options.timing_cache,
        reference=options.reference,
        comparison=comparison,
    )
    facts = build_plan(options.onnx, output, config)
    sys.stdout.write(describe_plan(facts))
    sys.stdout.write(f"{'written':<13}{output} ({output.stat().st_size / 1e6:.1f} MB)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
