"""Command: are p-values of null windows uniform, and does the reported systematic cover?"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.command import CommandParser, positive_int, run_command

if TYPE_CHECKING:
    from bench.honesty_plot import Panel

__all__ = ["main"]

_SETTINGS = (
    "modes",
    "windows",
    "toys",
    "pool",
    "relabellings",
    "calibrations",
    "seed",
    "threads",
)
_MODES = ("fixed", "poisson", "widths", "likelihood", "sliding", "nested", "relabelling")
_LEAST_TOYS = 99
_DESCRIPTION = """\
Calibrates on synthetic background and tests windows that took part in no calibration, in every way
that windows can be cut and tested: are their p-values uniform, and how many alarm at one false
alarm in 100 windows? Then calibrates many times on a pool that is too small: does the reported
systematic cover the shift of the null?"""


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-null", _DESCRIPTION, "bench-null --json null.json --plot null.png"
    )
    add = parser.add_argument
    add("--modes", nargs="*", choices=_MODES, default=list(_MODES), help="ways of testing")
    add("--windows", type=positive_int, default=600, help="independent windows of each")
    add("--toys", type=positive_int, default=3000, help="toys of each calibration")
    add("--pool", type=positive_int, default=500_000, help="events that toys are drawn from")
    add("--relabellings", type=positive_int, default=99, help="of each window")
    add("--calibrations", type=int, default=48, help="with a small pool; 0 leaves them out")
    add("--seed", type=int, default=0, help="of everything that is drawn")
    add("--threads", type=positive_int, default=2, help="CPU threads")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    add("--plot", type=Path, metavar="FILE.png", help="write the picture")
    return parser


def _check(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable
    from engines.errors import ParameterError
    from engines.null_plot import check_picture

    rules = {
        f"toys must be at least {_LEAST_TOYS} to resolve p = 0.01; got {options.toys}": options.toys
        >= _LEAST_TOYS,
        f"windows must be at least 2; got {options.windows}": options.windows >= 2,
        f"calibrations must be 0, or at least 2; got {options.calibrations}": options.calibrations
        == 0
        or options.calibrations >= 2,
        f"seed must be a whole number from 0 up; got {options.seed}": options.seed >= 0,
    }
    for broken, holds in rules.items():
        if not holds:
            raise ParameterError(broken)
    if options.plot is not None:
        check_picture(options.plot)
    for path in (options.json, options.plot):
        if path is not None:
            check_writable(path)


def _run(options: argparse.Namespace) -> None:
    _check(options)
    results: dict[str, Any] = {}
    panels: list[Panel] = []
    started = time.perf_counter()
    for index, name in enumerate(_MODES):
        if name in options.modes:
            results[name], panel = _measure(name, options, [options.seed, index])
            panels.append(panel)
    covered = _coverage(options) if options.calibrations else None
    seconds = time.perf_counter() - started
    from bench.null_tables import coverage_table, null_table

    sys.stdout.write(null_table(results))
    if covered is not None:
        sys.stdout.write("\n" + coverage_table(covered))
    if options.json is not None:
        from bench.stamp import save_record

        settings = {name: getattr(options, name) for name in _SETTINGS}
        save_record(
            options.json,
            "null",
            settings,
            seconds=seconds,
            results=results,
            coverage=covered,
        )
    if options.plot is not None:
        from bench.honesty_plot import draw_honesty

        draw_honesty(panels, covered, options.plot)


def _measure(
    name: str, options: argparse.Namespace, seed: list[int]
) -> "tuple[dict[str, Any], Panel]":
    import numpy as np

    from bench.honesty import (
        RelabelConfig,
        relabelled_p_values,
        summarise,
        summarise_relabelling,
    )
    from bench.honesty_plot import Panel
    from bench.null_windows import MODES, Budget, run_mode
    from engines.progress import Progress

    rng, started = np.random.default_rng(seed), time.perf_counter()
    if name == "relabelling":
        config = RelabelConfig(options.windows, options.relabellings)
        shown = Progress(config.n_experiments, name)
        p_values = relabelled_p_values(config, rng, shown.advance)
        result, randomised = summarise_relabelling(p_values, config, rng)
        panel = Panel("relabelling", {"toys": randomised}, None)
    else:
        budget = Budget(options.windows, options.toys, options.pool, threads=options.threads)
        mode = MODES[name]
        shown = Progress(budget.n_toys + mode.n_tests(options.windows), name)
        run = run_mode(mode, budget, rng, shown.advance)
        result, panel = summarise(run), Panel.of(run)
    shown.close()
    return {**result, "seconds": time.perf_counter() - started}, panel


def _coverage(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from bench.coverage import CoverageConfig, coverage, small_pools
    from engines.progress import Progress

    config = CoverageConfig(n_calibrations=options.calibrations, threads=options.threads)
    shown, started = Progress(config.n_calibrations, "small pools"), time.perf_counter()
    rng = np.random.default_rng([options.seed, len(_MODES)])
    covered = coverage(small_pools(config, rng, shown.advance), config)
    shown.close()
    sizes = {"n_data": config.n_data, "n_pool": config.n_pool, "n_ref": config.n_ref}
    return {**sizes, "toys": config.n_toys, **covered, "seconds": time.perf_counter() - started}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
