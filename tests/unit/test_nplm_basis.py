"""The whitened coordinates: what makes them so, and what cannot be whitened."""

import logging
import math

import numpy as np
import pytest
import torch

from engines.errors import EngineError, ParameterError, SampleSizeError
from engines.nplm.basis import Basis, BasisConfig, build_basis
from engines.nplm.kernel import gaussian_kernel
from tests.support import gaussians

N_BASIS = 3000
CONFIG = BasisConfig(n_centres=80, n_ref=20_000, n_expected=2000.0)


@pytest.fixture(scope="module")
def sample() -> torch.Tensor:
    return torch.from_numpy(gaussians(N_BASIS, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def basis(sample: torch.Tensor) -> Basis:
    return build_basis(sample, CONFIG)


def test_null_hessian_and_ridge_add_up_to_the_identity(sample: torch.Tensor, basis: Basis) -> None:
    psi = basis.features(sample, torch.float64)
    hessian = 0.5 * CONFIG.n_expected * (psi.T @ psi) / len(sample)
    total = hessian + torch.diag(basis.widths[0].ridge)
    np.testing.assert_allclose(total.numpy(), np.eye(basis.rank), atol=1e-8)


def test_ridge_is_the_penalty_of_the_kernel_model(basis: Basis) -> None:
    kernel = gaussian_kernel(basis.centres, basis.centres, basis.sigmas[0])
    kernel += CONFIG.jitter * CONFIG.n_centres * torch.eye(CONFIG.n_centres)
    projector = basis.widths[0].projector
    penalty = CONFIG.ridge_scale * projector.T @ kernel @ projector
    np.testing.assert_allclose(penalty.numpy(), np.diag(basis.widths[0].ridge.numpy()), atol=1e-6)


def test_standardisation_width_and_centres_come_from_the_sample(
    sample: torch.Tensor, basis: Basis
) -> None:
    np.testing.assert_allclose(basis.mean, sample.double().mean(dim=0))
    np.testing.assert_allclose(basis.std, sample.double().std(dim=0))
    centres = basis.centres * basis.std + basis.mean
    distance = torch.cdist(centres, sample.double()).min(dim=1).values
    assert float(distance.max()) < 1e-6
    assert len(torch.unique(centres, dim=0)) == CONFIG.n_centres
    assert (
        3.0 < basis.sigmas[0] < 5.0
    )  # the 90 % quantile of distances of 4 standardised coordinates


def test_rank_falls_with_the_cut(sample: torch.Tensor, basis: Basis) -> None:
    ranks = [
        build_basis(sample, BasisConfig(80, 20_000, 2000.0, cut=cut)).rank for cut in (0, 1.0, 1e2)
    ]
    assert ranks[0] == 80 >= basis.rank > ranks[1] > ranks[2] > 0
    assert float(basis.widths[0].ridge.max()) < 1 / (1 + CONFIG.cut)
    assert float(basis.widths[0].ridge.min()) > 0


def test_features_do_not_depend_on_the_block(sample: torch.Tensor, basis: Basis) -> None:
    many = torch.cat([sample] * 6)  # more than one block of 16,384
    psi = basis.features(many, torch.float32)
    assert psi.dtype == torch.float32
    np.testing.assert_array_equal(psi[:N_BASIS].numpy(), psi[5 * N_BASIS :].numpy())


def test_seed_decides_the_centres(sample: torch.Tensor) -> None:
    same = [build_basis(sample, BasisConfig(10, 100, 10.0, seed=s)).centres for s in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_given_width_is_used(sample: torch.Tensor) -> None:
    assert build_basis(sample, BasisConfig(10, 100, 10.0, sigmas=(2.5,))).sigmas == (2.5,)


def test_repeated_events_give_distinct_centres() -> None:
    few = gaussians(30, np.random.default_rng(1))
    repeated = torch.from_numpy(np.concatenate([few] * 10))
    centres = build_basis(repeated, BasisConfig(30, 100, 10.0)).centres
    assert len(torch.unique(centres, dim=0)) == 30


@pytest.mark.parametrize("value", [0.0, 0.1, 7.7e5])
def test_constant_coordinate_counts_for_nothing_and_is_named(
    sample: torch.Tensor, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [0, 1, 3]
    dead = sample.clone()
    dead[:, 2] = value
    with caplog.at_level(logging.WARNING):
        basis = build_basis(dead, CONFIG)
    assert "coordinates [2] of the embedding are constant" in caplog.text
    assert "lie far from every centre and do not enter t" in caplog.text
    assert basis.std[2] == pytest.approx(max(1.0, 1e-3 * value))
    without = build_basis(sample[:, kept], CONFIG)
    assert basis.sigmas == pytest.approx(without.sigmas)
    np.testing.assert_allclose(basis.std[kept], without.std)
    np.testing.assert_allclose(basis.centres[:, kept], without.centres)
    psi, wanted = (
        made.features(events[:50], torch.float64) @ made.features(events[50:90], torch.float64).T
        for made, events in ((basis, dead), (without, sample[:, kept]))
    )
    np.testing.assert_allclose(psi, wanted, atol=1e-6 * float(wanted.abs().max()))


def test_another_value_of_a_constant_coordinate_is_far_from_all_and_finite(
    sample: torch.Tensor,
) -> None:
    dead = sample.clone()
    dead[:, 2] = 0.0
    basis = build_basis(dead, CONFIG)
    dead[:, 2] = torch.logspace(-30, 38, len(dead))
    psi = basis.features(dead, torch.float64)
    assert bool(psi.isfinite().all())
    assert float(psi[-100:].abs().max()) == 0.0


def test_embeddings_that_are_all_constant_are_refused(sample: torch.Tensor) -> None:
    with pytest.raises(ParameterError, match="got 4 constant coordinates of 4; check the engine"):
        build_basis(torch.ones_like(sample), CONFIG)


@pytest.mark.parametrize("value", [0.1, 7.7e5, 1e8])
def test_rounding_of_float32_makes_no_coordinate(sample: torch.Tensor, value: float) -> None:
    noisy, constant = sample.clone(), sample.clone()
    constant[:, 2] = value
    noisy[:, 2] = constant[:, 2]
    noisy[::2, 2] = torch.nextafter(noisy[::2, 2], torch.tensor(math.inf))
    psi, wanted = (
        build_basis(x, CONFIG).features(x[:50], torch.float64) for x in (noisy, constant)
    )
    np.testing.assert_allclose(
        psi @ psi.T, wanted @ wanted.T, atol=1e-4 * float(wanted.abs().max())
    )


@pytest.mark.parametrize("n", [0, 1])
def test_an_event_alone_is_refused(sample: torch.Tensor, n: int) -> None:
    with pytest.raises(SampleSizeError, match=f"at least 2 events; got {n}; give more"):
        build_basis(sample[:n], CONFIG)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_embeddings_that_are_not_finite_are_refused(sample: torch.Tensor, value: float) -> None:
    bad = sample.clone()
    bad[7, 1:3] = value
    with pytest.raises(EngineError, match="embeddings must be finite; got 1 events that are not"):
        build_basis(bad, CONFIG)


def test_too_few_distinct_events_are_refused(sample: torch.Tensor) -> None:
    with pytest.raises(SampleSizeError, match=r"at least 80 distinct events.* got 40"):
        build_basis(torch.cat([sample[:40]] * 50), CONFIG)


@pytest.mark.parametrize("name", ["n_centres", "n_ref", "n_expected"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_config_refuses_what_is_not_positive(name: str, value: float) -> None:
    options = {"n_centres": 10, "n_ref": 100, "n_expected": 10.0, name: value}
    with pytest.raises(ParameterError, match=f"{name} must be a finite number above zero"):
        BasisConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("lam", [0.0, -1.0, 1e-13, 1.1, math.nan, math.inf])
def test_lam_out_of_range_is_refused(lam: float) -> None:
    with pytest.raises(ParameterError, match="lam must lie between 1e-12 and 1; got"):
        BasisConfig(10, 100, 10.0, lam=lam)


@pytest.mark.parametrize(
    "sigmas", [(0.0,), (-1.0,), (1.0, math.nan), (math.inf,), (1e300,), (1e-300,), ()]
)
def test_sigma_out_of_range_is_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match=r"sigma.* must .*; got"):
        BasisConfig(10, 100, 10.0, sigmas=sigmas)


def test_widths_side_by_side_are_each_alone(sample: torch.Tensor) -> None:
    sigmas = (1.5, 3.0, 4.5)
    both = build_basis(sample, BasisConfig(40, 20_000, 2000.0, sigmas=sigmas[::-1]))
    assert both.sigmas == sigmas
    psi = both.features(sample, torch.float64)
    assert psi.shape == (N_BASIS, both.rank)
    for sigma, columns in zip(sigmas, both.columns, strict=True):
        alone = build_basis(sample, BasisConfig(40, 20_000, 2000.0, sigmas=(sigma,)))
        wanted = alone.features(sample, torch.float64)
        np.testing.assert_allclose(psi[:, columns].numpy(), wanted.numpy(), atol=1e-12)


def test_duplicated_coordinate_is_whitened_all_the_same(sample: torch.Tensor) -> None:
    doubled = torch.cat([sample, sample[:, :1]], dim=1)
    basis = build_basis(doubled, CONFIG)
    assert bool(basis.features(doubled, torch.float32).isfinite().all())
    hessian_and_ridge = 0.5 * CONFIG.n_expected / N_BASIS * torch.linalg.matrix_norm(
        basis.features(doubled, torch.float64)
    ) ** 2 + float(basis.widths[0].ridge.sum())
    assert float(hessian_and_ridge) == pytest.approx(basis.rank, rel=1e-6)


@pytest.mark.parametrize("name", ["jitter", "cut"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_jitter_and_cut_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=f"{name} must be a finite number, 0 or above; got"):
        BasisConfig(10, 100, 10.0, **{name: value})  # type: ignore[arg-type]
