"""`bench-physics engines`: Z for signals in background, for encoders and for baselines."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.options import add_background, share
from engines.command import CommandParser, positive_int, run_command
from engines.events import EventRange
from engines.samples import SIGNALS, sample_path

if TYPE_CHECKING:
    from engines.artifact import EngineFacts, SampleFacts
    from engines.engine import Engine

__all__ = ["main"]

_ENGINE = Path("demo/d4.onnx")
_DESCRIPTION = """\
Calibrates the NPLM test on background, then measures Z in windows that hold a share of signal, for
each encoder and for two baselines (57 raw inputs, six leading-object pT) on the same windows; and
tests whether p-values of unused background windows are uniform."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "bench-physics engines",
        _DESCRIPTION,
        "bench-physics engines --engine d4.onnx --json out.json   (no option after make demo)",
    )
    add = parser.add_argument
    add("--engine", type=Path, nargs="+", metavar="FILE", help=f"encoders (default: {_ENGINE})")
    add_background(parser)
    add(
        "--signals",
        type=EventRange.parse,
        metavar="FILE[@START:STOP]",
        nargs="+",
        help=f"signal events (default: all of the bundled {', '.join(SIGNALS)})",
    )
    add("--window", type=positive_int, default=4000, help="events in a window")
    add("--n-ref", type=positive_int, help="reference events")
    add("--toys", type=positive_int, default=300, help="toys of the calibration")
    add("--fractions", type=share, nargs="+", default=[0.005, 0.01, 0.02], help="signal shares")
    add("--null-window", type=positive_int, default=400, help="window of the uniformity check")
    add("--null-toys", type=positive_int, default=2000, help="toys of the uniformity check")
    add("--seed", type=int, default=0, help="of splits, toys and signal counts")
    add("--threads", type=positive_int, default=2, help="CPU threads")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return parser


def _run(options: argparse.Namespace) -> None:
    from tempfile import TemporaryDirectory

    from bench.baselines import make_baselines
    from engines.artifact import SampleFacts, check_writable
    from engines.engine import open_engine

    options.engine = options.engine or [_ENGINE]
    options.signals = options.signals or [EventRange(sample_path(name)) for name in SIGNALS]
    if options.json is not None:
        check_writable(options.json)
    _check_disjoint(options.calibration, options.test)
    engines = {path.stem: open_engine(path, threads=options.threads) for path in options.engine}
    sources = (options.calibration, options.test, *options.signals)
    samples = [SampleFacts.of(source) for source in sources]
    for name, engine in engines.items():
        _check_unseen(name, engine.facts, samples)
    with TemporaryDirectory() as folder:
        for name, path in make_baselines(options.calibration, Path(folder)).items():
            engines[name] = open_engine(path, threads=options.threads)
    results = {}
    for name, engine in engines.items():
        started = time.perf_counter()
        results[name] = _measure(engine, options)
        results[name]["seconds"] = time.perf_counter() - started
        sys.stdout.write(f"{name}: {results[name]['seconds']:.0f} s\n")
        sys.stdout.flush()
    sys.stdout.write("\n" + _power_table(results) + "\n" + _null_table(results))
    if options.json is not None:
        facts = {
            name: {"fingerprint": engine.fingerprint, **asdict(engine.facts)}
            for name, engine in engines.items()
        }
        _save(options, results, facts)


def _check_disjoint(calibration: EventRange, test: EventRange) -> None:
    from engines.artifact import SampleFacts
    from engines.errors import MismatchError

    shared = SampleFacts.of(calibration).overlap(SampleFacts.of(test))
    if shared:
        msg = (
            f"--calibration and --test must share no events; {calibration} and {test} share "
            f"{shared}; choose ranges apart"
        )
        raise MismatchError(msg)


def _check_unseen(name: str, facts: "EngineFacts", samples: Sequence["SampleFacts"]) -> None:
    from engines.errors import MismatchError
    from engines.unseen import refuse_training_events

    try:
        refuse_training_events(facts, samples)
    except MismatchError as exc:
        msg = f"{name}: {exc}"
        raise MismatchError(msg) from exc


def _measure(engine: "Engine", options: argparse.Namespace) -> dict[str, Any]:
    from bench.experiment import Experiment
    from engines.calibration_config import CalibrationConfig
    from engines.windows import WindowSpec

    signals = {source.path.stem: source for source in options.signals}
    experiment = Experiment.of(engine, options.calibration, options.test, signals)

    def config(window: int, n_toys: int) -> CalibrationConfig:
        return CalibrationConfig(
            WindowSpec("count", float(window)),
            n_toys=n_toys,
            n_ref=options.n_ref,
            seed=options.seed,
        )

    return {
        "dim": experiment.calibration.shape[1],
        "power": experiment.power(
            config(options.window, options.toys), options.fractions, options.seed
        ),
        "null": experiment.null_honesty(config(options.null_window, options.null_toys)),
    }


def _power_table(results: dict[str, dict[str, Any]]) -> str:
    """Return Markdown: median Z with its 68 % band over windows."""
    names = list(results)
    lines = [
        "Median Z (16 % and 84 % quantiles over the windows), chi-square fitted to the toys\n",
        "| signal | share | windows | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for index, first in enumerate(results[names[0]]["power"]):
        rows = [results[name]["power"][index] for name in names]
        cells = [f"{r['z_median']:.1f} ({r['z_68'][0]:.1f}, {r['z_68'][1]:.1f})" for r in rows]
        head = f"| {first['signal']} | {100 * first['fraction']:g} % | {first['windows']} | "
        lines.append(head + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _null_table(results: dict[str, dict[str, Any]]) -> str:
    """Return Markdown: uniformity of p-values of background that calibrated nothing."""
    lines = [
        "p-values of disjoint windows of unused background, one fixed reference\n",
        "| representation | window | windows | toys | KS p, toys | KS p, chi-square "
        "| KS p, windows against toys | p <= 0.05 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        n = result["null"]
        lines.append(
            f"| {name} | {n['window']} | {n['windows']} | {n['toys']} | "
            f"{n['ks_p_toys']:.3f} | {n['ks_p_chi2']:.3f} | {n['ks_p_two_sample']:.3f} | "
            f"{n['share_below_0.05']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _save(
    options: argparse.Namespace, results: dict[str, dict[str, Any]], engines: dict[str, Any]
) -> None:
    from bench.stamp import range_text, save_record

    settings = {
        "calibration": range_text(options.calibration),
        "test": range_text(options.test),
        "signals": [range_text(source) for source in options.signals],
        "window": options.window,
        "n_ref": options.n_ref,
        "toys": options.toys,
        "fractions": options.fractions,
        "null_window": options.null_window,
        "null_toys": options.null_toys,
        "seed": options.seed,
    }
    save_record(
        options.json,
        "physics",
        settings,
        engines=engines,
        results=results,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)
