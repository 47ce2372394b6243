"""Command: power of NPLM, MMD and Kolmogorov-Smirnov tests on the same windows."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.options import add_background, share
from engines.command import CommandParser, positive_int, run_command
from engines.events import EventRange
from engines.samples import sample_path

if TYPE_CHECKING:
    from bench.power_curve import Trial
    from engines.engine import Engine

__all__ = ["main"]

_ENGINE = Path("demo/d4.onnx")
_TESTS = ("nplm", "mmd-online", "mmd", "ks")
_DESCRIPTION = """\
Compares NPLM with CapyMOA's online MMD detector, MMD against the whole reference and SciPy's
Kolmogorov-Smirnov test of each feature: the same embedded windows, the same reference, thresholds
from the same null toys at the same false-alarm probability. Prints how many windows alarm without
and with signal."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-power",
        _DESCRIPTION,
        "bench-power --json out.json --plot out.png   (after make demo)",
    )
    add = parser.add_argument
    add("--engine", type=Path, metavar="FILE", default=_ENGINE, help="encoder")
    add_background(parser)
    add(
        "--signal",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        default=EventRange(sample_path("A4l")),
        help="signal events",
    )
    add("--tests", nargs="+", choices=_TESTS, default=list(_TESTS), help="which tests")
    add("--window", type=positive_int, default=4000, help="events in a window")
    add("--n-ref", type=positive_int, help="reference events")
    add("--online-ref", type=positive_int, default=2500, help="of these, for the online MMD test")
    add("--toys", type=positive_int, default=500, help="toys that set the thresholds")
    add("--null-windows", type=positive_int, default=200, help="windows that count false alarms")
    add("--false-alarms", type=share, nargs="+", default=[0.01], help="probability a window")
    add("--fractions", type=share, nargs="+", default=[0.0025, 0.005, 0.01, 0.02], help="signal")
    add("--seed", type=int, default=0, help="of splits, toys and signal counts")
    add("--threads", type=positive_int, default=1, help="CPU threads")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    add("--plot", type=Path, metavar="FILE.png", help="power against fraction")
    return parser


def _run(options: argparse.Namespace) -> None:
    from bench.power_curve import check_rates, draw_power, measure
    from engines.artifact import check_writable
    from engines.engine import open_engine

    check_rates(options.false_alarms, options.toys)
    for path in (options.json, options.plot):
        if path is not None:
            check_writable(path)
    engine = open_engine(options.engine, threads=options.threads)
    trial = _trial(engine, options)
    results = [measure(peer, trial, options.false_alarms) for peer in _peers(options, trial)]
    sys.stdout.write(_table(results, options.signal.path.stem))
    if options.json is not None:
        _save(options, trial, results, {"fingerprint": engine.fingerprint, **asdict(engine.facts)})
    if options.plot is not None:
        draw_power(results, options.signal.path.stem, options.plot)


def _trial(engine: "Engine", options: argparse.Namespace) -> "Trial":
    from bench.experiment import Experiment
    from bench.power_curve import Trial
    from engines.calibration_config import CalibrationConfig
    from engines.windows import WindowSpec

    config = CalibrationConfig(
        WindowSpec("count", float(options.window)),
        n_toys=options.toys,
        n_ref=options.n_ref,
        seed=options.seed,
    )
    signals = {options.signal.path.stem: options.signal}
    experiment = Experiment.of(engine, options.calibration, options.test, signals)
    return Trial.of(experiment, config, sorted(options.fractions), options.null_windows)


def _peers(options: argparse.Namespace, trial: "Trial") -> list[Any]:
    from bench.peers import PEERS, PeerConfig

    config = PeerConfig(
        window=options.window,
        n_centres=trial.sizes.n_centres,
        online_reference=options.online_ref,
        seed=options.seed,
        threads=options.threads,
    )
    return [PEERS[key](trial.basis, trial.reference, config) for key in options.tests]


def _table(results: Sequence[dict[str, Any]], signal: str) -> str:
    """Return Markdown: a row for each test and false-alarm probability."""
    fractions = [point["fraction"] for point in results[0]["rates"][0]["power"]]
    heads = [f"{signal} {100 * fraction:g} %" for fraction in fractions]
    lines = [
        "Share of windows that alarm in % (68 % interval)\n",
        "| test | false alarms set | no signal | " + " | ".join(heads) + " | s a window |",
        "|---|---|---|" + "---|" * len(heads) + "---|",
    ]
    for result in results:
        for entry in result["rates"]:
            cells = [_percent(point) for point in (entry["null"], *entry["power"])]
            head = f"| {result['name']} | {100 * entry['false_alarm']:g} % | "
            lines.append(head + " | ".join(cells) + f" | {result['seconds_per_window']:.3f} |")
    return "\n".join(lines) + "\n"


def _percent(point: dict[str, Any]) -> str:
    low, high = point["share_68"]
    return f"{100 * point['share']:.1f} ({100 * low:.1f}, {100 * high:.1f})"


def _save(
    options: argparse.Namespace,
    trial: "Trial",
    results: Sequence[dict[str, Any]],
    engine: dict[str, Any],
) -> None:
    from bench.stamp import range_text, save_record

    settings = {
        "calibration": range_text(options.calibration),
        "test": range_text(options.test),
        "signal": range_text(options.signal),
        "window": options.window,
        **asdict(trial.sizes),
        "toys": len(trial.toys),
        "null_windows": len(trial.null),
        "fractions": list(trial.signal),
        "false_alarms": options.false_alarms,
        "seed": options.seed,
        "threads": options.threads,
    }
    save_record(
        options.json,
        "power",
        settings,
        engine=engine,
        versions=_peer_versions(),
        results=results,
    )


def _peer_versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in ("capymoa", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
