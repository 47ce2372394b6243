"""Command: background events and an encoder to a calibrated reference."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.events import EventRange

if TYPE_CHECKING:
    from engines.engine import Engine
    from engines.reference_file import ReferenceArtifact

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_DESCRIPTION = """\
Embeds background events, splits them into three disjoint samples (basis, reference, calibration
pool), runs toys and stores the null distribution of t. The events must be background that the
encoder was not trained on. Of a file that train-encoder was given whole it reserved the last part:
give that file whole again, and the reserved part is taken. A calibration that was killed continues
with the toys already done when it is run again; the same seed gives the same toys and the same t
wherever they are computed."""


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
    add("-o", "--output", type=Path, metavar="FILE.ref", help="default: beside the engine")
    _add_samples(parser)
    _add_test(parser)
    _add_running(parser)
    return parser


def _add_samples(parser: CommandParser) -> None:
    add = parser.add_argument_group("samples").add_argument
    add("--toys", type=positive_int, default=300, help="null windows to draw")
    add("--n-ref", type=positive_int, help="reference events (default: ten windows or half)")
    add("--n-basis", type=positive_int, help="basis events (default: 5 a centre, at least 5000)")
    add("--seed", type=int, default=0, help="of the split, the centres and the toys")


def _add_test(parser: CommandParser) -> None:
    add = parser.add_argument_group("test").add_argument
    add("--centres", type=positive_int, help="Nystrom centres (default: sqrt of all events)")
    add(
        "--sigma",
        type=positive_float,
        nargs="+",
        help="kernel width in standardised units, or several, combined by their smallest p "
        "(default: the quantiles below)",
    )
    add(
        "--sigma-quantile",
        type=float,
        nargs="+",
        metavar="Q",
        help="quantiles of the pairwise distances that give the widths (default: 0.9)",
    )
    add("--lam", type=positive_float, default=1e-6, help="ridge parameter")
    add(
        "--loss",
        choices=("cross-entropy", "likelihood"),
        default="cross-entropy",
        help="what a fit minimises",
    )
    add(
        "--scales",
        type=positive_int,
        nargs="+",
        metavar="K",
        help="also test each K consecutive windows as one, with the likelihood loss; needs a "
        "reference and a pool to match",
    )


def _add_running(parser: CommandParser) -> None:
    add = parser.add_argument_group("running").add_argument
    add(
        "--store",
        choices=("float32", "float16"),
        default="float32",
        help="how features are kept; float16 takes half the memory and, on a CPU, more time",
    )
    add("--threads", type=positive_int, default=2, help="CPU threads of this process")
    add(
        "--workers",
        type=positive_int,
        default=1,
        help="processes that run toys, of one thread each; 1 is this process",
    )
    add("--scheduler", metavar="tcp://HOST:PORT", help="run the toys on this Dask cluster")
    add("--device", default="cpu", help="cpu or cuda: where an .onnx encoder and the fits run")


def _run(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable
    from engines.calibration import Running, calibrate
    from engines.calibration_config import CalibrationConfig
    from engines.engine import open_engine
    from engines.nplm import check_device
    from engines.reference_file import save_reference
    from engines.reference_toys import discard_features
    from engines.toy_journal import journal_path
    from engines.toy_runs import open_runner
    from engines.windows import WindowSpec

    check_device(options.device)
    config = CalibrationConfig(
        window=WindowSpec.parse(options.window, options.rate),
        n_toys=options.toys,
        n_ref=options.n_ref,
        n_basis=options.n_basis,
        n_centres=options.centres,
        sigmas=tuple(options.sigma) if options.sigma else None,
        sigma_quantiles=tuple(options.sigma_quantile or (0.9,)),
        lam=options.lam,
        loss=options.loss,
        scales=tuple(options.scales or ()),
        store=options.store,
        seed=options.seed,
    )
    with open_engine(options.engine, device=options.device, threads=options.threads) as engine:
        output = options.output or options.engine.with_suffix(".ref")
        check_writable(output)
        running = Running(
            runner=open_runner(options.workers, options.scheduler),
            threads=options.threads,
            device=options.device,
            journal=journal_path(output),
            shared=output if options.workers > 1 and options.scheduler is None else None,
        )
        artifact = calibrate(engine, _untrained(engine, options.events), config, running)
    save_reference(output, artifact)
    running.discard_journals(artifact.facts.scales)
    discard_features(output)
    _report(artifact, output)


def _untrained(engine: "Engine", sources: Sequence[EventRange]) -> list[EventRange]:
    """Return the sources, files that hold a reserved part narrowed to it, and say so."""
    parts = [engine.facts.untrained_part(source) for source in sources]
    for source, part in zip(sources, parts, strict=True):
        if part != source:
            _LOG.info(
                "%s: events %d to %s are taken, the part that training reserved",
                source.path,
                part.start,
                part.stop,
            )
    return parts


def _report(artifact: "ReferenceArtifact", output: Path) -> None:
    facts, sigmas = artifact.facts, artifact.reference.basis.sigmas
    sys.stdout.write(
        f"reference    {facts.n_ref} events, basis {facts.n_basis}, pool {facts.n_pool}\n"
        f"kernel       sigma {', '.join(f'{sigma:.3f}' for sigma in sigmas)}; "
        f"{facts.options['n_centres']} centres, rank {artifact.reference.basis.rank}\n"
    )
    for scale, nulls in artifact.nulls.items():
        for sigma, null in zip(sigmas, nulls.nulls, strict=True):
            where = f" at sigma {sigma:.3f}" if len(sigmas) > 1 else ""
            where += f" of {scale} windows" if scale > 1 else ""
            sys.stdout.write(
                f"null         t = {null.mean:.1f} +- {null.std:.1f}{where}; chi-square with "
                f"{null.chi2_dof:.1f} degrees of freedom, KS p = {null.chi2_ks_p:.3f}; gamma, "
                f"KS p = {null.gamma_ks_p:.3f}\n"
            )
        sys.stdout.write(
            f"calibrated   on {facts.calibration(scale)}\n"
            f"resolution   p >= {nulls.resolution:.2g} from the toys alone\n"
        )
    sys.stdout.write(f"written      {output} ({output.stat().st_size / 1e6:.1f} MB)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
