"""Command: which embedding finds signals best? Trains, measures, ranks, tabulates, draws."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.command import CommandParser, positive_int, run_command

__all__ = ["main"]

_USAGE = """\
usage: bench-physics {run,select,report,engines} ...

  run STUDY.toml      train the encoders of a study, measure accuracy, Z and power of each for every
                      signal and fraction, and write tables and figures
  select STUDY.toml   rank its recipes without a signal: train each without one background process,
                      seek that process, average
  report STUDY.toml   tables and figures of what is there, no training
  engines             Z of some encoders that are there, beside the baselines, and how uniform their
                      p-values are (after make demo: no option needed)

What is done is kept, so a study that was killed goes on where it was. Examples of studies, from a
minute to days: bench/studies. Each has its own --help: bench-physics run --help
"""
_KEYS = """\
A study is one TOML file; paths in it are relative to it.

  folder = "..."        where everything goes
  [data]                folder, background (shuffled; its last part, reserve = 0.2, is for tests
                        alone), extra (further files for training)
  [data.signals]        name = "FILE@START:STOP", for the tests
  [data.training_signals]  the same, for encoders that learn from signals
  [data.processes]      name = label, of the background
  [train]               dims, seeds, events, [train.options]: defaults of all encoders
  [[encoders]]          name, options = {any of train-encoder}, dims, seeds, events, extra, signals;
                        or files = [engines that exist, one a seed]
  [test]                window, fractions (0 counts false alarms), windows, splits, toys, n_ref,
                        seed
  [blackbox]            encoders, signals, fraction, window, splits, references, toys, n_ref, seed
  [map]                 encoders, signals, fraction, least_f, method (umap or pca)
  [select]              processes, encoders (of those that learn from no signal), and the keys of
                        [test]"""


def _parser(name: str, text: str) -> CommandParser:
    parser = CommandParser(
        f"bench-physics {name}",
        f"{text}\n\n{_KEYS}",
        f"bench-physics {name} bench/studies/smoke.toml",
    )
    add = parser.add_argument
    add("study", type=Path, metavar="STUDY.toml", help="what to do")
    add("--folder", type=Path, metavar="DIR", help="where everything goes, not the study's folder")
    add("--data", type=Path, metavar="DIR", help="where the event files are, not the study's place")
    if name == "select":
        add("--no-signals", action="store_true", help="do not train and test on signals as well")
    if name != "report":
        add("--jobs", type=positive_int, default=1, help="trainings at a time")
        add("--threads", type=positive_int, default=1, help="CPU threads of the measurements")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.physics_study.jobs import study_jobs
    from bench.physics_study.read_study import read_study
    from bench.physics_study.report import write_report
    from bench.physics_study.running import finish, run_jobs

    study = read_study(options.study, folder=options.folder, data=options.data)
    failed = run_jobs(study, study_jobs(study), processes=options.jobs, threads=options.threads)
    finish(failed, lambda: _tell(write_report(study)[0]))


def _select(options: argparse.Namespace) -> None:
    from bench.physics_study.jobs import left_out_jobs, study_jobs
    from bench.physics_study.read_study import read_study
    from bench.physics_study.running import finish, run_jobs
    from bench.physics_study.select_report import write_selection
    from engines.errors import ParameterError

    study = read_study(options.study, folder=options.folder, data=options.data)
    if study.selection is None:
        msg = f"in {options.study}: [select] must be given for a selection; it is missing"
        raise ParameterError(msg)
    jobs = left_out_jobs(study)
    if study.data.signals and not options.no_signals:
        jobs += [job for job in study_jobs(study) if job.encoder.name in study.selection.encoders]
    failed = run_jobs(study, jobs, processes=options.jobs, threads=options.threads)
    finish(failed, lambda: _tell(write_selection(study)))


def _report(options: argparse.Namespace) -> None:
    from bench.physics_study.read_study import read_study
    from bench.physics_study.report import write_report
    from bench.physics_study.select_report import write_selection
    from engines.errors import ArtifactError

    study = read_study(options.study, folder=options.folder, data=options.data)
    if study.selection is not None:
        try:
            _tell(write_selection(study))
        except ArtifactError as exc:  # a study may have been run, and not selected from
            sys.stdout.write(f"no selection: {exc}\n")
    _tell(write_report(study)[0])


def _tell(path: Path) -> None:
    sys.stdout.write(f"\n{path.read_text()}\nwritten to {path}\n")


def _study_command(
    name: str, text: str, function: Callable[[argparse.Namespace], None]
) -> Callable[[Sequence[str]], int]:
    return lambda argv: run_command(_parser(name, text), function, argv)


def _engines(argv: Sequence[str]) -> int:
    from bench.physics_engines import main as engines_main

    return engines_main(argv)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _study_command("run", "Trains and measures what is missing of a study.", _run),
    "select": _study_command("select", "Ranks the recipes of a study without a signal.", _select),
    "report": _study_command("report", "Writes tables and figures of what is there.", _report),
    "engines": _engines,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return 0
    command = _COMMANDS.get(words[0]) if words else None
    if command is None:
        got = repr(words[0]) if words else "nothing"
        choices = ", ".join(_COMMANDS)
        sys.stderr.write(
            f"bench-physics: the first word must be one of {choices}; got {got}; see "
            "bench-physics --help\n"
        )
        return 2
    return command(words[1:])


if __name__ == "__main__":
    sys.exit(main())
