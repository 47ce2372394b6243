"""Loading, splitting, scaling and sampling of training events."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from engines.artifact import SampleFacts
from engines.errors import (
    ArtifactError,
    EventError,
    MismatchError,
    ParameterError,
    SampleSizeError,
)
from engines.event_files import write_events
from engines.events import EventRange
from engines.types import FloatArray
from engines.unseen import refuse_repeated_events
from training.data import BatchSampler, EventSet, load_events
from training.splits import fold_splits, reserve_events, split_events


def make_events(n: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    particles = np.zeros((n, 19, 3), dtype=np.float32)
    particles[:, [0, 1, 9, 10], 0] = rng.uniform(15, 100, (n, 4))
    particles[:, [1, 9, 10], 1] = rng.normal(0, 1.5, (n, 3))
    particles[:, [0, 1, 9, 10], 2] = rng.uniform(-np.pi, np.pi, (n, 4))
    return particles


def event_set(*sizes: int) -> EventSet:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return EventSet(make_events(sum(sizes)), targets, tuple(range(len(sizes))), None)


def test_files_join_and_labels_become_indices(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(5), np.array([7, 2, 7, 2, 2]))
    write_events(tmp_path / "b.h5", make_events(4, 1), np.array([9, 9, 2, 7]))
    sources = [EventRange(tmp_path / "a.h5", 1, 4), EventRange(tmp_path / "b.h5")]
    events = load_events(sources)
    assert events.targets is not None
    assert events.classes == (2, 7, 9)
    assert events.targets.tolist() == [0, 1, 0, 2, 2, 0, 1]
    assert np.array_equal(events.particles[:3], make_events(5)[1:4])
    assert events.counts(np.arange(7)) == {2: 3, 7: 2, 9: 2}


def test_one_file_without_labels_leaves_none_and_is_named(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(5), np.zeros(5, dtype=int))
    write_events(tmp_path / "b.h5", make_events(5))
    events = load_events([EventRange(tmp_path / "a.h5"), EventRange(tmp_path / "b.h5")])
    assert events.targets is None
    assert events.unlabelled == str(tmp_path / "b.h5")


def test_a_label_missing_for_some_events_is_an_error(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(5))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["process"] = np.zeros(3, dtype=np.int16)
    with pytest.raises(EventError, match="for each of 5 events"):
        load_events([EventRange(tmp_path / "a.h5")])


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(5))
    with pytest.raises(SampleSizeError, match="got none"):
        load_events([EventRange(tmp_path / "a.h5", 5)])
    with pytest.raises(ArtifactError, match="does not exist"):
        load_events([EventRange(tmp_path / "missing.h5")])


def test_split_is_disjoint_complete_and_in_every_class() -> None:
    events = event_set(100, 20)
    split = split_events(events, 0.25, seed=3)
    both = np.concatenate((split.train, split.validation))
    assert np.array_equal(np.sort(both), np.arange(120))
    assert events.counts(split.validation) == {0: 25, 1: 5}


def test_split_follows_the_seed() -> None:
    events = event_set(100, 20)
    first, again, other = (split_events(events, 0.25, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.validation, other.validation)


def test_split_without_labels_holds_out_a_fraction() -> None:
    events = EventSet(make_events(50), None, (), "a.h5")
    assert len(split_events(events, 0.2, seed=0).validation) == 10


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_split_refuses_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ParameterError, match="between 0 and 1"):
        split_events(event_set(20, 20), fraction, seed=0)


def test_split_refuses_a_class_too_small() -> None:
    with pytest.raises(SampleSizeError, match="class 1 must hold at least 10 events"):
        split_events(event_set(20, 9), 0.2, seed=0)
    with pytest.raises(SampleSizeError, match="class 0"):
        split_events(event_set(20, 20), 0.01, seed=0)


def test_folds_hold_out_each_event_once_and_every_class_evenly() -> None:
    events = event_set(100, 23)
    splits = fold_splits(events, 5, seed=0)
    held_out = np.concatenate([split.validation for split in splits])
    assert np.array_equal(np.sort(held_out), np.arange(123))
    for split in splits:
        both = np.concatenate((split.train, split.validation))
        assert np.array_equal(np.sort(both), np.arange(123))
        counts = events.counts(split.validation)
        assert counts[0] == 20
        assert counts[1] in (4, 5)


def test_folds_refuse_a_class_too_small() -> None:
    with pytest.raises(SampleSizeError, match=r"class 1 must hold at least 14 .* got 13; add"):
        fold_splits(event_set(100, 13), 7, seed=0)
    with pytest.raises(ParameterError, match="folds must be at least 2; got 1"):
        fold_splits(event_set(100, 30), 1, seed=0)


def test_the_last_part_of_a_whole_file_is_reserved_and_ranges_are_used_as_they_are(
    tmp_path: Path,
) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 100)
    write_events(tmp_path / "a.h5", make_events(100), labels)
    write_events(tmp_path / "plain.h5", make_events(10))
    sources = [
        EventRange(tmp_path / "a.h5"),
        EventRange(tmp_path / "a.h5", 0, 50),
        EventRange(tmp_path / "plain.h5"),
    ]
    used, reserved = reserve_events(sources, 0.2)
    assert used == [
        EventRange(tmp_path / "a.h5", 0, 80),
        EventRange(tmp_path / "a.h5", 0, 50),
        EventRange(tmp_path / "plain.h5", 0, 8),
    ]
    assert reserved == [
        EventRange(tmp_path / "a.h5", 80, 100),
        EventRange(tmp_path / "plain.h5", 8, 10),
    ]
    assert reserve_events(sources, 0.0) == (sources, [])
    with pytest.raises(ParameterError, match="reserve must be from 0 to below 1; got 1"):
        reserve_events(sources, 1.0)


def test_a_file_sorted_by_process_has_no_fair_part_to_reserve(tmp_path: Path) -> None:
    write_events(tmp_path / "sorted.h5", make_events(200), np.repeat([0, 1], [150, 50]))
    with pytest.raises(ParameterError, match=r"sorted\.h5 must be shuffled .* --reserve 0"):
        reserve_events([EventRange(tmp_path / "sorted.h5")], 0.2)


def test_processes_can_be_left_out(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(6), np.array([0, 1, 2, 0, 1, 2]))
    write_events(tmp_path / "plain.h5", make_events(6))
    source = EventRange(tmp_path / "a.h5")
    events = load_events([source], without=(1,))
    assert events.classes == (0, 2)
    assert np.array_equal(events.particles, make_events(6)[[0, 2, 3, 5]])
    with pytest.raises(ParameterError, match=r"got 7; the files hold \[0, 1, 2\]"):
        load_events([source], without=(7,))
    with pytest.raises(SampleSizeError, match="got none; leave out fewer"):
        load_events([source], without=(0, 1, 2))
    with pytest.raises(ParameterError, match=r"plain\.h5 has no 'process'"):
        load_events([source, EventRange(tmp_path / "plain.h5")], without=(1,))


def with_realisations(path: Path, again: FloatArray) -> EventRange:
    write_events(path, make_events(6), np.array([0, 1, 0, 1, 0, 1]))
    with h5py.File(path, "a") as file:
        file["Realisations"] = again
    return EventRange(path)


def test_realisations_travel_with_their_events(tmp_path: Path) -> None:
    again = np.stack([make_events(6, seed) for seed in (1, 2, 3)], axis=1)
    whole = with_realisations(tmp_path / "a.h5", again)
    assert load_events([whole]).realisations is None
    part = EventRange(whole.path, 2, 5)
    events = load_events([part], realisations=True, without=(1,))
    assert events.realisations is not None
    assert np.array_equal(events.realisations, again[[2, 4]])


def test_realisations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    again = np.stack([make_events(6, seed) for seed in (1, 2)], axis=1)
    two = with_realisations(tmp_path / "two.h5", again)
    one = with_realisations(tmp_path / "one.h5", again[:, :1])
    short = with_realisations(tmp_path / "short.h5", again[:4])
    flat = with_realisations(tmp_path / "flat.h5", again[:, 0])
    write_events(tmp_path / "none.h5", make_events(6))
    spoilt = again.copy()
    spoilt[4, 1] = np.nan
    with pytest.raises(EventError, match=r"event 4 of 'Realisations' in .*nan\.h5 is not"):
        load_events([with_realisations(tmp_path / "nan.h5", spoilt)], realisations=True)
    with pytest.raises(ParameterError, match=r"got \[1, 2\]"):
        load_events([two, one], realisations=True)
    with pytest.raises(EventError, match="2 events early"):
        load_events([short], realisations=True)
    with pytest.raises(EventError, match=r"shape \(n, K, 19, 3\)"):
        load_events([flat], realisations=True)
    with pytest.raises(ParameterError, match="simulate-events --resimulate K"):
        load_events([EventRange(tmp_path / "none.h5")], realisations=True)


def test_balanced_batches_hold_every_class_equally() -> None:
    targets = torch.tensor([0] * 8000 + [1] * 1500 + [2] * 500)
    sampler = BatchSampler("balanced", 500, targets, 10_000)
    drawn = torch.cat(list(sampler.batches(torch.Generator().manual_seed(0))))
    share = torch.bincount(targets[drawn]) / len(drawn)
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=5 * np.sqrt(2 / 9 / 10_000))
    assert len(torch.unique(drawn[targets[drawn] == 2])) == 500


def test_cocktail_batches_visit_each_event_at_most_once() -> None:
    sampler = BatchSampler("cocktail", 30, None, 100)
    batches = list(sampler.batches(torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [30, 30, 30]
    assert len(sampler) == 3
    assert len(torch.unique(torch.cat(batches))) == 90


def test_sampler_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ParameterError, match="one of balanced, cocktail"):
        BatchSampler("half", 10, None, 100)
    with pytest.raises(ParameterError, match="must have labels"):
        BatchSampler("balanced", 10, None, 100)
    with pytest.raises(SampleSizeError, match="lower --batch-size"):
        BatchSampler("cocktail", 101, None, 100)


def test_rare_class_is_repeated_ten_times_at_most() -> None:
    targets = torch.tensor([0] * 9000 + [1] * 980 + [2] * 20)
    sampler = BatchSampler("balanced", 500, targets, 10_000)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([b for _ in range(5) for b in sampler.batches(generator)])
    share = (torch.bincount(targets[drawn]) / len(drawn)).tolist()
    assert share == pytest.approx([0.49, 0.49, 0.02], abs=5 * np.sqrt(0.25 / 50_000))


def test_a_small_class_goes_to_training_where_no_labels_are_needed() -> None:
    events = event_set(100, 4, 20)
    with pytest.raises(SampleSizeError, match=r"class 1 must .* or use --without-process"):
        split_events(events, 0.25, seed=0)
    split = split_events(events, 0.25, seed=0, needs_labels=False)
    assert events.counts(split.validation) == {0: 25, 1: 0, 2: 5}
    assert events.counts(split.train) == {0: 75, 1: 4, 2: 15}
    whole, same = (split_events(event_set(100, 20), 0.25, 0, needs_labels=n) for n in (True, False))
    assert np.array_equal(whole.validation, same.validation)
    with pytest.raises(SampleSizeError, match=r"class 1 must .* --without-process, or lower"):
        fold_splits(events, 5, seed=0)
    for split in fold_splits(events, 5, seed=0, needs_labels=False):
        assert events.counts(split.validation) == {0: 20, 1: 0, 2: 4}
        assert events.counts(split.train)[1] == 4
    with pytest.raises(SampleSizeError, match="at least 10 events of a class"):
        split_events(event_set(4, 4), 0.25, seed=0, needs_labels=False)
    with pytest.raises(SampleSizeError, match="at least 10 events for 5 folds"):
        fold_splits(event_set(4, 4), 5, seed=0, needs_labels=False)


def test_events_given_twice_are_refused(tmp_path: Path) -> None:
    write_events(tmp_path / "a.h5", make_events(50))
    write_events(tmp_path / "copy.h5", make_events(50))
    write_events(tmp_path / "b.h5", make_events(50, 1))

    def given(*words: str) -> list[SampleFacts]:
        return [SampleFacts.of(EventRange.parse(f"{tmp_path}/{word}")) for word in words]

    refuse_repeated_events(given("a.h5@0:20", "b.h5", "a.h5@20:50"))
    for words in (("a.h5", "a.h5"), ("a.h5@0:20", "b.h5", "a.h5@15:30"), ("a.h5", "copy.h5@9:")):
        with pytest.raises(MismatchError, match=r"events 0 to .* share \d+; give disjoint"):
            refuse_repeated_events(given(*words))


def test_content_names_all_that_was_read() -> None:
    events = event_set(20, 20)
    assert events.targets is not None
    again = np.repeat(events.particles[:, None], 2, axis=1)
    particles = events.particles.copy()
    particles[30, 9, 0] += 1
    others = [
        EventSet(particles, events.targets, (0, 1), None),
        EventSet(events.particles, events.targets[::-1], (0, 1), None),
        EventSet(events.particles, events.targets, (0, 2), None),
        EventSet(events.particles, None, (), "a.h5"),
        EventSet(events.particles, events.targets, (0, 1), None, again),
        EventSet(events.particles, events.targets, (0, 1), None, again + 1),
    ]
    contents = {events.content, *(other.content for other in others)}
    assert len(contents) == 7
    assert event_set(20, 20).content == events.content
