"""What an encoder's metadata say of its training."""

from dataclasses import dataclass

import torch

from engines.artifact import EngineFacts, SampleFacts, utc_now, versions
from engines.event_marks import mark_events
from training.data import EventSet
from training.distributed import Group
from training.evaluate import LinearEvaluation
from training.fit_config import FitResult
from training.run.plan import Plan

__all__ = ["TrainingData", "encoder_facts"]

#: Options that metadata hold in other places, or that say where files were on this machine.
_ELSEWHERE = ("events", "output", "run_dir", "arch", "dim", "loss")


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        events: all that it learns from or holds out.
        trained_on: the ranges of files that they come from.
        reserved: the ranges that it left to the test.
    """

    events: EventSet
    trained_on: tuple[SampleFacts, ...]
    reserved: tuple[SampleFacts, ...]


def encoder_facts(
    plan: Plan,
    data: TrainingData,
    result: FitResult | None,
    evaluation: LinearEvaluation | None,
    group: Group,
) -> EngineFacts:
    """Return the provenance of an encoder; without a result nothing was trained.

    Args:
        plan: the training.
        data: what it read.
        result: how it ended.
        evaluation: of the held-out events.
        group: the processes that shared it.
    """
    metrics = {}
    options = {
        name: value
        for name, value in plan.settings.items()
        if name not in _ELSEWHERE and value is not None
    }
    if not data.reserved:  # ranges are taken as they are
        options["reserve"] = 0.0
    if result is not None:
        metrics = {"loss": result.loss, "validation_loss": result.validation_loss}
        options["best_epoch"] = result.best_epoch
    if evaluation is not None:
        metrics["linear_accuracy"] = evaluation.accuracy
        metrics["linear_accuracy_error"] = evaluation.error
        metrics["majority_rate"] = evaluation.majority
    return EngineFacts(
        arch=plan.encoder.arch,
        loss="none" if plan.objective is None else str(plan.objective),
        dim=plan.encoder.embedding_dim,
        trained_on=() if result is None else data.trained_on,
        reserved=data.reserved,
        trained_marks="" if result is None else mark_events(data.events.particles),
        options={**options, "threads": torch.get_num_threads(), "processes": group.size},
        metrics=metrics,
        versions=versions("torch", "onnx", "onnxruntime", "onnxscript"),
        created=utc_now(),
    )
