"""Command: events to an encoder, exported as ONNX."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, positive_float, positive_int, run_command
from training.run.recipes import describe_recipes

if TYPE_CHECKING:
    from training.run.plan import Plan

__all__ = ["main", "read_plan"]


_DESCRIPTION = """\
Train an encoder: 19 objects x (pT, eta, phi) in, a few numbers an event out.

Contrastive learning pulls alike events together and pushes the others apart. With --loss supcon,
alike means of the same process, so every file must hold labels; with --loss simclr it means two
augmented views of one event, and no labels are needed. Losses can be added: supcon+0.5*simclr. The
output is an ONNX file with the preprocessing inside, checked against torch on held-out events.

Of every file given whole, the last part (--reserve) is kept from training, for the NPLM test:
calibrate-reference takes exactly that part of the same file. A range FILE@START:STOP is used as it
is. Signal files among the events make the encoder signal-aware.

Beside d4.onnx stands the run folder d4.run: options, metrics, pictures, and a checkpoint from which
a training that was killed continues when it is started again. Several GPUs or machines:
torchrun --nproc-per-node 4 -m training.train_encoder ... (--batch-size is that of all together)."""

_EXAMPLE = "train-encoder --events bkg.h5@0:45000 rare.h5 --dim 4 -o d4.onnx"
_BY_RECIPE = "default: by recipe"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train-encoder`; see its `--help`."""
    return run_command(_parser(), _train, argv)


def read_plan(argv: Sequence[str]) -> "Plan":
    """Return the training that these arguments ask for; no event is read.

    Raises:
        ParameterError: with the sentence in which `train-encoder` would refuse them.
    """
    from training.run.plan import Plan

    return Plan.of(_parser().parse_or_raise(argv))


def _train(options: argparse.Namespace) -> None:
    from training.run.train import train

    train(options)


def _parser() -> CommandParser:
    description = f"{_DESCRIPTION}\n\n{describe_recipes()}"
    parser = CommandParser("train-encoder", description, _EXAMPLE)
    add = parser.add_argument
    add(
        "--events",
        nargs="+",
        required=True,
        metavar="FILE[@START:STOP]",
        help="HDF5 event files or ranges of them, labelled in 'process' or 'background_ID'",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE.onnx", help="encoder to write")
    add("--recipe", help="defaults of the options below, by name (default: by --arch)")
    _add_network(parser)
    _add_loss(parser)
    _add_steps(parser)
    _add_data(parser)
    _add_running(parser)
    return parser


def _add_network(parser: CommandParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add(
        "--arch",
        help="mlp, transformer, vicreg-transformer or vae; raw (the 57 inputs), leading-pt (six "
        "leading-object pT) and quantities (those of --keep) train nothing (default: mlp)",
    )
    add("--dim", type=positive_int, help="numbers an event becomes, up to 1024 (default: 4)")
    add("--inputs", help="log,rotate,presence, some of them, or plain")
    add("--keep", nargs="+", metavar="NAME", help="physics quantities beside the learned numbers")
    add("--heads", type=positive_int, help="attention heads (default: by architecture)")
    add(
        "--mask-absent",
        action=argparse.BooleanOptionalAction,
        help="leave absent objects out of attention: trains about three times and runs on the CPU "
        "two to four times faster, at some cost in Z",
    )
    add("--head", help="mlp, dino, expander or none: what stands between encoder and loss")


def _add_loss(parser: CommandParser) -> None:
    add = parser.add_argument_group("loss").add_argument
    add(
        "--loss",
        help="supcon, supvicreg and ce (with labels), simclr and vicreg (without), vae, or a sum "
        f"such as supcon+0.5*simclr ({_BY_RECIPE})",
    )
    add(
        "--temperature",
        type=positive_float,
        help=f"of supcon and simclr ({_BY_RECIPE}; 'tau by dimension' is that of the nearest of "
        "4, 6, 8, 16, 32 and 64)",
    )
    add(
        "--view-temperature",
        type=positive_float,
        help="of simclr alone, beside a supervised loss (default: --temperature, if given)",
    )
    add(
        "--vicreg-weights",
        nargs=3,
        type=positive_float,
        metavar=("INV", "VAR", "COV"),
        help="of invariance, variance and covariance",
    )
    add(
        "--augment",
        help="views of simclr and vicreg: masking, feature-masking, gaussian, gaussian-pt, "
        "rotation, crop, resimulation; several as masking:0.3,rotation",
    )
    add(
        "--mask-probability",
        type=float,
        help="p of the recipe's masking, where --augment is not given",
    )
    add(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="flip eta and phi of events at random, a symmetry of the collisions",
    )


def _add_steps(parser: CommandParser) -> None:
    add = parser.add_argument_group("optimiser").add_argument
    add("--epochs", type=positive_int, help=f"passes over the events ({_BY_RECIPE})")
    add("--batch-size", type=positive_int, help=f"events of one step ({_BY_RECIPE})")
    add("--optimiser", help="adamw, adam or lars")
    add("--lr", type=positive_float, help=f"peak learning rate ({_BY_RECIPE})")
    add("--schedule", help="cosine, plateau or constant, after the warm-up")
    add("--lr-end", type=float, help="last learning rate, as a share of the peak")
    add("--warm-up", type=float, metavar="EPOCHS", help=_BY_RECIPE)
    add("--weight-decay", type=float, help=_BY_RECIPE)


def _add_data(parser: CommandParser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--sampling", help="balanced or cocktail (default: balanced where the loss has labels)")
    add(
        "--without-process",
        nargs="+",
        type=int,
        metavar="LABEL",
        help="leave out the events of these processes",
    )
    add(
        "--reserve",
        type=float,
        default=0.2,
        help="last part of every file given whole that training never reads; 0 for none",
    )
    add("--validation-fraction", type=float, default=0.2, help="part of the events held out")
    add(
        "--folds",
        type=positive_int,
        metavar="K",
        help="train K encoders, each with another K-th held out, as NAME-fold1.onnx and so on; the "
        "epoch is chosen on the same fold, so that their mean accuracy is slightly optimistic",
    )
    add("--seed", type=int, default=0, help="of split, weights, batches and views")


def _add_running(parser: CommandParser) -> None:
    add = parser.add_argument_group("running").add_argument
    add("--run-dir", type=Path, metavar="DIR", help="run folder (default: OUTPUT with .run)")
    add("--fresh", action="store_true", help="discard the training that the run folder holds")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="where to train")
    add(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16"),
        help="of the network; losses stay in fp32; auto: bf16 for transformers on a GPU with "
        "it; on CPUs bf16 may be slower",
    )
    add("--compile", action="store_true", help="let torch compile the network first")
    add(
        "--threads",
        type=positive_int,
        help="CPU threads (default: 1 mlp, whose steps are too small to share; all otherwise)",
    )


if __name__ == "__main__":
    sys.exit(main())
