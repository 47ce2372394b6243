"""Falkon as a backend: what it is asked for, what its result means, and what is said without it.

Falkon is on no package index, so a double of its interface stands in: the names and arguments are
those of version 0.9.0, the fit is a naive one. The last test runs the real one where there is one.
"""

import importlib.util
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bench.oracle import naive_kernel, naive_t
from engines.errors import (
    EngineError,
    MissingPackageError,
    ParameterError,
    SampleSizeError,
    TrainingError,
)
from engines.nplm.basis import Basis, BasisConfig, build_basis
from engines.nplm.falkon import FalkonConfig, FalkonReference, is_available
from engines.types import Float64Array, FloatArray
from tests.support import gaussians

N_REF, N_DATA, N_CENTRES, LAM = 2000, 500, 30, 1e-6
CONVERGED = FalkonConfig(LAM, newton_steps=12, cg_tolerance=1e-7)


@dataclass
class _Options:
    """FalkonOptions: the fields in use, and the defaults of those that belong to the penalty."""

    cg_tolerance: float = 1e-7
    keops_active: str = "auto"
    use_cpu: bool = False
    debug: bool = False
    pc_epsilon_32: float = 1e-5
    pc_epsilon_64: float = 1e-13

    def pc_epsilon(self, dtype: torch.dtype) -> float:
        return {torch.float32: self.pc_epsilon_32, torch.float64: self.pc_epsilon_64}[dtype]


@dataclass
class _GaussianKernel:
    sigma: float

    def matrix(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(naive_kernel(x.double().numpy(), y.double().numpy(), self.sigma))


@dataclass
class _FixedSelector:
    centers: torch.Tensor
    y_centers: torch.Tensor | None = None

    def select(self, *_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.y_centers is None:
            msg = "FixedSelector has no y-centers available, but `Y` is not None."
            raise RuntimeError(msg)
        return self.centers, self.y_centers


@dataclass
class _WeightedCrossEntropyLoss:
    kernel: _GaussianKernel
    neg_weight: float

    def knmp_grad(
        self, x: torch.Tensor, centres: torch.Tensor, y: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kernel = self.kernel.matrix(x, centres)
        f = kernel @ u
        weights = y + self.neg_weight * (1.0 - y)
        return kernel.T @ (weights * (f.sigmoid() - y)) / len(x), f

    def knmp_hess(
        self, x: torch.Tensor, centres: torch.Tensor, y: torch.Tensor, f: torch.Tensor
    ) -> torch.Tensor:
        """The whole matrix at once, where Falkon's takes a vector."""
        kernel = self.kernel.matrix(x, centres)
        weights = (y + self.neg_weight * (1.0 - y)) * f.sigmoid() * (-f).sigmoid()
        return (kernel * weights).T @ kernel / len(x)


@dataclass
class _LogisticFalkon:
    """Newton steps in the coordinates beta = T alpha, as Falkon's, each solved exactly."""

    kernel: _GaussianKernel
    penalty_list: list[float]
    iter_list: list[int]
    loss: _WeightedCrossEntropyLoss
    M: int
    center_selection: _FixedSelector
    seed: int | None = None
    options: _Options = field(default_factory=_Options)
    alpha_: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> "_LogisticFalkon":
        assert x.dtype == y.dtype
        assert y.shape == (len(x), 1)
        assert len(self.penalty_list) == len(self.iter_list)
        centres, labels = self.center_selection.select(x, y)
        assert labels.shape == (self.M, 1) == (len(centres), 1)
        penalty_matrix = self.kernel.matrix(centres, centres)
        penalty_matrix.diagonal().add_(self.options.pc_epsilon(x.dtype) * self.M)
        upper = torch.linalg.cholesky(penalty_matrix).T
        beta = torch.zeros((self.M, 1), dtype=torch.float64)
        for step, penalty in enumerate(self.penalty_list):
            print("Iteration", step)  # noqa: T201 - Falkon does
            alpha = torch.linalg.solve_triangular(upper, beta, upper=True)
            gradient, f = self.loss.knmp_grad(x, centres, y.double(), alpha)
            hessian = self.loss.knmp_hess(x, centres, y.double(), f)
            whitened = torch.linalg.solve_triangular(
                upper.T, torch.cat([gradient, hessian], dim=1), upper=False
            )
            gradient = whitened[:, :1] + penalty * beta
            hessian = torch.linalg.solve_triangular(upper.T, whitened[:, 1:].T, upper=False)
            hessian.diagonal().add_(penalty)
            beta -= torch.linalg.solve(hessian, gradient)
        self.alpha_ = torch.linalg.solve_triangular(upper, beta, upper=True)
        return self

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel.matrix(x, self.center_selection.centers) @ self.alpha_


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[_LogisticFalkon]:
    """Put the double in Falkon's place; return the models made of it, in order."""
    models: list[_LogisticFalkon] = []

    def make(**options: Any) -> _LogisticFalkon:  # noqa: ANN401 - LogisticFalkon's
        models.append(_LogisticFalkon(**options))
        return models[-1]

    falkon: Any = ModuleType("falkon")
    falkon.LogisticFalkon, falkon.FalkonOptions = make, _Options
    parts: dict[str, dict[str, type]] = {
        "kernels": {"GaussianKernel": _GaussianKernel},
        "gsc_losses": {"WeightedCrossEntropyLoss": _WeightedCrossEntropyLoss},
        "center_selection": {"FixedSelector": _FixedSelector},
    }
    for name, members in parts.items():
        part = ModuleType(f"falkon.{name}")
        vars(part).update(members)
        setattr(falkon, name, part)
    monkeypatch.setitem(sys.modules, "falkon", falkon)
    return models


@dataclass(frozen=True)
class Sample:
    basis: Basis
    reference: FloatArray
    window: FloatArray

    def standardised(self, x: FloatArray) -> Float64Array:
        return np.asarray((x.astype(np.float64) - self.basis.mean.numpy()) / self.basis.std.numpy())

    def oracle(self, window: FloatArray) -> float:
        return naive_t(
            self.standardised(window),
            self.standardised(self.reference),
            self.basis.centres.numpy(),
            sigma=self.basis.widths[0].sigma,
            lam=LAM,
            n_expected=N_DATA,
        )

    def falkon(
        self, config: FalkonConfig, *, device: str = "cpu", threads: int = 1
    ) -> FalkonReference:
        return FalkonReference(
            self.basis, self.reference, float(N_DATA), config, device=device, threads=threads
        )


@pytest.fixture(scope="module")
def sample() -> Sample:
    rng = np.random.default_rng(11)
    config = BasisConfig(N_CENTRES, n_ref=N_REF, n_expected=N_DATA, lam=LAM)
    basis = build_basis(torch.from_numpy(gaussians(1000, rng)), config)
    window = gaussians(N_DATA, rng)
    window[:15] = rng.normal(size=(15, 4)) * 0.3 + [1.5, -1.5, 1.5, 0.0]
    return Sample(basis, gaussians(N_REF, rng), window)


@pytest.mark.usefixtures("models")
def test_converged_falkon_agrees_with_the_oracle(sample: Sample) -> None:
    test = sample.falkon(CONVERGED).test(sample.window)
    assert test.t == pytest.approx([sample.oracle(sample.window)], abs=1e-4)
    assert test.t_converged == pytest.approx(test.t[0], abs=1e-4)
    assert test.gradient_squared < 1e-10
    assert test.f.shape == (1, N_DATA)
    assert test.f.dtype == np.float64
    assert test.f[0, :15].mean() > test.f[0, 15:].mean() + 1


@pytest.mark.usefixtures("models")
def test_one_step_stops_short_and_says_so(sample: Sample) -> None:
    t = sample.oracle(sample.window)
    test = sample.falkon(FalkonConfig(LAM)).test(sample.window)
    assert test.gradient_squared > 0.1
    assert abs(test.t[0] - t) > 0.5
    assert abs(test.t_converged - t) < 0.2 * abs(test.t[0] - t)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_t_converged_is_what_one_step_more_gives(sample: Sample, steps: int) -> None:
    """No direction is dropped at this size, so the step in the basis is Falkon's own next one."""
    assert sample.basis.widths[0].rank == N_CENTRES
    test, after = (
        sample.falkon(FalkonConfig(LAM, newton_steps=n)).test(sample.window)
        for n in (steps, steps + 1)
    )
    assert test.t_converged == pytest.approx(after.t[0], abs=1e-4)


@pytest.mark.usefixtures("models")
def test_a_count_away_from_the_expected_is_falkons_own_problem(sample: Sample) -> None:
    window = sample.window[:400]
    test = sample.falkon(CONVERGED).test(window)
    assert test.t == pytest.approx([sample.oracle(window)], abs=1e-4)
    assert test.gradient_squared < 1e-10


@pytest.mark.usefixtures("models")
def test_gradient_is_that_of_the_loss_in_the_basis(sample: Sample) -> None:
    """|gradient|^2 against finite differences of n L along each coordinate."""
    reference = sample.falkon(FalkonConfig(LAM))
    fit = reference.fit(sample.window)
    projector = sample.basis.widths[0].projector.numpy()
    sigma, centres = sample.basis.widths[0].sigma, sample.basis.centres.numpy()
    data, ref = (
        naive_kernel(sample.standardised(x), centres, sigma)
        for x in (sample.window, sample.reference)
    )
    penalty = naive_kernel(centres, centres, sigma) + 1e-13 * N_CENTRES * np.eye(N_CENTRES)

    def loss(alpha: Float64Array) -> float:
        fitted = np.logaddexp(0, -data @ alpha).sum() + 0.25 * np.logaddexp(0, ref @ alpha).sum()
        return float(fitted + 0.5 * LAM * (N_REF + N_DATA) * alpha @ penalty @ alpha)

    alpha, h = fit.alpha.numpy(), 1e-3
    gradient = [
        (loss(alpha + h * column) - loss(alpha - h * column)) / (2 * h) for column in projector.T
    ]
    assert reference.judge(fit).gradient_squared == pytest.approx(np.dot(gradient, gradient), 1e-4)


def test_options_are_those_of_nplm_flk(sample: Sample, models: list[_LogisticFalkon]) -> None:
    width = sample.basis.widths[0]
    test = sample.falkon(FalkonConfig(lam=1e-5)).test(sample.window)
    (model,) = models
    assert model.penalty_list == [1e-5]
    assert model.iter_list == [1_000_000]
    assert (model.M, model.seed) == (N_CENTRES, None)
    assert model.kernel == model.loss.kernel == _GaussianKernel(width.sigma)
    assert model.kernel is not model.loss.kernel
    assert model.loss.neg_weight == N_DATA / N_REF
    assert model.options == _Options(
        cg_tolerance=np.sqrt(1e-7), keops_active="no", use_cpu=True, debug=False
    )
    assert model.center_selection.y_centers is not None
    assert float(model.center_selection.y_centers.sum()) == N_CENTRES * N_DATA / (N_REF + N_DATA)
    torch.testing.assert_close(model.center_selection.centers, sample.basis.centres)
    assert test.evaluations == 2  # one gradient, one product with the Hessian


def test_repeated_penalties_and_device_are_passed_on(
    sample: Sample, models: list[_LogisticFalkon]
) -> None:
    config = FalkonConfig(LAM, newton_steps=4, cg_tolerance=1e-7, cg_iterations=50)
    test = sample.falkon(config, device="cuda").test(sample.window)
    (model,) = models
    assert model.penalty_list == [LAM] * 4
    assert model.iter_list == [50] * 4
    assert model.options.cg_tolerance == 1e-7
    assert model.options.use_cpu is False
    assert test.evaluations == 8


@pytest.mark.usefixtures("models")
def test_what_falkon_prints_goes_to_the_log(
    sample: Sample, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="engines.nplm.falkon")
    sample.falkon(FalkonConfig(LAM)).test(sample.window)
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in caplog.records] == ["falkon: Iteration 0"]


@pytest.mark.usefixtures("models")
def test_threads_are_falkons_for_the_fit_alone(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fit = _LogisticFalkon.fit

    def spy(self: _LogisticFalkon, x: torch.Tensor, y: torch.Tensor) -> _LogisticFalkon:
        seen.append(torch.get_num_threads())
        return fit(self, x, y)

    monkeypatch.setattr(_LogisticFalkon, "fit", spy)
    before = torch.get_num_threads()
    sample.falkon(FalkonConfig(LAM), threads=before + 1).test(sample.window)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_float32_is_refused_unless_asked_for() -> None:
    with pytest.raises(ParameterError, match=r"dtype must be torch\.float64.*got torch\.float32"):
        FalkonConfig(dtype=torch.float32)


def test_float32_asked_for_has_its_own_jitter(
    sample: Sample, models: list[_LogisticFalkon]
) -> None:
    config = FalkonConfig(LAM, dtype=torch.float32, allow_float32=True, newton_steps=12)
    fit = sample.falkon(config).fit(sample.window)
    assert fit.jitter == 1e-5
    assert models[0].center_selection.centers.dtype == torch.float32
    double = sample.falkon(CONVERGED).test(sample.window)
    assert abs(sample.falkon(config).judge(fit).t[0] - double.t[0]) > 1


@pytest.mark.parametrize("name", ["lam", "newton_steps", "cg_tolerance", "cg_iterations"])
@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_options_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=f"{name} must be a finite number above zero; got"):
        FalkonConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.usefixtures("models")
def test_windows_that_cannot_be_tested_are_refused(sample: Sample) -> None:
    reference = sample.falkon(FalkonConfig(LAM))
    with pytest.raises(SampleSizeError, match="at least one event"):
        reference.test(sample.window[:0])
    with pytest.raises(EngineError, match=r"must have shape \(n, 4\); got \(500, 3\)"):
        reference.test(sample.window[:, :3])
    broken = sample.window.copy()
    broken[3, 1] = np.nan
    with pytest.raises(EngineError, match="must be finite"):
        reference.test(broken)


@pytest.mark.usefixtures("models")
def test_a_fit_that_is_not_finite_is_an_error(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(self: _LogisticFalkon, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 1), torch.nan, dtype=torch.float64)

    monkeypatch.setattr(_LogisticFalkon, "predict", nothing)
    with pytest.raises(TrainingError, match="Falkon's fit must be finite"):
        sample.falkon(FalkonConfig(LAM)).test(sample.window)


@pytest.mark.usefixtures("models")
def test_a_falkon_that_imports_is_available() -> None:
    assert is_available()


def test_without_falkon_one_sentence_says_where_it_comes_from(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "falkon", None)  # import then fails
    assert not is_available()
    with pytest.raises(
        MissingPackageError, match=r"github\.com/FalkonML/falkon.*compiler.*torch 2\.7"
    ):
        sample.falkon(FalkonConfig(LAM))


@pytest.mark.skipif(
    importlib.util.find_spec("falkon") is None, reason="Falkon is not installed here"
)
def test_real_falkon_run_to_convergence_agrees_with_the_oracle(sample: Sample) -> None:
    """Falkon itself, with NPLM-FLK's one step and with four."""
    t = sample.oracle(sample.window)
    converged = sample.falkon(FalkonConfig(LAM, newton_steps=6, cg_tolerance=1e-9))
    assert converged.test(sample.window).t == pytest.approx([t], abs=1e-2)
    once = sample.falkon(FalkonConfig(LAM)).test(sample.window)
    assert abs(once.t_converged - t) < abs(once.t[0] - t)
