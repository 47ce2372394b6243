"""Command: how well two sets of simulated events agree, process by process."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, run_command

__all__ = ["main"]

_DESCRIPTION = """\
Compare simulated events with reference events: for each process that both hold, the distributions
of MET, leading lepton and jet, multiplicities, transverse mass and dilepton mass, as chi-square
per degree of freedom and p-value. A simulation that agrees within statistical errors has p-values
that are uniform: about one in twenty is below 0.05."""

_EXAMPLE = (
    "bench-simulation mine.h5 --reference theirs.h5 signals.h5 --plot out.png --json out.json"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bench-simulation`; see its `--help`."""
    return run_command(_parser(), _compare, argv)


def _parser() -> CommandParser:
    parser = CommandParser("bench-simulation", _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("simulated", nargs="+", type=Path, metavar="A.h5", help="event files with labels")
    add(
        *("-r", "--reference"),
        nargs="+",
        required=True,
        type=Path,
        metavar="B.h5",
        help="event files with labels to compare with",
    )
    add("--plot", type=Path, metavar="FILE.png", help="draw the distributions and their ratio")
    add("--json", type=Path, metavar="FILE.json", help="save numbers and files")
    return parser


def _compare(options: argparse.Namespace) -> None:
    from bench.simulation_agreement import compare_processes, describe
    from bench.simulation_files import describe_files
    from bench.stamp import save_record

    compared = compare_processes(options.simulated, options.reference)
    sys.stdout.write(describe(compared))
    if options.json is not None:
        files = {"simulated": options.simulated, "reference": options.reference}
        settings = describe_files(files)
        processes = [process.record() for process in compared]
        save_record(options.json, "bench-simulation", settings, processes=processes)
    if options.plot is not None:
        from bench.simulation_plot import draw_comparison

        draw_comparison(compared, options.plot)
        sys.stdout.write(f"wrote {options.plot}\n")


if __name__ == "__main__":
    sys.exit(main())
