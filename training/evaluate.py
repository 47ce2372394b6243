"""Linear evaluation: how well a linear classifier tells the classes apart in the embedding."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["MAX_EVENTS", "LinearEvaluation", "draw_subset", "embed_events", "evaluate_linear"]

#: More events than this change an accuracy by less than its error, and take minutes on a CPU.
MAX_EVENTS = 100_000
_CHUNK = 8192
_PENALTY = 1e-4


@dataclass(frozen=True)
class LinearEvaluation:
    """What a logistic regression reaches on held-out events.

    Attributes:
        accuracy: fraction of held-out events whose class it names.
        error: binomial standard error of the accuracy.
        majority: fraction of held-out events in the largest class: what no embedding reaches.
        recall: fraction named rightly in each class, by class index; nan where none is held out.
    """

    accuracy: float
    error: float
    majority: float
    recall: tuple[float, ...]


def draw_subset(indices: IntArray, n_most: int = MAX_EVENTS) -> IntArray:
    """Return the indices, or as many of them as are enough, drawn at random but always the same."""
    if len(indices) <= n_most:
        return indices
    return np.sort(np.random.default_rng(0).choice(indices, n_most, replace=False))


@torch.no_grad()
def embed_events(
    encoder: nn.Module, particles: FloatArray, device: torch.device | None = None
) -> FloatArray:
    """Return the embeddings, (n, d) float32, of particles, (n, 19, 3), in evaluation mode.

    The encoder is on the device already; None is the CPU.
    """
    encoder.eval()
    chunks = torch.split(torch.from_numpy(particles), _CHUNK)
    parts = [encoder(chunk.to(device or "cpu")).cpu() for chunk in chunks]
    embeddings: FloatArray = torch.cat(parts).numpy()
    return embeddings


def evaluate_linear(
    train: FloatArray,
    train_targets: IntArray,
    held_out: FloatArray,
    targets: IntArray,
    n_classes: int | None = None,
) -> LinearEvaluation:
    """Fit a logistic regression on frozen embeddings and score it on held-out ones.

    Args:
        train: embeddings to learn from, (n, d).
        train_targets: their class indices, (n,).
        held_out: embeddings to score, (m, d).
        targets: their class indices, (m,).
        n_classes: classes there are; None counts them in `train_targets`.
    """
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = np.where(std > 0, std, 1)
    n_classes = n_classes or int(train_targets.max()) + 1
    weights = _fit_logistic((train - mean) / std, train_targets, n_classes)
    scores = ((held_out - mean) / std) @ weights[:-1] + weights[-1]
    right = scores.argmax(axis=1) == targets
    accuracy = float(right.mean())
    return LinearEvaluation(
        accuracy,
        math.sqrt(accuracy * (1 - accuracy) / len(targets)),
        float(np.bincount(targets).max() / len(targets)),
        tuple(_share(right[targets == index]) for index in range(n_classes)),
    )


def _share(right: IntArray) -> float:
    return float(right.mean()) if len(right) else math.nan


def _fit_logistic(features: FloatArray, targets: IntArray, n_classes: int) -> Float64Array:
    """Return weights, (d + 1, classes), the last row the offsets, of least cross entropy."""
    x = torch.from_numpy(features.astype(np.float64))
    y = torch.from_numpy(targets)
    weights = torch.zeros(x.shape[1] + 1, n_classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(x @ weights[:-1] + weights[-1], y)
        loss = loss + _PENALTY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    fitted: Float64Array = weights.detach().numpy()
    return fitted
