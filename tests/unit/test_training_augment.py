"""Augmentations: their distributions, what they leave alone, and their names."""

import math

import numpy as np
import pytest
import torch

from engines.errors import ParameterError
from tests.support_training import make_events
from training.augment import AUGMENTATIONS, mirror_events, parse_augmentations, rotate_to_met
from training.transforms import (
    crop_events,
    mask_features,
    mask_objects,
    resample_kinematics,
    resample_pt,
    rotate_events,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def five_sigma(share: float, n: int) -> float:
    return 5 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_view_is_an_event_and_follows_its_generator(name: str) -> None:
    particles = torch.from_numpy(make_events(500))
    before = particles.clone()
    augment = parse_augmentations(name)
    first, again, other = (augment(particles, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(particles, before)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "resimulation")
    assert first.shape == particles.shape
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert (first[:, :, 0] >= 0).all()
    assert (first[:, :, 2].abs() <= math.pi).all()
    absent = first[:, :, 0] == 0
    assert (first[absent] == 0).all()
    assert absent[particles[:, :, 0] == 0].all()
    assert (first[:, 0, 1] == 0).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_views_are_where_the_events_are_whatever_the_generator(name: str) -> None:
    events = torch.from_numpy(make_events()).to("meta")
    assert parse_augmentations(name)(events, generator()).device.type == "meta"
    assert mirror_events(events, generator()).device.type == "meta"
    assert rotate_to_met(events).device.type == "meta"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_event_without_objects_stays_one(name: str) -> None:
    view = parse_augmentations(name)(torch.zeros(9, 19, 3), generator())
    assert torch.equal(view, torch.zeros(9, 19, 3))


def test_masking_hides_whole_objects_at_the_rate_asked_for() -> None:
    particles = torch.from_numpy(make_events(4000))
    masked = mask_objects(particles, 0.3, generator())
    present = particles[:, :, 0] > 0
    hidden = present & (masked == 0).all(dim=2)
    n_present = int(present.sum())
    assert int(hidden.sum()) / n_present == pytest.approx(0.3, abs=five_sigma(0.3, n_present))
    assert torch.equal(masked[present & ~hidden], particles[present & ~hidden])
    assert torch.equal(mask_objects(particles, 0.0, generator()), particles)


def test_feature_masking_hides_numbers_and_objects_without_pt() -> None:
    particles = torch.from_numpy(make_events(4000))
    masked = mask_features(particles, 0.3, generator())
    present = particles[:, 1:, 0] > 0
    objects, views = particles[:, 1:][present], masked[:, 1:][present]
    kept = views[:, 0] > 0
    tolerance = five_sigma(0.3, int(kept.sum()))
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=tolerance)
    assert torch.equal(views[kept, 0], objects[kept, 0])
    for number in (1, 2):
        zero = views[kept, number] == 0
        assert float(zero.float().mean()) == pytest.approx(0.3, abs=tolerance)
        assert torch.equal(views[kept, number][~zero], objects[kept, number][~zero])
    both = ((views[kept, 1] == 0) & (views[kept, 2] == 0)).float().mean()
    assert float(both) == pytest.approx(0.09, abs=tolerance)


def test_gaussian_resampling_has_the_relative_width_asked_for() -> None:
    particles = torch.from_numpy(make_events(4000))
    particles[:, :, 2] /= 2  # so that no angle wraps
    view = resample_kinematics(particles, 0.1, generator())
    for number in range(3):
        values, drawn = particles[:, 1:, number], view[:, 1:, number]
        ratio = (drawn / values)[values != 0].double()
        assert float(ratio.mean()) == pytest.approx(1, abs=5 * 0.1 / math.sqrt(len(ratio)))
        assert float(ratio.std()) == pytest.approx(0.1, rel=5 / math.sqrt(2 * len(ratio)))
    only_pt = resample_pt(particles, 0.2, generator())
    present = particles[:, :, 0] > 0
    ratio = (only_pt[:, :, 0] / particles[:, :, 0])[present].double()
    assert float(ratio.std()) == pytest.approx(0.2, rel=5 / math.sqrt(2 * len(ratio)))
    assert torch.equal(only_pt[:, :, 1:], particles[:, :, 1:])


def test_the_width_of_an_angle_does_not_depend_on_where_an_event_points() -> None:
    particles = torch.from_numpy(make_events(2000))
    turned = particles.clone()
    turned[:, :, 2] = torch.remainder(turned[:, :, 2] + 2.5 + math.pi, 2 * math.pi) - math.pi
    turned[:, :, 2] *= particles[:, :, 0] > 0
    views = [
        resample_kinematics(rotate_to_met(events), 0.1, generator())[:, :, 2]
        for events in (particles, turned)
    ]
    assert torch.allclose(views[0].cos(), views[1].cos(), atol=1e-4)
    assert float(rotate_to_met(particles)[:, :, 2].abs().max()) <= math.pi + 1e-6


def test_wide_resampling_keeps_every_object() -> None:
    particles = torch.from_numpy(make_events(2000))
    for resample in (resample_kinematics, resample_pt):
        view = resample(particles, 1.5, generator())
        assert torch.equal(view[:, :, 0] > 0, particles[:, :, 0] > 0)
        assert (view[:, :, 2].abs() <= math.pi).all()


def test_rotation_turns_whole_events_by_a_uniform_angle() -> None:
    particles = torch.from_numpy(make_events(4000))
    view = rotate_events(particles, generator())
    assert torch.equal(view[:, :, :2], particles[:, :, :2])
    turn = torch.exp(1j * (view[:, :, 2] - particles[:, :, 2]).to(torch.complex64))
    present = particles[:, :, 0] > 0
    of_met = turn[:, :1].expand(-1, 19)
    assert torch.allclose(turn[present], of_met[present], atol=1e-5)
    angle = turn[:, 0].angle().double()
    assert float(angle.mean()) == pytest.approx(0, abs=5 * math.pi / math.sqrt(3 * 4000))
    quarters = torch.histc(angle, 4, -math.pi, math.pi) / 4000
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=five_sigma(0.25, 4000))
    assert torch.allclose(
        rotate_to_met(view).cos()[present], rotate_to_met(particles).cos()[present], atol=1e-4
    )


def test_crop_keeps_the_met_and_a_disc() -> None:
    particles = torch.from_numpy(make_events(4000))
    view = crop_events(particles, 1.0, generator())
    assert torch.equal(view[:, 0], particles[:, 0])
    kept, present = view[:, :, 0] > 0, particles[:, :, 0] > 0
    assert torch.equal(view[kept], particles[kept])
    d_eta = view[:, 1:, None, 1] - view[:, None, 1:, 1]
    d_phi = view[:, 1:, None, 2] - view[:, None, 1:, 2]
    distance = torch.hypot(d_eta, torch.atan2(d_phi.sin(), d_phi.cos()))
    both = kept[:, 1:, None] & kept[:, None, 1:]
    assert float(distance[both].max()) <= 2.0 + 1e-5
    assert float(distance[both].max()) > 1.5
    assert 0 < int(kept[:, 1:].sum()) < int(present[:, 1:].sum())
    assert torch.equal(crop_events(particles, 30.0, generator()), particles)


def test_crop_is_uniform_in_phi_and_the_cosine_of_theta() -> None:
    particles = torch.zeros(8000, 19, 3)
    particles[:, :, 0] = 1
    particles[:4000, 9, 2] = math.pi - 0.1
    particles[4000:, 9, 1] = 1.5
    kept = crop_events(particles, 0.5, generator())[:, 9, 0] > 0
    rng = np.random.default_rng(0)
    eta, phi = np.arctanh(rng.uniform(-1, 1, 400_000)), rng.uniform(-np.pi, np.pi, 400_000)
    for part, (at_eta, at_phi) in ((kept[:4000], (0, 0)), (kept[4000:], (1.5, 0))):
        expected = float((np.hypot(eta - at_eta, phi - at_phi) <= 0.5).mean())
        share = float(part.float().mean())
        assert share == pytest.approx(expected, abs=five_sigma(expected, 4000) + 1e-3)


def test_mirrors_keep_pt_and_flip_whole_events() -> None:
    particles = torch.from_numpy(make_events(4000))
    mirrored = mirror_events(particles, generator())
    assert torch.equal(mirrored.abs(), particles.abs())
    assert torch.equal(mirrored[:, :, 0], particles[:, :, 0])
    flipped = (mirrored[:, 0, 2] * particles[:, 0, 2]) < 0
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=five_sigma(0.5, 4000))
    assert torch.equal(mirrored[flipped][:, :, 2], -particles[flipped][:, :, 2])


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("masking", "masking:0.5"),
        ("masking:0.3,rotation", "masking:0.3,rotation"),
        ("feature-masking, gaussian", "feature-masking:0.5,gaussian:0.1"),
        ("gaussian-pt:1.5,crop,resimulation", "gaussian-pt:1.5,crop:2.5,resimulation"),
        ("none", "none"),
    ],
)
def test_names_are_read_and_written(text: str, full: str) -> None:
    augment = parse_augmentations(text)
    assert str(augment) == full
    assert parse_augmentations(full) == augment
    assert augment.resimulates == ("resimulation" in text)


def test_steps_follow_each_other() -> None:
    particles, draws = torch.from_numpy(make_events()), generator(3)
    expected = rotate_events(mask_objects(particles, 0.4, draws), draws)
    view = parse_augmentations("masking:0.4,rotation")(particles, generator(3))
    assert torch.equal(view, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "augmentations must be none or some of masking"),
        ("masking,none", "got 'none'"),
        ("blur", "got 'blur'"),
        ("rotation,masking,rotation", "each augmentation must be given once"),
        ("masking:1", "masking must have a number above 0 and below 1; got 'masking:1'; try"),
        ("feature-masking:0", "must have a number above 0 and below 1"),
        ("gaussian:-0.1", "must have a number above 0; got"),
        ("crop:inf", "must have a number above 0; got"),
        ("crop:wide", "must have a number above 0; got 'crop:wide'; try crop:2.5"),
        ("rotation:3", "rotation must have no number; got 'rotation:3'; write rotation"),
    ],
)
def test_wrong_names_and_numbers_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        parse_augmentations(text)
