"""The schedule, the loop and the linear evaluation."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import ArtifactError, ParameterError, SampleSizeError, TrainingError
from engines.types import FloatArray, IntArray
from training.augment import parse_augmentations
from training.data import EventSet
from training.distributed import ALONE, Group
from training.encoders import EncoderConfig, Model, Outputs, build_model
from training.evaluate import draw_subset, embed_events, evaluate_linear
from training.fit import fit
from training.fit_config import Epoch, FitConfig, FitResult, Keeper
from training.networks.preprocess import measure_scaling
from training.objective import LossConfig, parse_objective
from training.run.checkpoint import load_checkpoint, save_checkpoint
from training.schedule import Schedule
from training.splits import Split, split_events
from training.views import BatchLoss, Part, Precision


def two_classes(n: int = 400) -> EventSet:
    """One jet, and one jet of thrice the pT."""
    rng = np.random.default_rng(0)
    particles = np.zeros((n, 19, 3), dtype=np.float32)
    targets = np.arange(n) % 2
    particles[:, 0, 0] = rng.uniform(5, 50, n)
    particles[:, 9, 0] = rng.normal(40, 5, n) * (1 + 2 * targets)
    particles[:, 9, 2] = rng.uniform(-3, 3, n)
    return EventSet(particles, targets, (4, 5), None)


def configured(
    loss: str = "supcon",
    *,
    sampling: str = "cocktail",
    epochs: int = 8,
    lr: float = 1e-2,
    temperature: float = 0.1,
    augment: str = "masking:0.5",
) -> FitConfig:
    return FitConfig(
        loss=loss,
        losses=LossConfig(temperature, view_temperature=0.5),
        sampling=sampling,
        augment=augment,
        schedule=Schedule(peak=lr, warm_up=epochs / 10, epochs=epochs),
        batch_size=50,
    )


def train(
    config: FitConfig, events: EventSet, arch: str = "mlp", keeper: Keeper | None = None
) -> tuple[Model, FitResult, Split]:
    split = split_events(events, 0.25, seed=0)
    scaling = measure_scaling(events.particles[split.train])
    n_classes = 2 if parse_objective(config.loss).has("ce") else 0
    model = build_model(EncoderConfig(arch, dim=2), scaling, n_classes, config.seed)
    return model, fit(model, events, split, config, keeper=keeper), split


def test_learning_rate_warms_up_then_follows_a_cosine() -> None:
    schedule = Schedule("cosine", peak=0.1, warm_up=10, epochs=100)
    rates = [schedule.rate(step, 10) for step in range(1000)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[49] == pytest.approx(0.05)
    assert rates[99] == max(rates) == pytest.approx(0.1)
    assert rates[550] == pytest.approx(0.05)
    assert rates[325] == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))
    assert 0 < rates[-1] < 1e-6
    assert Schedule(peak=0.1, warm_up=1, epochs=1).rate(0, 1) == 0.1


def test_learning_rate_ends_at_its_share_of_the_peak() -> None:
    schedule = Schedule("cosine", peak=0.8, end=1e-3, warm_up=0, epochs=1)
    assert schedule.rate(99_999, 100_000) == pytest.approx(0.8e-3, rel=1e-3)


def test_plateau_is_flat_then_decays_by_epoch_then_follows_a_cosine() -> None:
    schedule = Schedule("plateau", peak=1e-4, end=0.1, warm_up=0, epochs=30)
    rates = [schedule.rate(step, 7) for step in range(210)]
    assert rates[:35] == [1e-4] * 35
    for epoch in range(5, 20):
        assert rates[7 * epoch : 7 * epoch + 7] == pytest.approx([1e-4 * 0.95 ** (epoch - 4)] * 7)
    lowest = 1e-4 * 0.95**15
    assert rates[140] == pytest.approx(lowest)
    assert rates[175] == pytest.approx((lowest + 1e-5) / 2)
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


def test_constant_rate_stays_at_the_peak() -> None:
    schedule = Schedule("constant", peak=0.2, warm_up=1, epochs=3)
    assert [schedule.rate(step, 2) for step in range(6)] == [0.1, 0.2, 0.2, 0.2, 0.2, 0.2]


@pytest.mark.parametrize(
    "loss", ["supcon", "simclr", "vicreg", "supvicreg+ce", "supcon+0.5*simclr"]
)
def test_fit_lowers_the_loss_and_repeats_with_the_seed(loss: str) -> None:
    events = two_classes()
    config = configured(loss, epochs=4, temperature=0.5)
    first, result, split = train(config, events)
    again, same, _ = train(config, events)
    _, short, _ = train(configured(loss, epochs=1, lr=1e-4, temperature=0.5), events)
    assert result == same
    assert result.validation_loss < short.validation_loss
    held_out = events.particles[split.validation]
    one, other = (embed_events(model.encoder, held_out) for model in (first, again))
    assert np.array_equal(one, other)


def test_vae_learns_to_reconstruct() -> None:
    events = two_classes()
    _, result, _ = train(configured("vae", epochs=6), events, "vae")
    losses = [epoch.validation_loss for epoch in result.history]
    assert min(losses) < 0.8 * losses[0]


def test_supervised_embedding_separates_the_classes() -> None:
    events = two_classes()
    model, _, split = train(configured(sampling="balanced"), events)
    assert events.targets is not None
    parts = [(events.particles[i], events.targets[i]) for i in (split.train, split.validation)]
    (a, a_targets), (b, b_targets) = parts
    encoder = model.encoder
    score = evaluate_linear(
        embed_events(encoder, a), a_targets, embed_events(encoder, b), b_targets
    )
    assert score.accuracy > 0.97
    assert score.majority == 0.5


def test_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.1, 0.9, 0.1])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(_self: object, model: Model, _seed: int) -> float:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr("training.fit.Part.mean_loss", validate)
    model, result, _ = train(configured(epochs=4), two_classes())
    assert (result.best_epoch, result.validation_loss) == (2, 0.1)
    kept = model.state_dict()
    same = [all(torch.equal(kept[name], state[name]) for name in kept) for state in seen]
    assert same == [False, True, False, False]


class StoppedError(Exception):
    """What ends a training in the middle."""


class FileKeeper:
    """Keeps the state in a file, as the command does, and stops after some epochs."""

    def __init__(self, path: Path, stop_after: int | None = None) -> None:
        self.path, self.stop_after = path, stop_after

    def load(self) -> dict[str, Any] | None:
        return load_checkpoint(self.path)

    def save(self, state: dict[str, Any], history: tuple[Epoch, ...]) -> None:
        save_checkpoint(self.path, state)
        if len(history) == self.stop_after:
            raise StoppedError


@pytest.mark.parametrize(
    ("loss", "arch"),
    [("supcon+simclr+ce", "mlp"), ("vae", "vae"), ("simclr", "transformer")],
)
def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(
    loss: str, arch: str, tmp_path: Path
) -> None:
    events, config = two_classes(), configured(loss, epochs=3)
    whole, result, _ = train(config, events, arch)
    place = tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        train(config, events, arch, FileKeeper(place, stop_after=2))
    continued, same, _ = train(config, events, arch, FileKeeper(place))
    assert same == result
    assert [epoch.loss for epoch in same.history] == [epoch.loss for epoch in result.history]
    state = continued.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    _, finished, _ = train(config, events, arch, FileKeeper(place))
    assert finished == result


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint.pt"
    assert load_checkpoint(place) is None
    save_checkpoint(place, {"epoch": 3, "tensor": torch.ones(2)})
    assert load_checkpoint(place) is not None
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt is damaged; train anew with --fresh$"):
        load_checkpoint(place)
    with pytest.raises(
        ArtifactError, match=r"cannot be read \(Is a directory\); make it readable$"
    ):
        load_checkpoint(tmp_path)
    with pytest.raises(ArtifactError, match=r"cannot write .*\(No such file or directory\); make"):
        save_checkpoint(tmp_path / "missing" / "checkpoint.pt", {})


@pytest.mark.parametrize(
    ("cause", "said"),
    [(None, "the disk may be full"), (OSError(28, "No space left on device"), "No space left on")],
)
def test_a_full_disk_is_said_without_the_words_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: OSError | None, said: str
) -> None:
    def fail(*_: object) -> None:
        error = RuntimeError(
            "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"
        )
        error.__context__ = cause
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ArtifactError, match=rf"checkpoint\.pt \({said}") as caught:
        save_checkpoint(tmp_path / "checkpoint.pt", {})
    assert "enforce" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_has_no_part_in_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch, "save", fail)
    said = r"checkpoint\.pt \(CUDA error: an illegal memory access\); mend that and start again"
    with pytest.raises(ArtifactError, match=said):
        save_checkpoint(tmp_path / "checkpoint.pt", {})


def test_a_loss_that_is_not_finite_stops_training() -> None:
    with pytest.raises(TrainingError, match=r"at step 1 of .* lower --lr") as caught:
        train(configured(temperature=1e-44), two_classes())
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("loss", "other"),
    [("supcon", "simclr"), ("ce", "simclr"), ("supvicreg", "vicreg"), ("simclr+0.1*ce", "simclr")],
)
def test_supervised_losses_need_labels_of_two_classes(loss: str, other: str) -> None:
    events = two_classes()
    unlabelled = EventSet(events.particles, None, (), "bkg.h5")
    with pytest.raises(ParameterError, match=rf"bkg\.h5 has no .* use --loss {other}, which"):
        train(configured(loss), unlabelled)
    single = EventSet(events.particles, np.zeros(400, dtype=np.int64), (4,), None)
    with pytest.raises(SampleSizeError, match=f"only class 4; .* --loss {other}"):
        train(configured(loss), single)


def test_balanced_sampling_needs_labels() -> None:
    unlabelled = EventSet(two_classes().particles, None, (), "bkg.h5")
    with pytest.raises(ParameterError, match="--sampling balanced"):
        train(configured("simclr", sampling="balanced"), unlabelled)


def seen_views(events: EventSet, objective: str, augment: str) -> list[torch.Tensor]:
    """What a model is shown of the first hundred events."""
    how = BatchLoss(
        parse_objective(objective), LossConfig(), parse_augmentations(augment), "cocktail",
        mirror=False, rotate=False, precision=Precision(),
    )  # fmt: skip
    part = Part(events, np.arange(100), how, 100, ALONE)
    seen: list[torch.Tensor] = []

    def model(particles: torch.Tensor, _noise: torch.Tensor | None) -> Outputs:
        seen.extend(torch.split(particles, 100))
        projection = particles.flatten(1)[:, 27:30]
        return Outputs(projection, projection, None, None, None)

    part.loss(model, torch.arange(100), torch.Generator().manual_seed(0))
    return seen


@pytest.mark.parametrize("n_again", [1, 3])
def test_resimulated_views_are_two_different_realisations_of_each_event(n_again: int) -> None:
    events = two_classes()
    again = np.repeat(events.particles[:, None], n_again, axis=1)
    again[:, :, 9, 1] = np.arange(1, n_again + 1)  # eta says which realisation it is
    simulated = EventSet(events.particles, events.targets, events.classes, None, again)
    first, second = seen_views(simulated, "simclr", "resimulation")
    stored = torch.from_numpy(np.concatenate((events.particles[:, None], again), axis=1))[:100]
    chosen = [view[:, 9, 1].long() for view in (first, second)]
    assert (chosen[0] != chosen[1]).all()
    for view, index in zip((first, second), chosen, strict=True):
        assert torch.equal(view, stored[torch.arange(100), index])
        assert len(torch.unique(index)) == 1 + n_again
    pairs = {(int(one), int(other)) for one, other in zip(*chosen, strict=True)}
    assert len(pairs) == (1 + n_again) * n_again


class NoiseKept(torch.nn.Module):
    """A VAE's outputs, and the noise it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[torch.Tensor | None] = []

    def forward(self, particles: torch.Tensor, noise: torch.Tensor | None) -> Outputs:
        self.noise.append(noise)
        embedding = torch.zeros(len(particles), 6)
        return Outputs(embedding, embedding, None, particles, particles)


def test_a_vae_samples_in_training_and_held_out_and_processes_share_the_noise() -> None:
    how = BatchLoss(
        parse_objective("vae"), LossConfig(), parse_augmentations("none"), "cocktail",
        mirror=False, rotate=False, precision=Precision(),
    )  # fmt: skip
    events, batch = two_classes(), torch.arange(20)

    class Share(Group):
        def gather(self, part: torch.Tensor) -> torch.Tensor:
            return part.repeat(self.size, *[1] * (part.ndim - 1))

    drawn = []
    for group in (ALONE, Share(0, 2), Share(1, 2)):
        model = NoiseKept()
        part = Part(events, np.arange(100), how, 20, group)
        part.loss(model, batch, torch.Generator().manual_seed(0))
        (noise,) = model.noise
        assert noise is not None
        drawn.append(noise)
    assert drawn[0].shape == (20, 3)
    assert torch.equal(drawn[0], torch.cat(drawn[1:]))
    model = NoiseKept()
    part = Part(events, np.arange(100), how, 20, ALONE)
    for _ in range(2):
        part.mean_loss(model, 3)  # type: ignore[arg-type]
    assert len(model.noise) == 10
    for one, again in zip(model.noise[:5], model.noise[5:], strict=True):
        assert one is not None
        assert again is not None
        assert torch.equal(one, again)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": {}},
        {"best_model": {"a": torch.ones(2)}},
        {"optimiser": 3},
        {"generator": "seed"},
        {"history": [{"epoch": "one"}]},
        {"history": None},
        {"best": {"loss": 0.1}},
    ],
)
def test_a_checkpoint_of_something_else_is_one_sentence(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    events, config, place = two_classes(), configured(epochs=2), tmp_path / "checkpoint.pt"
    with pytest.raises(StoppedError):
        train(config, events, "mlp", FileKeeper(place, stop_after=1))
    whole = load_checkpoint(place)
    assert whole is not None
    save_checkpoint(place, {**whole, **wrong})
    with pytest.raises(ArtifactError, match=r"must hold this training; .* --fresh"):
        train(config, events, "mlp", FileKeeper(place))


def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint.pt"
    for content in (b"", b"PK\x03\x04", b"nothing of ours", b"\x80\x02K\x03."):
        place.write_bytes(content)
        with pytest.raises(ArtifactError, match="train anew with --fresh"):
            load_checkpoint(place)
    torch.save([1, 2], place)
    with pytest.raises(ArtifactError, match="it holds a list"):
        load_checkpoint(place)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "barlow"},
        {"sampling": "half"},
        {"augment": "blur"},
        {"batch_size": 1},
        {"losses": LossConfig(temperature=0.0)},
        {"losses": LossConfig(view_temperature=math.nan)},
        {"weight_decay": -1.0},
        {"seed": -1},
    ],
)
def test_config_refuses_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="must be"):
        FitConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"name": "steps"}, {"peak": math.nan}, {"end": 2.0}, {"warm_up": 21.0}, {"epochs": 0}],
)
def test_schedule_refuses_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="must be"):
        Schedule(**wrong)  # type: ignore[arg-type]


def test_a_subset_is_drawn_only_from_many() -> None:
    few = np.arange(10)
    assert np.array_equal(draw_subset(few, 10), few)
    drawn = draw_subset(np.arange(1000), 100)
    assert len(np.unique(drawn)) == 100
    assert np.array_equal(drawn, draw_subset(np.arange(1000), 100))


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


def test_a_class_of_which_none_is_held_out_has_no_recall() -> None:
    train_x, train_y = blobs(500, 0)
    x, y = blobs(500, 1)
    score = evaluate_linear(train_x, train_y, x[y < 2], y[y < 2], n_classes=4)
    assert [math.isnan(recall) for recall in score.recall] == [False, False, True, True]
