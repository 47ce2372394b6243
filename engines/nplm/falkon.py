"""The NPLM test by Falkon, which the published analyses used: a backend to compare with.

Falkon's LogisticFalkon minimises, over all n = n_ref + n_data events,

    L = (1/n) [ sum_D softplus(-f) + w sum_R softplus(f) ]
        + (lam/2) alpha^T (K + eps n_centres I) alpha

by Newton steps from alpha = 0, each solved by conjugate gradients that recompute the kernel in
every iteration. NPLM-FLK asks for one step, so t stops short of its converged value; `FalkonTest`
says by how much. eps belongs to the penalty and depends on the precision: 1e-13 in float64, as in
`basis`, and 1e-5 in float32, which is another statistic.

Falkon is on no package index, hence never a dependency: it is imported where it is used.

Sources: github.com/FalkonML/falkon 0.9.0; github.com/GaiaGrosso/NPLM-FLK (FLKutils.py, toy.py), the
options of arXiv:2204.02317 and 2502.15926.
"""

import contextlib
import importlib
import io
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from engines.errors import (
    EngineError,
    MissingPackageError,
    ParameterError,
    SampleSizeError,
    TrainingError,
)
from engines.nplm.basis import Basis
from engines.nplm.newton import Events, newton_step
from engines.nplm.statistic import statistic_from_log_ratio
from engines.nplm.tested_window import WindowTest
from engines.types import FloatArray

__all__ = ["FalkonConfig", "FalkonFit", "FalkonReference", "FalkonTest", "is_available"]

_log = logging.getLogger(__name__)


def is_available() -> bool:
    """Whether Falkon can be imported here."""
    try:
        _load()
    except MissingPackageError:
        return False
    return True


def _load() -> ModuleType:
    try:
        return importlib.import_module("falkon")
    except (ImportError, OSError) as exc:  # OSError: compiled against another torch
        msg = (
            f"Falkon must be importable for this comparison; got {exc}; build it from "
            "github.com/FalkonML/falkon (git and a C++ compiler; ready wheels stop at torch 2.7), "
            "or go without it: no other part needs it"
        )
        raise MissingPackageError(msg) from exc


@dataclass(frozen=True)
class FalkonConfig:
    """How Falkon is run; the defaults are NPLM-FLK's.

    Attributes:
        lam: ridge parameter, Falkon's penalty.
        newton_steps: entries of the penalty list, all equal; 1 as in NPLM-FLK. Four with a
            `cg_tolerance` of 1e-7 converge.
        cg_tolerance: absolute residual at which conjugate gradients stop.
        cg_iterations: most iterations of one Newton step.
        dtype: float64; float32 changes the penalty.
        allow_float32: take float32 all the same, never to be mixed with float64 in a calibration.
    """

    lam: float = 1e-6
    newton_steps: int = 1
    cg_tolerance: float = math.sqrt(1e-7)
    cg_iterations: int = 1_000_000
    dtype: torch.dtype = torch.float64
    allow_float32: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        positive = {
            "lam": self.lam,
            "newton_steps": self.newton_steps,
            "cg_tolerance": self.cg_tolerance,
            "cg_iterations": self.cg_iterations,
        }
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                msg = f"{name} must be a finite number above zero; got {value}"
                raise ParameterError(msg)
        known = (torch.float64, torch.float32) if self.allow_float32 else (torch.float64,)
        if self.dtype not in known:
            msg = (
                f"dtype must be torch.float64, whose jitter of 1e-13 is this package's; got "
                f"{self.dtype}; Falkon's float32 has a jitter of 1e-5 and is another statistic, "
                "computed only with allow_float32=True"
            )
            raise ParameterError(msg)


@dataclass(frozen=True)
class FalkonFit:
    """Where Falkon stopped.

    Attributes:
        data: (n_data, d) standardised window, float64.
        alpha: (n_centres,) float64 coefficients.
        f_data, f_ref: (n_data,) and (n_ref,) float64 log density ratio, as Falkon predicts it.
        jitter: eps of Falkon's penalty.
        evaluations: passes over all events: one a Newton step, one a conjugate gradient iteration.
    """

    data: torch.Tensor
    alpha: torch.Tensor
    f_data: torch.Tensor
    f_ref: torch.Tensor
    jitter: float
    evaluations: int


@dataclass(frozen=True)
class FalkonTest(WindowTest):
    """The result of one test, and what convergence would have made of it.

    Attributes:
        t_converged: t after one further, exact Newton step in the coordinates of the basis. Newton
            converges quadratically, so near the minimum this is the converged t.
    """

    t_converged: float


class FalkonReference:
    """A reference sample to compare windows with by Falkon, on the centres of a basis.

    Args:
        basis: standardisation, centres, and the coordinates of `gradient_squared`.
        embeddings: (n_ref, d) float32 reference sample.
        n_expected: events expected in a window under the null, N(R).
        config: Falkon's options.
        width: which of the basis's kernel widths.
        device: "cpu" keeps Falkon off the GPU; with "cuda" it chooses itself what runs there.
        threads: CPU threads of its fits.

    Raises:
        MissingPackageError: if Falkon cannot be imported.
        EngineError: if embeddings are not finite, or not (n, d).
    """

    def __init__(
        self,
        basis: Basis,
        embeddings: FloatArray,
        n_expected: float,
        config: FalkonConfig | None = None,
        *,
        width: int = 0,
        device: str | torch.device = "cpu",
        threads: int = 1,
    ) -> None:
        """Standardise the reference once."""
        self._falkon = _load()
        self.basis = basis.to("cpu")
        self.embeddings = embeddings
        self.n_expected = n_expected
        self.config = config or FalkonConfig()
        self.device = torch.device(device)
        self.threads = threads
        self.width = self.basis.widths[width]
        self._reference = self._standardise(embeddings)

    @property
    def n_ref(self) -> int:
        """Events in the reference sample."""
        return len(self.embeddings)

    @property
    def weight(self) -> float:
        """Weight of a reference event, w = N(R) / n_ref."""
        return self.n_expected / self.n_ref

    def test(self, embeddings: FloatArray) -> FalkonTest:
        """Compare one window, (n_data, d), with the reference.

        Raises:
            SampleSizeError: if the window is empty.
            EngineError: if embeddings are not finite, or not (n, d).
            TrainingError: if Falkon's fit is not finite.
        """
        return self.judge(self.fit(embeddings))

    def fit(self, embeddings: FloatArray) -> FalkonFit:
        """Run Falkon on one window, (n_data, d): what NPLM-FLK times. Raises as `test` does."""
        if len(embeddings) == 0:
            msg = "a window must hold at least one event to be tested; got none"
            raise SampleSizeError(msg)
        data = self._standardise(embeddings)
        events = torch.cat([self._reference, data]).to(self.config.dtype)
        labels = torch.zeros((len(events), 1), dtype=events.dtype)
        labels[self.n_ref :] = 1.0
        options = self._falkon.FalkonOptions(
            cg_tolerance=self.config.cg_tolerance,
            keops_active="no",
            use_cpu=self.device.type == "cpu",
            debug=False,
        )
        model, passes = self._model(options, n_data=len(data))
        with _printing_to_log(), _torch_threads(self.threads):
            model.fit(events, labels)
            f = model.predict(events).reshape(-1).double()
        if not bool(f.isfinite().all()):
            msg = (
                "Falkon's fit must be finite; got values that are not, as its Newton steps have no "
                "line search; test so strong a signal with this package's own solver"
            )
            raise TrainingError(msg)
        return FalkonFit(
            data=data,
            alpha=model.alpha_.reshape(-1).double().cpu(),
            f_data=f[self.n_ref :],
            f_ref=f[: self.n_ref],
            jitter=options.pc_epsilon(self.config.dtype),
            evaluations=passes(),
        )

    def judge(self, fit: FalkonFit) -> FalkonTest:
        """Return t of a fit and how far from converged it stopped."""
        samples = (
            Events(fit.data, fit.f_data, weight=1.0, label=1.0),
            Events(self._reference, fit.f_ref, weight=self.weight, label=0.0),
        )
        after = newton_step(
            samples,
            fit.alpha,
            self.basis.centres,
            self.width,
            jitter=fit.jitter,
            ridge_scale=self.config.lam * (self.n_ref + len(fit.data)),
        )
        f_data, f_ref = after.f
        return FalkonTest(
            t=np.array([float(statistic_from_log_ratio(fit.f_data, fit.f_ref, self.weight))]),
            log_ratios=lambda: np.asarray(fit.f_data.numpy()[None]),
            gradient_squared=after.gradient_squared,
            evaluations=fit.evaluations,
            t_converged=float(statistic_from_log_ratio(f_data, f_ref, self.weight)),
        )

    def _model(self, options: Any, *, n_data: int) -> tuple[Any, Callable[[], int]]:  # noqa: ANN401
        """Return NPLM-FLK's model on fixed centres, and what counts its passes over the events."""
        falkon, config = self._falkon, self.config
        centres = self.basis.centres.to(config.dtype)
        # The centres' labels weight the preconditioner only. Centres drawn from all events, as
        # NPLM-FLK draws them, would be data in this proportion.
        labels = torch.zeros((len(centres), 1), dtype=config.dtype)
        labels[: round(len(centres) * n_data / (self.n_ref + n_data))] = 1.0
        loss = falkon.gsc_losses.WeightedCrossEntropyLoss(
            kernel=falkon.kernels.GaussianKernel(sigma=self.width.sigma), neg_weight=self.weight
        )
        counters = [_Counter(loss.knmp_grad), _Counter(loss.knmp_hess)]
        loss.knmp_grad, loss.knmp_hess = counters
        model = falkon.LogisticFalkon(
            kernel=falkon.kernels.GaussianKernel(sigma=self.width.sigma),
            M=len(centres),
            penalty_list=[config.lam] * config.newton_steps,
            iter_list=[config.cg_iterations] * config.newton_steps,
            options=options,
            loss=loss,
            center_selection=falkon.center_selection.FixedSelector(centres, y_centers=labels),
        )
        return model, lambda: sum(counter.calls for counter in counters)

    def _standardise(self, embeddings: FloatArray) -> torch.Tensor:
        dim = self.basis.dim
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            msg = f"embeddings must have shape (n, {dim}); got {embeddings.shape}"
            raise EngineError(msg)
        if not np.isfinite(embeddings).all():
            msg = "embeddings must be finite; drop the events that are not"
            raise EngineError(msg)
        x = torch.from_numpy(np.array(embeddings, dtype=np.float64))
        return (x - self.basis.mean) / self.basis.std


class _Counter:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        self.calls += 1
        return self._function(*args, **options)


@contextlib.contextmanager
def _printing_to_log() -> Iterator[None]:
    """Falkon prints at every Newton step: let the log have it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    for line in printed.getvalue().splitlines():
        _log.debug("falkon: %s", line)


@contextlib.contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
