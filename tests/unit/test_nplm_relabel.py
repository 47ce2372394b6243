"""Relabelling: the true labels' t is the window's, and every labelling is fitted alike."""

import numpy as np
import pytest

from engines.errors import ParameterError, SampleSizeError
from engines.nplm import CachedReference, Loss
from tests.support import gaussians, small_reference

LOSSES: list[Loss] = ["cross-entropy", "likelihood"]


@pytest.fixture(scope="module", params=LOSSES)
def reference(request: pytest.FixtureRequest) -> CachedReference:
    return small_reference(np.random.default_rng(0), loss=request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_true_labels_give_the_windows_t(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    window = gaussians(200, rng)
    psi = reference.features(window)
    result = reference.relabel([psi[:50], psi[50:]], n_relabellings=9, rng=rng)
    np.testing.assert_allclose(result.t, reference.test(window).t, atol=0.1)
    assert result.t_relabelled.shape == (9, 1)


def test_a_labelling_is_a_window_tested_against_the_rest(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    """The one labelling of a generator, done by hand: its data against all the others."""
    window = gaussians(200, rng)
    psi = reference.features(window)
    result = reference.relabel([psi], n_relabellings=1, rng=np.random.default_rng(7))
    pooled = np.concatenate([reference.embeddings, window])
    chosen = np.random.default_rng(7).choice(len(pooled), 200, replace=False, shuffle=False)
    rest = np.delete(pooled, chosen, axis=0)
    other = CachedReference(reference.basis, rest, reference.n_expected, loss=reference.loss)
    np.testing.assert_allclose(result.t_relabelled[0], other.test(pooled[chosen]).t, atol=0.1)


def test_signal_has_the_smallest_p(reference: CachedReference, rng: np.random.Generator) -> None:
    window = gaussians(200, rng)
    window[:30] = [2.0, -2.0, 2.0, 0.0]
    done: list[int] = []
    result = reference.relabel(
        [reference.features(window)], n_relabellings=99, rng=rng, done=done.append
    )
    assert result.p_value == 0.01
    assert result.p_value_below == 1.0
    assert sum(done) == 99


def test_generator_decides_the_labels(reference: CachedReference) -> None:
    psi = reference.features(gaussians(200, np.random.default_rng(2)))
    one, same, other = (
        reference.relabel([psi], n_relabellings=5, rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.t_relabelled, same.t_relabelled)
    assert not np.array_equal(one.t_relabelled, other.t_relabelled)


def test_many_events_are_relabelled_in_several_batches(
    reference: CachedReference, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    psi = reference.features(gaussians(200, rng))
    at_once = reference.relabel([psi], n_relabellings=7, rng=np.random.default_rng(3))
    monkeypatch.setattr("engines.nplm.relabel._BATCH_BYTES", 3 * 2200)
    in_parts = reference.relabel([psi], n_relabellings=7, rng=np.random.default_rng(3))
    np.testing.assert_allclose(in_parts.t_relabelled, at_once.t_relabelled, atol=1e-2)


def test_nothing_to_relabel_is_refused(
    reference: CachedReference, rng: np.random.Generator
) -> None:
    psi = reference.features(gaussians(10, rng))
    with pytest.raises(ParameterError, match="relabellings must be at least 1; got 0"):
        reference.relabel([psi], n_relabellings=0, rng=rng)
    with pytest.raises(SampleSizeError, match="at least one event"):
        reference.relabel([psi[:0]], n_relabellings=5, rng=rng)
