"""The test on a GPU gives the t of the CPU."""

import numpy as np
import pytest
import torch

from engines.nplm import CachedReference
from tests.support import gaussians, small_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_t_on_the_gpu_is_that_of_the_cpu() -> None:
    rng = np.random.default_rng(5)
    on_cpu = small_reference(rng, n_ref=20_000, n_expected=4000, n_centres=150, n_basis=5000)
    on_gpu = CachedReference(on_cpu.basis, on_cpu.embeddings, on_cpu.n_expected, device="cuda")
    assert on_gpu.psi.is_cuda
    toys = [rng.permutation(20_000)[:4000] for _ in range(8)]
    pool = gaussians(20_000, rng)
    t_cpu, t_gpu = on_cpu.test_toys(pool, toys), on_gpu.test_toys(pool, toys)
    assert t_gpu == pytest.approx(t_cpu, abs=0.005 * t_cpu.std())
    window = gaussians(4000, rng)
    assert on_gpu.test(window).t == pytest.approx(on_cpu.test(window).t, abs=0.005 * t_cpu.std())
