"""Command: simulated collisions in the ADC2021 layout."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, ended_by_signal, positive_int, run_command

if TYPE_CHECKING:
    from training.simulation.output import ProcessSummary

__all__ = ["main"]

_DESCRIPTION = """\
Simulate proton collisions at 13 TeV: Pythia generates a process down to stable particles, soft
events are laid over it, and a fast detector response makes electrons, muons, jets and missing
momentum of it. The file has the layout of the ADC2021 challenge and holds generator settings,
cross-sections, counts, seeds and the detector's settings as attributes.

With --process, --events are simulated of each, one process after the other; with --mix they are
shuffled in the mixture's proportions.

The same command gives the same file; another --seed, or other events (other processes, numbers or
responses), gives other collisions, so that two files share none. A run that was stopped, by Ctrl-C
or SIGTERM too, continues with the same command; the file depends on neither that nor on --workers.
A file that is there already is left as it is."""

_EXAMPLE = "simulate-events --process W Z A4l --events 5000 --workers 4 -o events.h5"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `simulate-events`; see its `--help`."""
    return run_command(_parser(), _simulate, argv)


def _parser() -> CommandParser:
    from training.simulation.processes import MIXES, PROCESSES

    processes = "\n".join(f"  {p.name:9s} {p.label:2d}  {p.text}" for p in PROCESSES.values())
    text = f"{_DESCRIPTION}\n\nprocesses and their labels:\n{processes}"
    parser = CommandParser("simulate-events", text, _EXAMPLE)
    add = parser.add_argument
    add("--process", nargs="+", default=[], metavar="NAME", help=f"{', '.join(PROCESSES)}")
    add("--mix", choices=tuple(MIXES), help="sm: W 59.2 %%, QCD 33.8 %%, Z 6.7 %%, tt 0.3 %%")
    add("--events", type=positive_int, required=True, metavar="N", help="events to accept")
    add("-o", "--output", type=Path, required=True, metavar="FILE.h5", help="event file to write")
    add(
        "--seed",
        type=int,
        default=0,
        help="another seed, or other events, gives other collisions; the same command gives the "
        "same file",
    )
    add("--workers", type=positive_int, default=1, metavar="N", help="processes that simulate")
    add(
        "--resimulate",
        type=int,
        default=0,
        metavar="K",
        help="further detector responses to each generated event, in dataset Realisations",
    )
    add(
        "--soft-events",
        type=positive_int,
        metavar="N",
        help="pool of soft events to overlay (default: two for each event, 200 to 16000)",
    )
    add(
        "--fresh",
        action="store_true",
        help="start anew: drop the output and what a stopped run left",
    )
    return parser


def _simulate(options: argparse.Namespace) -> None:
    from training.simulation.generator import require_packages
    from training.simulation.plan import make_plan
    from training.simulation.run import simulate

    started = time.monotonic()
    require_packages()
    plan = make_plan(
        options.process,
        options.mix,
        options.events,
        seed=options.seed,
        resimulate=options.resimulate,
        n_soft=options.soft_events,
    )
    with ended_by_signal():
        summaries = simulate(plan, options.output, options.workers, fresh=options.fresh)
    if summaries is None:
        sys.stdout.write(f"already there: {plan.n_events} events in {options.output}\n")
        return
    sys.stdout.write("".join(_describe(summary) for summary in summaries))
    spent = time.monotonic() - started
    sys.stdout.write(f"wrote {plan.n_events} events to {options.output} in {spent:.0f} s\n")


def _describe(summary: "ProcessSummary") -> str:
    line = (
        f"{summary.name}: {summary.n_accepted} accepted of {summary.n_generated} generated "
        f"({summary.n_accepted / summary.n_generated:.2%}), "
        f"cross-section generated {summary.cross_section_mb:.4g} mb\n"
    )
    if summary.decay_tries:
        line += (
            f"  each event's decays were repeated up to {summary.decay_tries} times: its share "
            "accepted is no efficiency\n"
        )
    if summary.n_repeated:
        line += (
            f"  {summary.n_repeated} realisations are the first response of their event again, "
            "since the trigger accepted too few others\n"
        )
    return line


if __name__ == "__main__":
    sys.exit(main())
