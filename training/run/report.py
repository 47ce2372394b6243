"""What `train-encoder` says at the end."""

import logging
import math
from collections.abc import Sequence

from engines.artifact import SampleFacts
from training.data import EventSet
from training.evaluate import MAX_EVENTS, LinearEvaluation
from training.fit_config import FitResult
from training.run.plan import Plan
from training.splits import Split

__all__ = ["describe_evaluation", "describe_events", "describe_fit", "warn_of_little"]

_LOG = logging.getLogger(__name__)
_FEW_EVENTS = 1000


def warn_of_little(events: EventSet, split: Split, result: FitResult, plan: Plan) -> None:
    """Say what makes an encoder poor: rare classes, and weights kept from before it had learned."""
    if plan.objective is not None and plan.objective.needs_labels:
        for label, n_train in events.counts(split.train).items():
            if n_train < _FEW_EVENTS:
                _LOG.warning(
                    "class %s has only %d events to train on; add a file with more of it",
                    label,
                    n_train,
                )
    if result.best_epoch <= min(plan.fit.schedule.warm_up, 0.1 * plan.fit.schedule.epochs):
        _LOG.warning(
            "the held-out loss was best at epoch %d, before the learning rate reached its peak: "
            "the encoder learned little that lasts; add events, above all of rare classes",
            result.best_epoch,
        )


def describe_events(
    events: EventSet,
    split: Split,
    evaluation: LinearEvaluation | None,
    reserved: Sequence[SampleFacts],
) -> str:
    """Return how many events there were of each class, and what was reserved."""
    lines = [f"events: {len(split.train)} to train on, {len(split.validation)} held out"]
    held_out = events.counts(split.validation)
    for index, (label, n_train) in enumerate(events.counts(split.train).items()):
        line = f"  class {label}: {n_train} to train on, {held_out[label]} held out"
        if evaluation is not None:
            recall = evaluation.recall[index]
            line += "" if math.isnan(recall) else f", {recall:.1%} of these named rightly"
        lines.append(line)
    lines += [
        f"reserved: events {sample.start} to {sample.stop} of {sample.name}, never read by "
        "training; calibrate-reference takes them from the whole file"
        for sample in reserved
    ]
    return "\n".join(lines) + "\n"


def describe_fit(result: FitResult | None, plan: Plan) -> str:
    """Return the losses, and where the run folder is."""
    if result is None:
        return f"--arch {plan.encoder.arch} trains nothing\n"
    return (
        f"loss: {result.loss:.4f} in training, {result.validation_loss:.4f} held out, "
        f"at epoch {result.best_epoch} of {plan.fit.schedule.epochs}, whose weights were kept\n"
        f"run folder: {plan.run_dir}\n"
    )


def describe_evaluation(events: EventSet, evaluation: LinearEvaluation | None, split: Split) -> str:
    """Return the accuracy, and on how many events where not on all."""
    if evaluation is None:
        missing = f"{events.unlabelled} has no labels" if events.unlabelled else "only one class"
        return f"linear evaluation: none, {missing}\n"
    drawn = ""
    if max(len(split.train), len(split.validation)) > MAX_EVENTS:
        drawn = f"; on at most {MAX_EVENTS} events of each side"
    return (
        f"linear-evaluation accuracy: {evaluation.accuracy:.4f} +- {evaluation.error:.4f} "
        f"(always naming the largest class: {evaluation.majority:.4f}{drawn})\n"
    )
