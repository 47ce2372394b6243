"""One training from its options to the encoder that is written, or one for each fold."""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from engines.artifact import SampleFacts
from engines.errors import ArtifactError
from engines.events import EventRange
from engines.unseen import refuse_repeated_events
from training.augment import parse_augmentations
from training.data import EventSet, load_events
from training.distributed import Group, open_group
from training.encoders import Model, build_model
from training.evaluate import LinearEvaluation, draw_subset, embed_events, evaluate_linear
from training.export import check_output_path, export_encoder
from training.fit import fit
from training.fit_config import FitResult, Running
from training.networks.preprocess import measure_scaling
from training.objective import check_labels
from training.run.facts import TrainingData, encoder_facts
from training.run.folder import RunFolder
from training.run.lock import hold_folder
from training.run.plan import Plan
from training.run.report import describe_evaluation, describe_events, describe_fit, warn_of_little
from training.splits import Split, fold_splits, reserve_events, split_events
from training.views import choose_precision

__all__ = ["train"]

_LOG = logging.getLogger(__name__)
_MOST_DRAWN = 20_000


def train(options: argparse.Namespace) -> None:
    """Train, evaluate and export what the options of `train-encoder` ask for."""
    check_output_path(options.output)
    plan = Plan.of(options)
    with open_group(options.device) as group:
        _set_threads(options.threads, plan, group)
        data = _load(plan)
        needs_labels, seed = plan.needs_labels, options.seed
        if options.folds is None:
            fraction = options.validation_fraction
            split = split_events(data.events, fraction, seed, needs_labels=needs_labels)
            _train_one(plan, data, split, group, fresh=options.fresh)
            return
        splits = fold_splits(data.events, options.folds, seed, needs_labels=needs_labels)
        accuracies = []
        for number, split in enumerate(splits, start=1):
            one = plan.for_fold(number, len(splits))
            _say(group, f"fold {number} of {len(splits)}\n")
            evaluation = _train_one(one, data, split, group, fresh=options.fresh)
            accuracies.append(math.nan if evaluation is None else evaluation.accuracy)
        _report_folds(plan, accuracies, group)


def _set_threads(threads: int | None, plan: Plan, group: Group) -> None:
    share = max(1, (os.cpu_count() or 1) // group.size)
    torch.set_num_threads(threads or (share if plan.attends else 1))


def _load(plan: Plan) -> TrainingData:
    objective, settings = plan.objective, plan.settings
    refuse_repeated_events(_facts_of(plan.sources))
    used, reserved = reserve_events(plan.sources, settings["reserve"])
    events = load_events(
        used,
        without=settings["without_process"] or (),
        realisations=parse_augmentations(plan.fit.augment).resimulates and objective is not None,
    )
    if objective is not None:
        check_labels(events, objective, plan.fit.sampling)
    return TrainingData(events, _facts_of(used), _facts_of(reserved))


def _facts_of(sources: Sequence[EventRange]) -> tuple[SampleFacts, ...]:
    return tuple(SampleFacts.of(source) for source in sources)


def _train_one(
    plan: Plan, data: TrainingData, split: Split, group: Group, *, fresh: bool
) -> LinearEvaluation | None:
    """Train or finish one encoder and export it; only the first process writes."""
    with hold_folder(plan.run_dir, writes=group.leads and plan.objective is not None):
        return _train_held(plan, data, split, group, fresh=fresh)


def _train_held(
    plan: Plan, data: TrainingData, split: Split, group: Group, *, fresh: bool
) -> LinearEvaluation | None:
    started = time.monotonic()
    events = data.events
    model = _build(plan, events, split)
    result = None
    if plan.objective is not None:
        result = _fit(plan, data, split, model, group, fresh=fresh)
    if not group.leads:
        return None
    if result is not None:
        warn_of_little(events, split, result, plan)
    drawn = draw_subset(split.validation)
    held_out, evaluation = _evaluate(model, events, split.train, drawn, group)
    facts = encoder_facts(plan, data, result, evaluation, group)
    # Sorted indices would show the first file alone.
    shown = np.random.default_rng(0).permutation(len(drawn))[:_MOST_DRAWN]
    exported = export_encoder(model.encoder, plan.output, events.particles[drawn[shown]], facts)
    if result is not None:
        _draw(plan, events, split, drawn[shown], held_out[shown], result)
    sys.stdout.write(
        f"{describe_events(events, split, evaluation, data.reserved)}"
        f"{describe_fit(result, plan)}"
        f"{describe_evaluation(events, evaluation, split)}"
        f"parity: ONNX Runtime differs from torch by at most {exported.parity:.1e}\n"
        f"wrote {exported.path} in {time.monotonic() - started:.0f} s\n"
        f"fingerprint {exported.fingerprint}\n"
    )
    sys.stdout.flush()
    return evaluation


def _build(plan: Plan, events: EventSet, split: Split) -> Model:
    classify = plan.objective is not None and plan.objective.has("ce")
    scaling = measure_scaling(events.particles[split.train])
    n_classes = len(events.classes) if classify else 0
    return build_model(plan.encoder, scaling, n_classes, plan.fit.seed)


def _fit(
    plan: Plan, data: TrainingData, split: Split, model: Model, group: Group, *, fresh: bool
) -> FitResult:
    settings = plan.settings
    precision = choose_precision(settings["precision"], group.device, attends=plan.attends)
    running = Running(group, precision, compiled=settings["compile"])
    if fresh and group.leads:
        RunFolder.clear(plan.run_dir)
    group.wait()
    folder = RunFolder(
        plan.run_dir,
        settings,
        data.trained_on,
        content=data.events.content,
        writes=group.leads,
    )
    done, epochs = folder.epochs_done(), plan.fit.schedule.epochs
    if done and group.leads:
        if done >= epochs:
            _LOG.info("%s holds this training, finished: exporting from it", plan.run_dir)
        else:
            _LOG.info("%s: continuing after epoch %d of %d", plan.run_dir, done, epochs)
    if group.leads and group.splits_norms(model):
        _LOG.warning(
            "on CPUs each of the %d processes averages its batch norms over its own part of the "
            "batch: the encoder is not exactly that of one process",
            group.size,
        )
    group.wait()
    try:
        return fit(model, data.events, split, plan.fit, running, folder)
    finally:
        folder.close()


def _evaluate(
    model: Model, events: EventSet, train: np.ndarray, held_out: np.ndarray, group: Group
) -> tuple[np.ndarray, LinearEvaluation | None]:
    """Return the held-out embeddings, and the linear evaluation if there are classes."""
    encoder = model.encoder.to(group.device)
    embeddings = embed_events(encoder, events.particles[held_out], group.device)
    evaluation = None
    if events.targets is not None and len(events.classes) > 1:
        drawn = draw_subset(train)
        evaluation = evaluate_linear(
            embed_events(encoder, events.particles[drawn], group.device),
            events.targets[drawn],
            embeddings,
            events.targets[held_out],
            len(events.classes),
        )
    encoder.to("cpu")
    return embeddings, evaluation


def _draw(
    plan: Plan,
    events: EventSet,
    split: Split,
    drawn: np.ndarray,
    embeddings: np.ndarray,
    result: FitResult,
) -> None:
    """Draw the losses and the held-out events at `drawn`; the encoder is whole without."""
    try:
        from training.run.pictures import draw_embedding, draw_losses

        draw_losses(result.history, plan.run_dir / "loss.png")
        targets = None if events.targets is None else events.targets[drawn]
        names = [f"process {label}" for label in events.classes]
        counts = list(events.counts(split.validation).values()) or [len(split.validation)]
        draw_embedding(embeddings, targets, names, plan.run_dir / "embedding.png", counts)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it must not cost the encoder
        _LOG.warning("a picture could not be drawn: %s", exc)


def _report_folds(plan: Plan, accuracies: list[float], group: Group) -> None:
    """Say and store the mean accuracy of the folds and its standard error."""
    if not group.leads or not all(map(math.isfinite, accuracies)):
        return
    error = float(np.std(accuracies, ddof=1)) / math.sqrt(len(accuracies))
    mean = float(np.mean(accuracies))
    found = {"accuracies": accuracies, "mean": mean, "standard_error": error}
    place = plan.run_dir / "folds.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found, indent=1) + "\n")
    except OSError as exc:
        msg = f"cannot write {place} ({exc.strerror or exc}); choose --run-dir"
        raise ArtifactError(msg) from exc
    _say(
        group,
        f"accuracy over {len(accuracies)} folds: {mean:.4f} +- {error:.4f}, slightly optimistic, "
        f"as each epoch was chosen on the same held-out fold; {place}\n",
    )


def _say(group: Group, text: str) -> None:
    if group.leads:
        sys.stdout.write(text)
        sys.stdout.flush()
