"""The schedule, the loop and the linear evaluation."""

import math

import numpy as np
import pytest
import torch

from engines.errors import ParameterError, SampleSizeError, TrainingError
from engines.types import FloatArray, IntArray
from training.data import EventSet, Split, measure_scaling, split_events
from training.encoders import Encoder, build_encoder
from training.evaluate import embed_events, evaluate_linear
from training.fit import FitConfig, FitResult, fit, learning_rate


def two_classes(n: int = 400) -> EventSet:
    """One jet, and one jet of thrice the pT."""
    rng = np.random.default_rng(0)
    particles = np.zeros((n, 19, 3), dtype=np.float32)
    targets = np.arange(n) % 2
    particles[:, 0, 0] = rng.uniform(5, 50, n)
    particles[:, 9, 0] = rng.normal(40, 5, n) * (1 + 2 * targets)
    particles[:, 9, 2] = rng.uniform(-3, 3, n)
    return EventSet(particles, targets, (4, 5), None)


def train(config: FitConfig, events: EventSet) -> tuple[Encoder, FitResult, Split]:
    split = split_events(events, 0.25, seed=0)
    scaling = measure_scaling(events.particles[split.train])
    encoder, head = build_encoder("mlp", 2, scaling, config.seed)
    return encoder, fit(encoder, head, events, split, config), split


def test_learning_rate_warms_up_then_follows_a_cosine() -> None:
    rates = [learning_rate(step, 1000, 0.1, warm_up=0.1) for step in range(1000)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[49] == pytest.approx(0.05)
    assert rates[99] == max(rates) == pytest.approx(0.1)
    assert rates[550] == pytest.approx(0.05)
    assert rates[325] == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))
    assert 0 < rates[-1] < 1e-6
    assert learning_rate(0, 1, 0.1) == 0.1


@pytest.mark.parametrize("loss", ["supcon", "simclr"])
def test_fit_lowers_the_loss_and_repeats_with_the_seed(loss: str) -> None:
    config = FitConfig(loss=loss, sampling="cocktail", epochs=8, batch_size=50, temperature=0.5)
    events = two_classes()
    first, result, split = train(config, events)
    again, same, _ = train(config, events)
    _, short, _ = train(FitConfig(loss, "cocktail", 1, 50, 1e-4, 0.5), events)
    assert result == same
    assert result.validation_loss < short.validation_loss
    held_out = events.particles[split.validation]
    assert np.array_equal(embed_events(first, held_out), embed_events(again, held_out))


def test_supervised_embedding_separates_the_classes() -> None:
    events = two_classes()
    encoder, _, split = train(FitConfig(epochs=8, batch_size=50), events)
    assert events.targets is not None
    parts = [(events.particles[i], events.targets[i]) for i in (split.train, split.validation)]
    (a, a_targets), (b, b_targets) = parts
    score = evaluate_linear(
        embed_events(encoder, a), a_targets, embed_events(encoder, b), b_targets
    )
    assert score.accuracy > 0.97
    assert score.majority == 0.5


def test_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.1, 0.9, 0.1])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(_self: object, model: torch.nn.Sequential) -> float:
        seen.append({name: value.clone() for name, value in model[0].state_dict().items()})
        return next(losses)

    monkeypatch.setattr("training.fit._Part.mean_loss", validate)
    encoder, result, _ = train(FitConfig(epochs=4, batch_size=50), two_classes())
    assert (result.best_epoch, result.validation_loss) == (2, 0.1)
    kept = encoder.state_dict()
    same = [all(torch.equal(kept[name], state[name]) for name in kept) for state in seen]
    assert same == [False, True, False, False]


def test_a_loss_that_is_not_finite_stops_training() -> None:
    with pytest.raises(TrainingError, match="lower --lr") as caught:
        train(FitConfig(epochs=2, batch_size=50, temperature=1e-44), two_classes())
    assert caught.value.exit_code == 1


def test_supcon_needs_labels_of_two_classes() -> None:
    events = two_classes()
    unlabelled = EventSet(events.particles, None, (), "bkg.h5")
    with pytest.raises(ParameterError, match=r"bkg\.h5 has no .* use --loss simclr"):
        train(FitConfig(batch_size=50), unlabelled)
    with pytest.raises(ParameterError, match="--sampling balanced"):
        train(FitConfig(loss="simclr", batch_size=50), unlabelled)
    single = EventSet(events.particles, np.zeros(400, dtype=np.int64), (4,), None)
    with pytest.raises(SampleSizeError, match="only class 4"):
        train(FitConfig(batch_size=50), single)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "vicreg"},
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": math.nan},
        {"temperature": 0.0},
        {"mask_probability": 1.0},
        {"seed": -1},
    ],
)
def test_config_refuses_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="must be"):
        FitConfig(**wrong)  # type: ignore[arg-type]


def blobs(n: int, seed: int) -> tuple[FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    return (centres[targets] + rng.normal(size=(n, 2))).astype(np.float32), targets


def test_linear_evaluation_reaches_the_optimum_of_gaussian_blobs() -> None:
    train_x, train_y = blobs(4000, 0)
    x, y = blobs(4000, 1)
    score = evaluate_linear(train_x, train_y, x, y)
    log_odds = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]) @ x.T
    best = log_odds - np.array([[0], [4.5], [4.5]]) + np.log([[0.5], [0.3], [0.2]])
    optimum = (best.argmax(axis=0) == y).mean()
    assert score.accuracy == pytest.approx(optimum, abs=0.005)
    assert score.error == pytest.approx(math.sqrt(optimum * (1 - optimum) / 4000), rel=0.1)
    assert score.majority == pytest.approx(0.5, abs=0.03)
    assert len(score.recall) == 3


def test_linear_evaluation_of_a_constant_embedding_is_the_majority_rate() -> None:
    _, y = blobs(1000, 0)
    constant = np.ones((1000, 2), dtype=np.float32)
    score = evaluate_linear(constant, y, constant, y)
    assert score.accuracy == score.majority
    assert torch.tensor(score.recall).tolist() == [1.0, 0.0, 0.0]
