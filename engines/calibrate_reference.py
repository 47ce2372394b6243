"""Command: background events and an encoder to a calibrated reference."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.events import EventRange

__all__ = ["main"]

_DESCRIPTION = """\
Embeds background events, splits them into three disjoint samples (basis, reference, calibration
pool), runs toys and stores the null distribution of t. The events must be background that the
encoder was not trained on."""


def _parser() -> CommandParser:
    parser = CommandParser(
        "calibrate-reference",
        _DESCRIPTION,
        "calibrate-reference --engine d4.onnx --events bkg.h5@60000: --window 10000 -o d4.ref",
    )
    add = parser.add_argument
    add("--engine", type=Path, required=True, help="the encoder, .onnx or .plan")
    add(
        "--events",
        type=EventRange.parse,
        nargs="+",
        required=True,
        metavar="FILE[@START:STOP]",
        help="background events, HDF5",
    )
    add("--window", default="10000", help="events in a window, or a time span such as 60s")
    add("--rate", type=positive_float, metavar="HZ", help="expected rate, for a time span")
    add("--toys", type=positive_int, default=300, help="null windows to draw")
    add("--n-ref", type=positive_int, help="reference events (default: ten windows or half)")
    add("--n-basis", type=positive_int, help="basis events (default: 5 a centre, at least 5000)")
    add("--centres", type=positive_int, help="Nystrom centres (default: sqrt of all events)")
    add("--sigma", type=positive_float, help="kernel width (default: the quantile below)")
    add("--sigma-quantile", type=float, default=0.9, help="quantile of pairwise distances")
    add("--lam", type=positive_float, default=1e-6, help="ridge parameter")
    add("--seed", type=int, default=0, help="of the split, the centres and the toys")
    add("--threads", type=positive_int, default=2, help="CPU threads")
    add("-o", "--output", type=Path, metavar="FILE.ref", help="default: beside the engine")
    return parser


def _run(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable
    from engines.calibration import CalibrationConfig, calibrate
    from engines.engine import open_engine
    from engines.nplm import use_threads
    from engines.reference_file import save_reference
    from engines.windows import WindowSpec

    use_threads(options.threads)
    config = CalibrationConfig(
        window=WindowSpec.parse(options.window, options.rate),
        n_toys=options.toys,
        n_ref=options.n_ref,
        n_basis=options.n_basis,
        n_centres=options.centres,
        sigma=options.sigma,
        sigma_quantile=options.sigma_quantile,
        lam=options.lam,
        seed=options.seed,
    )
    with open_engine(options.engine, threads=options.threads) as engine:
        output = options.output or options.engine.with_suffix(".ref")
        check_writable(output)
        artifact = calibrate(engine, options.events, config)
    save_reference(output, artifact)
    facts, null = artifact.facts, artifact.null
    sys.stdout.write(
        f"reference    {facts.n_ref} events, basis {facts.n_basis}, pool {facts.n_pool}\n"
        f"kernel       sigma {artifact.reference.basis.sigma:.3f}, "
        f"{facts.options['n_centres']} centres, rank {facts.options['rank']}\n"
        f"null         t = {null.mean:.1f} +- {null.std:.1f}; chi-square with "
        f"{null.chi2_dof:.1f} degrees of freedom, KS p = {null.chi2_ks_p:.3f} (fitted to the "
        "same toys)\n"
        f"calibrated   on {facts.calibration}\n"
        f"resolution   p >= {null.resolution:.2g} from the toys alone\n"
        f"written      {output} ({output.stat().st_size / 1e6:.1f} MB)\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
