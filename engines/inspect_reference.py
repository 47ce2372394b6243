"""Command: what a `.ref` file holds, in words and in a picture."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, run_command

if TYPE_CHECKING:
    from engines.nplm.null import NullDistribution
    from engines.reference_file import ReferenceArtifact, ReferenceFacts

__all__ = ["describe", "main"]

_DESCRIPTION = """\
Prints what a calibrated reference was made from and how well its toys follow the fitted laws, and
draws the null distribution of t."""


def _parser() -> CommandParser:
    parser = CommandParser("inspect-reference", _DESCRIPTION, "inspect-reference d4.ref")
    add = parser.add_argument
    add("reference", type=Path, metavar="FILE.ref", help="made by calibrate-reference")
    add("-o", "--output", type=Path, metavar="FILE.png", help="default: FILE.null.png beside it")
    return parser


def _run(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable
    from engines.null_plot import check_picture, draw_null
    from engines.reference_file import load_reference

    path = options.reference
    output = options.output or path.parent / f"{path.stem}.null.png"
    check_picture(output)
    artifact = load_reference(path)
    check_writable(output)
    size_mb = path.stat().st_size / 1e6
    sys.stdout.write(f"reference    {path} ({size_mb:.1f} MB)\n{describe(artifact)}")
    sys.stdout.flush()
    sigmas = artifact.reference.basis.sigmas
    draw_null(artifact.nulls, sigmas, str(artifact.facts.window), output)
    sys.stdout.write(f"picture      {output}\n")


def describe(artifact: "ReferenceArtifact") -> str:
    """Return the facts of a reference, one `label  text` a line.

    Args:
        artifact: what `load_reference` returned.
    """
    lines = [
        ("fingerprint", artifact.fingerprint),
        *_origin(artifact.facts),
        *_kernel(artifact),
        *_toys(artifact),
        *_nulls(artifact),
    ]
    return "".join(f"{label:<13}{text}\n" for label, text in lines)


def _origin(facts: "ReferenceFacts") -> Iterator[tuple[str, str]]:
    yield "created", facts.created
    yield "versions", ", ".join(f"{name} {text}" for name, text in facts.versions.items())
    yield "engine", facts.engine_fingerprint
    yield "precision", facts.precision
    yield "window", str(facts.window)
    yield "loss", facts.loss
    sizes = f"basis {facts.n_basis}, reference {facts.n_ref}, pool {facts.n_pool} events"
    yield "samples", f"{sizes}; shuffled from"
    for sample in facts.samples:
        yield "", f"{sample.name} events {sample.start} to {sample.stop}"


def _kernel(artifact: "ReferenceArtifact") -> Iterator[tuple[str, str]]:
    basis, options = artifact.reference.basis, artifact.facts.options
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in basis.sigmas)
    yield "kernel", f"sigma {sigmas}; {len(basis.centres)} centres, rank {basis.rank}"
    numbers = [f"{name} {options[name]:g}" for name in ("lam", "jitter", "cut") if name in options]
    yield "", ", ".join(numbers)


def _toys(artifact: "ReferenceArtifact") -> Iterator[tuple[str, str]]:
    """Say for each time scale how the toys were drawn and what the finite pool leaves open."""
    from engines.nplm.null import z_score
    from engines.nplm.toys import WARN_OFFSET_SHARE, events_for_pool

    facts, n_ref = artifact.facts, artifact.facts.n_ref
    for scale, nulls in artifact.nulls.items():
        n_events = scale * facts.window.n_expected
        reuse = nulls.n_toys * n_events / facts.n_pool
        drawn = "disjoint" if reuse <= 1 else f"each event used about {reuse:.1f} times"
        window = str(facts.window) if scale == 1 else f"{scale} windows of {facts.window}, merged"
        yield "toys", f"{nulls.n_toys} of {window}; {drawn}"
        p_value = nulls.resolution
        yield "resolution", f"p >= {p_value:.2g}, Z <= {z_score(p_value):.2f} from the toys alone"
        share, wanted = (
            facts.offset_shares[scale],
            events_for_pool(n_events, n_ref, WARN_OFFSET_SHARE),
        )
        needs = f"{100 * WARN_OFFSET_SHARE:.0f} % needs a pool of {wanted} events"
        yield "offset", f"{100 * share:.0f} % of the null's spread, from the finite pool; {needs}"


def _nulls(artifact: "ReferenceArtifact") -> Iterator[tuple[str, str]]:
    """Yield a table: one row for each time scale and kernel width."""
    yield "null", f"{'':>16}{'t of the toys':>18}{'chi-square':>18}{'gamma':>26}"
    heads = f"{'mean':>9}{'spread':>9}{'dof':>10}{'KS p':>8}{'shape':>10}{'scale':>8}{'KS p':>8}"
    yield "", f"{'windows':>7}{'sigma':>9}{heads}"
    for scale, nulls in artifact.nulls.items():
        for sigma, null in zip(artifact.reference.basis.sigmas, nulls.nulls, strict=True):
            yield "", f"{scale:>7}{sigma:>9.4g}{_row(null)}"
    yield "", "KS p: how well the toys follow the law, the fit allowed for; 0.001 is the least"


def _row(null: "NullDistribution") -> str:
    return (
        f"{null.mean:>9.2f}{null.std:>9.2f}{null.chi2_dof:>10.2f}{null.chi2_ks_p:>8.3f}"
        f"{null.gamma_shape:>10.2f}{null.gamma_scale:>8.3f}{null.gamma_ks_p:>8.3f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
