"""The test on a GPU gives the t of the CPU."""

import numpy as np
import pytest
import torch

from engines.nplm import CachedReference, Loss
from engines.types import FloatArray
from tests.support import gaussians, small_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHARE_OF_SPREAD = 0.005
POOL = gaussians(20_000, np.random.default_rng(6))
TOYS = [np.random.default_rng(seed).permutation(20_000)[:4000] for seed in range(8)]


@pytest.fixture(scope="module", params=["cross-entropy", "likelihood"])
def on_cpu(request: pytest.FixtureRequest) -> CachedReference:
    loss: Loss = request.param
    return small_reference(
        np.random.default_rng(5),
        n_ref=20_000,
        n_expected=4000,
        n_centres=150,
        n_basis=5000,
        sigma_quantiles=(0.5, 0.9),
        loss=loss,
    )


def on_gpu(reference: CachedReference, dtype: torch.dtype = torch.float32) -> CachedReference:
    return CachedReference(
        reference.basis,
        reference.embeddings,
        reference.n_expected,
        loss=reference.loss,
        device="cuda",
        dtype=dtype,
    )


@pytest.fixture
def window() -> FloatArray:
    return gaussians(4000, np.random.default_rng(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_t_on_the_gpu_is_that_of_the_cpu(
    on_cpu: CachedReference, window: FloatArray, dtype: torch.dtype
) -> None:
    there = on_gpu(on_cpu, dtype)
    assert there.psi.is_cuda
    t_cpu, t_gpu = (reference.test_toys(POOL, TOYS) for reference in (on_cpu, there))
    atol = SHARE_OF_SPREAD * float(t_cpu.std(axis=0).min())
    np.testing.assert_allclose(t_gpu, t_cpu, atol=atol)
    np.testing.assert_allclose(there.test(window).t, on_cpu.test(window).t, atol=atol)
    merged = [reference.test_toys(POOL, TOYS, scale=2) for reference in (on_cpu, there)]
    np.testing.assert_allclose(merged[1], merged[0], rtol=1e-3)


def test_relabelling_on_the_gpu_is_that_of_the_cpu(
    on_cpu: CachedReference, window: FloatArray
) -> None:
    one, other = (
        reference.relabel(
            [reference.features(window)],
            n_relabellings=9,
            rng=np.random.default_rng(1),
        )
        for reference in (on_cpu, on_gpu(on_cpu))
    )
    np.testing.assert_allclose(other.t_relabelled, one.t_relabelled, atol=0.05)
    assert other.t == pytest.approx(one.t, abs=0.05)
