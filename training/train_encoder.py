"""Command: events to an encoder, exported as ONNX."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from engines.command import CommandParser, positive_float, positive_int, run_command

if TYPE_CHECKING:
    from engines.artifact import EngineFacts
    from engines.events import EventRange
    from training.data import EventSet, Split
    from training.encoders import Encoder
    from training.evaluate import LinearEvaluation
    from training.fit import FitConfig, FitResult

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_FEW_EVENTS = 1000
_DESCRIPTION = """\
Train an encoder: 19 objects x (pT, eta, phi) in, a few numbers an event out.

Contrastive learning pulls alike events together and pushes the others apart. With --loss supcon,
alike means of the same process, so every file must hold labels; with --loss simclr it means two
views of one event with objects masked at random, and no labels are needed. The output is an ONNX
file with the preprocessing inside, checked against torch on held-out events. Calibrate its
reference on events that training did not see: give part of a file as FILE@START:STOP."""

_EXAMPLE = "train-encoder --events bkg.h5@0:45000 rare.h5 --dim 4 -o d4.onnx"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train-encoder`; see its `--help`."""
    return run_command(_parser(), _train, argv)


def _parser() -> CommandParser:
    parser = CommandParser("train-encoder", _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add(
        "--events",
        nargs="+",
        required=True,
        metavar="FILE[@START:STOP]",
        help="HDF5 event files or ranges of them, labelled in 'process' or 'background_ID'",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE.onnx", help="encoder to write")
    add("--arch", default="mlp", choices=("mlp", "transformer"), help="the network")
    add("--loss", default="supcon", choices=("supcon", "simclr"), help="with or without labels")
    add("--dim", type=positive_int, default=4, help="numbers an event becomes")
    add("--epochs", type=positive_int, default=20, help="passes over the events")
    add("--batch-size", type=positive_int, default=512, help="events of one step")
    add("--lr", type=positive_float, help="peak learning rate (default: 0.01 mlp, 0.001 otherwise)")
    add("--temperature", type=positive_float, help="(default: 0.1 supcon, 0.5 simclr)")
    add(
        "--mask-probability",
        type=float,
        default=0.5,
        help="chance of each object to be masked in a view of --loss simclr",
    )
    add(
        "--sampling",
        choices=("balanced", "cocktail"),
        help="classes equally often, or as in the files (default: balanced with supcon)",
    )
    add("--validation-fraction", type=float, default=0.2, help="part of the events held out")
    add("--seed", type=int, default=0, help="of split, weights, batches and masks")
    add(
        "--threads",
        type=positive_int,
        help="CPU threads (default: 1 mlp, whose steps are too small to share; all otherwise)",
    )
    return parser


def _train(options: argparse.Namespace) -> None:
    import torch

    from engines.events import EventRange
    from training.data import load_events, measure_scaling, split_events
    from training.encoders import build_encoder
    from training.export import check_output_path, export_encoder
    from training.fit import check_labels, fit

    started = time.monotonic()
    check_output_path(options.output)
    threads = options.threads or (1 if options.arch == "mlp" else os.cpu_count() or 1)
    torch.set_num_threads(threads)
    config = _config(options)
    sources = [EventRange.parse(text) for text in options.events]
    events = load_events(sources)
    check_labels(events, config)
    split = split_events(events, options.validation_fraction, options.seed)
    scaling = measure_scaling(events.particles[split.train])
    encoder, head = build_encoder(options.arch, options.dim, scaling, options.seed)
    result = fit(encoder, head, events, split, config)
    _warn(events, split, result, config)
    evaluation = _evaluate(encoder, events, split)
    facts = _facts(options, config, sources, result, evaluation)
    held_out = events.particles[split.validation]
    exported = export_encoder(encoder, options.output, held_out, facts)
    sys.stdout.write(
        f"{_describe_events(events, split, evaluation)}"
        f"loss: {result.loss:.4f} in training, {result.validation_loss:.4f} held out, "
        f"at epoch {result.best_epoch} of {config.epochs}, whose weights were kept\n"
        f"{_describe_evaluation(events, evaluation)}"
        f"parity: ONNX Runtime differs from torch by at most {exported.parity:.1e}\n"
        f"wrote {exported.path} in {time.monotonic() - started:.0f} s\n"
        f"fingerprint {exported.fingerprint}\n"
    )


def _config(options: argparse.Namespace) -> "FitConfig":
    from training.fit import FitConfig

    return FitConfig(
        loss=options.loss,
        sampling=options.sampling or ("balanced" if options.loss == "supcon" else "cocktail"),
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr or (1e-2 if options.arch == "mlp" else 1e-3),
        temperature=options.temperature or (0.1 if options.loss == "supcon" else 0.5),
        mask_probability=options.mask_probability,
        seed=options.seed,
    )


def _warn(events: "EventSet", split: "Split", result: "FitResult", config: "FitConfig") -> None:
    """Say what makes an encoder poor: rare classes, and weights kept from before it had learned."""
    if config.loss == "supcon":
        for label, n_train in events.counts(split.train).items():
            if n_train < _FEW_EVENTS:
                _LOG.warning(
                    "class %s has only %d events to train on; add a file with more of it",
                    label,
                    n_train,
                )
    if result.best_epoch <= 0.1 * config.epochs:
        _LOG.warning(
            "the held-out loss was best at epoch %d, before the learning rate reached its peak: "
            "the encoder learned little that lasts; add events, above all of rare classes",
            result.best_epoch,
        )


def _evaluate(encoder: "Encoder", events: "EventSet", split: "Split") -> "LinearEvaluation | None":
    from training.evaluate import embed_events, evaluate_linear

    if events.targets is None or len(events.classes) < 2:
        return None
    return evaluate_linear(
        embed_events(encoder, events.particles[split.train]),
        events.targets[split.train],
        embed_events(encoder, events.particles[split.validation]),
        events.targets[split.validation],
    )


def _facts(
    options: argparse.Namespace,
    config: "FitConfig",
    sources: "list[EventRange]",
    result: "FitResult",
    evaluation: "LinearEvaluation | None",
) -> "EngineFacts":
    import torch

    from engines.artifact import EngineFacts, SampleFacts, utc_now, versions

    metrics = {"loss": result.loss, "validation_loss": result.validation_loss}
    if evaluation is not None:
        metrics["linear_accuracy"] = evaluation.accuracy
        metrics["linear_accuracy_error"] = evaluation.error
        metrics["majority_rate"] = evaluation.majority
    return EngineFacts(
        arch=options.arch,
        loss=options.loss,
        dim=options.dim,
        trained_on=tuple(SampleFacts.of(source) for source in sources),
        options={
            **asdict(config),
            "validation_fraction": options.validation_fraction,
            "threads": torch.get_num_threads(),
            "best_epoch": result.best_epoch,
        },
        metrics=metrics,
        versions=versions("torch", "onnx", "onnxruntime", "onnxscript"),
        created=utc_now(),
    )


def _describe_events(
    events: "EventSet", split: "Split", evaluation: "LinearEvaluation | None"
) -> str:
    lines = [f"events: {len(split.train)} to train on, {len(split.validation)} held out"]
    held_out = events.counts(split.validation)
    for index, (label, n_train) in enumerate(events.counts(split.train).items()):
        line = f"  class {label}: {n_train} to train on, {held_out[label]} held out"
        if evaluation is not None:
            line += f", {evaluation.recall[index]:.1%} of these named rightly"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _describe_evaluation(events: "EventSet", evaluation: "LinearEvaluation | None") -> str:
    if evaluation is None:
        missing = f"{events.unlabelled} has no labels" if events.unlabelled else "only one class"
        return f"linear evaluation: none, {missing}\n"
    return (
        f"linear-evaluation accuracy: {evaluation.accuracy:.4f} +- {evaluation.error:.4f} "
        f"(always naming the largest class: {evaluation.majority:.4f})\n"
    )


if __name__ == "__main__":
    sys.exit(main())
