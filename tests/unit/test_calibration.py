"""From event files to a calibrated reference: how events are split, and which are refused."""

import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from engines.artifact import EngineFacts, SampleFacts
from engines.calibration import Running, calibrate
from engines.calibration_config import CalibrationConfig, choose_sizes
from engines.embed_events import embed_events
from engines.errors import (
    EventError,
    MismatchError,
    ParameterError,
    SampleSizeError,
    WorkerError,
)
from engines.event_files import read_events, write_events
from engines.event_quantities import event_quantities
from engines.events import EventRange
from engines.nplm import draw_toys, events_for_pool
from engines.reference_file import ReferenceArtifact
from engines.toy_processes import ProcessRunner
from engines.toy_runs import Results, SerialRunner, ToyBatch, ToyJob
from tests.support import FINGERPRINT, LinearEngine, gaussians, window_spec

CONFIG = CalibrationConfig(window=window_spec("count", 200), n_toys=20, n_basis=500, n_ref=1000)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3000 events whose first four eta are what `LinearEngine` returns."""
    place = tmp_path_factory.mktemp("events") / "bkg.h5"
    particles = np.zeros((3000, 19, 3), np.float32)
    particles[:, 1:5, 0] = 20.0
    particles[:, 1:5, 1] = gaussians(3000, np.random.default_rng(0))
    with h5py.File(place, "w") as file:
        file["Particles"] = particles
    return place


def test_defaults_split_into_ten_windows_or_half() -> None:
    plenty = choose_sizes(500_000, CalibrationConfig(window=window_spec("count", 1000)))
    assert (plenty.n_basis, plenty.n_ref, plenty.n_pool) == (5000, 10_000, 485_000)
    assert plenty.n_centres == 105  # sqrt(11,000), rounded up
    scarce = choose_sizes(15_000, CalibrationConfig(window=window_spec("count", 1000)))
    assert (scarce.n_basis, scarce.n_ref, scarce.n_pool) == (5000, 5000, 5000)


def test_wishes_are_kept() -> None:
    wish = CalibrationConfig(
        window=window_spec("count", 100), n_ref=1234, n_basis=777, n_centres=55
    )
    sizes = choose_sizes(10_000, wish)
    assert (sizes.n_basis, sizes.n_ref, sizes.n_pool, sizes.n_centres) == (777, 1234, 7989, 55)


@pytest.mark.parametrize("n_data", [1, 7, 1000, 1234, 200_000])
@pytest.mark.parametrize(
    "wish",
    [{}, {"n_basis": 500, "n_centres": 400}, {"n_basis": 20_000}, {"n_ref": 3000},
     {"n_centres": 30}, {"n_basis": 500, "n_ref": 2000}],
)  # fmt: skip
def test_too_few_events_says_how_many_suffice(n_data: int, wish: dict[str, int]) -> None:
    config = CalibrationConfig(
        window=window_spec("count", n_data),
        n_ref=wish.get("n_ref"),
        n_basis=wish.get("n_basis"),
        n_centres=wish.get("n_centres"),
    )
    with pytest.raises(SampleSizeError, match=r"got 10; give more events or") as caught:
        choose_sizes(10, config)
    found = re.search(r"at least (\d+) background events", str(caught.value))
    assert found is not None
    needed = int(found[1])
    sizes = choose_sizes(needed, config)
    assert sizes.n_basis + sizes.n_ref + sizes.n_pool == needed
    assert sizes.n_pool >= events_for_pool(n_data, sizes.n_ref)
    choose_sizes(needed + 12_345, config)
    with pytest.raises(SampleSizeError):
        choose_sizes(int(0.9 * needed), config)


def test_basis_smaller_than_its_centres_is_refused() -> None:
    for n_basis, n_centres in ((99, 100), (1, 1)):
        small = dataclasses.replace(CONFIG, n_basis=n_basis, n_centres=n_centres)
        with pytest.raises(SampleSizeError, match=f"basis must hold .* got {n_basis}; raise"):
            choose_sizes(100_000, small)
    assert choose_sizes(100_000, dataclasses.replace(CONFIG, n_centres=500)).n_basis == 500


@pytest.mark.parametrize(
    "wrong",
    [
        *({"n_toys": 1}, {"seed": -1}, {"seed": 2**63}),
        *({"sigmas": (1.0, sigma)} for sigma in (0.0, -1.0, math.nan, math.inf, 1e300, 1e-300)),
        {"sigmas": ()},
        *({"lam": lam} for lam in (0.0, -1.0, 1.1, 1e300, math.nan)),
        *({"sigma_quantiles": (quantile,)} for quantile in (0.0, 1.0, math.nan)),
        {"sigma_quantiles": ()},
        *({"scales": scales} for scales in ((1,), (0,), (10, 10))),
        *({"loss": "hinge"}, {"store": "int8"}),
    ],
)
def test_config_refuses_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"must .*; got"):
        CalibrationConfig(window=CONFIG.window, **wrong)


@pytest.mark.parametrize(("sigma", "lam"), [(1e9, 1e-6), (1e5, 1e-6), (1e-9, 1e-6), (1e3, 1.0)])
def test_null_without_spread_is_refused(events: Path, sigma: float, lam: float) -> None:
    flat = dataclasses.replace(CONFIG, sigmas=(sigma,), lam=lam)
    with pytest.raises(ParameterError, match=re.escape(f"with sigma {sigma:g} and lam {lam:g};")):
        calibrate(LinearEngine(), [EventRange(events)], flat)


def test_embeddings_are_the_engines_in_file_order(events: Path) -> None:
    ranges = [EventRange(events, 100, 300), EventRange(events, 0, 50)]
    embeddings, quantities = embed_events(LinearEngine(), ranges, "embedding")
    wanted = gaussians(3000, np.random.default_rng(0))
    np.testing.assert_array_equal(embeddings, np.concatenate([wanted[100:300], wanted[:50]]))
    particles = np.concatenate([read_events(source) for source in ranges])
    np.testing.assert_array_equal(quantities, event_quantities(particles))


def test_calibration_keeps_the_samples_disjoint_and_says_what_it_did(events: Path) -> None:
    artifact = calibrate(LinearEngine(), [EventRange(events)], CONFIG)
    facts, reference = artifact.facts, artifact.reference
    assert (facts.n_basis, facts.n_ref, facts.n_pool, facts.n_toys) == (500, 1000, 1500, 20)
    assert facts.engine_fingerprint == FINGERPRINT
    assert facts.window == CONFIG.window
    assert [(s.name, s.start, s.stop) for s in facts.samples] == [("bkg.h5", 0, 3000)]
    assert {"sigmas", "lam", "jitter", "cut", "n_centres", "seed", "ranks"} <= set(facts.options)
    assert {"nplm-stream", "torch", "numpy"} <= set(facts.versions)
    assert artifact.nulls[1].t.shape == (20, 1)
    centres = (reference.basis.centres * reference.basis.std + reference.basis.mean).numpy()
    distance = np.linalg.norm(centres[:, None] - reference.embeddings[None], axis=2)
    assert distance.min() > 1e-4  # no centre is a reference event


def test_quantities_are_those_of_the_reference_events(tmp_path: Path) -> None:
    particles = np.zeros((3000, 19, 3), np.float32)
    particles[:, 1:5, 1] = gaussians(3000, np.random.default_rng(0))
    particles[:, 0, 0] = np.arange(3000)
    write_events(tmp_path / "bkg.h5", particles)
    artifact = calibrate(LinearEngine(), [EventRange(tmp_path / "bkg.h5")], CONFIG)
    assert artifact.quantities is not None
    met = artifact.quantities[:, 1].astype(int)
    np.testing.assert_array_equal(particles[met, 1:5, 1], artifact.reference.embeddings)


def test_toys_come_from_events_of_neither_basis_nor_reference(events: Path) -> None:
    made = calibrate(LinearEngine(), [EventRange(events)], CONFIG)
    null, reference = made.nulls[1], made.reference
    rng = np.random.default_rng(CONFIG.seed)
    embeddings = gaussians(3000, np.random.default_rng(0))[rng.permutation(3000)]
    basis, wanted, pool = np.split(embeddings, [500, 1500])
    toys = list(draw_toys(CONFIG.window, 1500, 20, rng))
    np.testing.assert_allclose(reference.basis.mean, basis.mean(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(reference.embeddings, wanted)
    np.testing.assert_array_equal(reference.test_toys(pool, toys), null.t)
    for first in (0, 500, 1499):
        overlapping = embeddings[first : first + 1500]
        assert not np.array_equal(reference.test_toys(overlapping, toys), null.t)


def test_same_seed_same_calibration(events: Path) -> None:
    one, same, other = (
        calibrate(
            LinearEngine(),
            [EventRange(events)],
            CalibrationConfig(window=CONFIG.window, n_toys=5, n_basis=500, n_ref=1000, seed=seed),
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.nulls[1].t, same.nulls[1].t)
    assert not np.array_equal(one.nulls[1].t, other.nulls[1].t)


def test_events_of_the_training_are_refused(events: Path) -> None:
    trained = SampleFacts.of(EventRange(events, 500, 1500))
    engine = LinearEngine(EngineFacts(trained_on=(trained,)))
    with pytest.raises(
        MismatchError, match=r"trained on 300 of these events .*for instance bkg.h5@1500:"
    ):
        calibrate(engine, [EventRange(events, 1200, 3000)], CONFIG)
    calibrate(engine, [EventRange(events, 0, 500), EventRange(events, 1500)],
              CalibrationConfig(window=window_spec("count", 100), n_toys=2, n_basis=500,
                                n_ref=1000))  # fmt: skip


def test_events_given_twice_are_refused(events: Path) -> None:
    with pytest.raises(MismatchError, match="share 500"):
        calibrate(LinearEngine(), [EventRange(events, 0, 2000), EventRange(events, 1500)], CONFIG)


def test_range_beyond_the_file_is_refused(events: Path) -> None:
    with pytest.raises(EventError, match="holds 3000 events"):
        calibrate(LinearEngine(), [EventRange(events, 0, 5000)], CONFIG)


def test_an_encoder_that_does_not_say_its_training_is_told_of(
    events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for facts in (EngineFacts(), EngineFacts(loss="none")):
        calibrate(LinearEngine(facts), [EventRange(events)], CONFIG)
    assert caplog.text.count("the encoder does not say what it was trained on") == 1


def test_small_pool_is_told(events: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = CalibrationConfig(window=window_spec("count", 100), n_toys=2, n_basis=500, n_ref=1800)
    calibrate(LinearEngine(), [EventRange(events)], config)
    assert "the pool is small" not in caplog.text
    config = CalibrationConfig(
        window=window_spec("count", 200), n_toys=2, n_basis=500, n_ref=1800, n_centres=20
    )
    calibrate(LinearEngine(), [EventRange(events)], config)
    assert "a pool of 1232 events would bring it to 25 %" in caplog.text


@pytest.fixture(scope="module")
def plain(events: Path) -> ReferenceArtifact:
    return calibrate(LinearEngine(), [EventRange(events)], CONFIG)


def test_threads_and_processes_change_no_bit(
    events: Path, plain: ReferenceArtifact, tmp_path: Path
) -> None:
    for running in (
        Running(threads=1),
        Running(runner=ProcessRunner(2), shared=tmp_path / "d4.ref"),
        Running(runner=ProcessRunner(2)),
    ):
        other = calibrate(LinearEngine(), [EventRange(events)], CONFIG, running)
        np.testing.assert_array_equal(other.nulls[1].t, plain.nulls[1].t)
    assert list(tmp_path.iterdir()) == []


class FailsAfter(SerialRunner):
    """Computes some batches, then is lost."""

    def __init__(self, n_batches: int) -> None:
        self.n_batches = n_batches

    def run(self, job: ToyJob, batches: Iterable[ToyBatch]) -> Results:
        for done, result in enumerate(super().run(job, batches)):
            if done == self.n_batches:
                msg = "the machine was switched off"
                raise WorkerError(msg)
            yield result


def test_interrupted_calibration_continues_to_the_same_bits(
    events: Path, plain: ReferenceArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("engines.nplm.reference._LARGEST_BATCH", 4)
    journal = tmp_path / "d4.ref.toys"
    with pytest.raises(WorkerError, match="switched off; 8 of 20 toys are kept in"):
        calibrate(
            LinearEngine(),
            [EventRange(events)],
            CONFIG,
            Running(runner=FailsAfter(2), journal=journal),
        )
    caplog.set_level("INFO")
    running = Running(journal=journal)
    continued = calibrate(LinearEngine(), [EventRange(events)], CONFIG, running)
    assert "continuing: 8 of 20 toys are done" in caplog.text
    whole = calibrate(LinearEngine(), [EventRange(events)], CONFIG)
    np.testing.assert_array_equal(continued.nulls[1].t, whole.nulls[1].t)
    np.testing.assert_allclose(whole.nulls[1].t, plain.nulls[1].t, atol=2e-3)
    running.discard_journals(continued.facts.scales)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_continue_nothing(events: Path, tmp_path: Path) -> None:
    running = Running(journal=tmp_path / "d4.ref.toys")
    calibrate(LinearEngine(), [EventRange(events)], CONFIG, running)
    other = dataclasses.replace(CONFIG, lam=1e-5)
    fresh = calibrate(LinearEngine(), [EventRange(events)], other, running)
    wanted = calibrate(LinearEngine(), [EventRange(events)], other)
    np.testing.assert_array_equal(fresh.nulls[1].t, wanted.nulls[1].t)


def test_widths_scales_and_half_store_go_through(events: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        window=window_spec("count", 50),
        sigma_quantiles=(0.1, 0.5, 0.9),
        scales=(4, 2),
        store="float16",
    )
    running = Running(runner=ProcessRunner(2), shared=tmp_path / "d4.ref")
    made = calibrate(LinearEngine(), [EventRange(events)], config, running)
    assert made.facts.scales == (1, 2, 4)
    assert {scale: nulls.t.shape for scale, nulls in made.nulls.items()} == {
        1: (20, 3), 2: (20, 3), 4: (20, 3)}  # fmt: skip
    shares = made.facts.offset_shares
    assert shares[4] == pytest.approx(4 * shares[1])
    assert len(made.facts.options["sigmas"]) == 3
    assert made.reference.psi.element_size() == 2


def test_merged_windows_need_events_to_match() -> None:
    merged = CalibrationConfig(window=window_spec("count", 1000), scales=(10,))
    sizes = choose_sizes(200_000, merged)
    assert sizes.n_ref == 20_000  # twice the merged window
    with pytest.raises(SampleSizeError, match="1000 events and 10 of them merged needs at least"):
        choose_sizes(20_000, merged)


def test_likelihood_is_another_statistic(events: Path, plain: ReferenceArtifact) -> None:
    config = dataclasses.replace(CONFIG, loss="likelihood")
    made = calibrate(LinearEngine(), [EventRange(events)], config)
    assert made.facts.loss == "likelihood"
    correlation = np.corrcoef(made.nulls[1].t[:, 0], plain.nulls[1].t[:, 0])[0, 1]
    assert 0.8 < correlation < 1.0
