"""The kernel against a loop, and its width against a sorted list."""

import itertools
import math

import numpy as np
import pytest
import torch

from engines.errors import ParameterError, SampleSizeError
from engines.nplm.kernel import gaussian_kernel, kernel_widths


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_kernel_is_that_of_a_naive_loop(sigma: float) -> None:
    rng = np.random.default_rng(0)
    x, centres = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    wanted = [
        [
            math.exp(-sum((a - b) ** 2 for a, b in zip(p, c, strict=True)) / (2 * sigma**2))
            for c in centres
        ]
        for p in x
    ]
    got = gaussian_kernel(torch.from_numpy(x), torch.from_numpy(centres), sigma)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)


def test_kernel_of_a_point_with_itself_is_never_above_one() -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 4)) * 1e4)
    kernel = gaussian_kernel(x, x, 1e4)
    assert float(kernel.max()) <= 1.0
    np.testing.assert_allclose(kernel.diagonal().numpy(), 1.0, rtol=1e-12)


def test_distant_points_have_no_kernel() -> None:
    far = gaussian_kernel(torch.tensor([[1e6]]).double(), torch.zeros(1, 1).double(), 1.0)
    assert float(far) == 0.0


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_width_is_the_quantile_of_pairwise_distances(quantile: float) -> None:
    x = np.random.default_rng(2).normal(size=(30, 2))
    distances = sorted(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(x, 2))
    (width,) = kernel_widths(torch.from_numpy(x), (quantile,))
    assert width == pytest.approx(distances[round(quantile * len(distances)) - 1])


def test_width_uses_the_first_events_only() -> None:
    x = torch.cat([torch.tensor([[0.0], [1.0]]), torch.full((5, 1), 100.0)])
    assert kernel_widths(x, (0.9,), n_events=2) == (1.0,)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, math.nan])
def test_width_refuses_a_quantile_out_of_range(quantile: float) -> None:
    with pytest.raises(ParameterError, match="quantiles must lie between 0 and 1"):
        kernel_widths(torch.zeros(3, 1), (0.5, quantile))


@pytest.mark.parametrize("x", [torch.zeros(1, 2), torch.ones(10, 2)])
def test_width_refuses_points_that_do_not_vary(x: torch.Tensor) -> None:
    with pytest.raises(SampleSizeError, match="two distinct points"):
        kernel_widths(x)


def test_several_widths_rise_and_repeat_nothing() -> None:
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(100, 2)))
    widths = kernel_widths(x, (0.9, 0.1, 0.5, 0.5))
    assert widths == tuple(kernel_widths(x, (q,))[0] for q in (0.1, 0.5, 0.9))
    assert widths == tuple(sorted(widths))


def test_quantile_among_equal_points_is_refused() -> None:
    x = torch.cat([torch.zeros(50, 2), torch.ones(2, 2)])
    with pytest.raises(SampleSizeError, match=r"quantile 0\.1 of the distances must be above zero"):
        kernel_widths(x, (0.1, 0.99))
