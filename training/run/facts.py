"""What an encoder's metadata say of its training."""

from collections.abc import Sequence

import torch

from engines.artifact import EngineFacts, SampleFacts, utc_now, versions
from engines.event_marks import mark_events
from engines.types import FloatArray
from training.distributed import Group
from training.evaluate import LinearEvaluation
from training.fit_config import FitResult
from training.run.plan import Plan

__all__ = ["encoder_facts"]

#: Options that metadata hold in other places, or that say where files were on this machine.
_ELSEWHERE = ("events", "output", "run_dir", "arch", "dim", "loss")


def encoder_facts(
    plan: Plan,
    trained_on: Sequence[SampleFacts],
    reserved: Sequence[SampleFacts],
    particles: FloatArray,
    result: FitResult | None,
    evaluation: LinearEvaluation | None,
    group: Group,
) -> EngineFacts:
    """Return the provenance of an encoder; without a result nothing was trained.

    Args:
        plan: the training.
        trained_on: ranges of files that it read.
        reserved: ranges that it left to the test.
        particles: the events that it read, (n, 19, 3).
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
        trained_on=() if result is None else tuple(trained_on),
        reserved=tuple(reserved),
        trained_marks="" if result is None else mark_events(particles),
        options={**options, "threads": torch.get_num_threads(), "processes": group.size},
        metrics=metrics,
        versions=versions("torch", "onnx", "onnxruntime", "onnxscript"),
        created=utc_now(),
    )
