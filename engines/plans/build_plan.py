"""An ONNX encoder compiled to a `.plan`, and compared with ONNX Runtime before it is kept."""

import logging
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines.artifact import check_writable, load_onnx, utc_now, versions
from engines.engine import Engine
from engines.errors import ArtifactError, MissingPackageError
from engines.onnx_engine import OnnxEngine
from engines.plans.compile_plan import Batches, Compiler, target_capabilities
from engines.plans.plan_comparison import Candidate, Comparison, find_reference
from engines.plans.plan_file import PlanFacts, write_plan
from engines.plans.precision import Precision, with_precision
from engines.plans.tensorrt_api import TensorRT, gpu_capability, load_tensorrt

__all__ = ["BuildConfig", "build_plan"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildConfig:
    """How a plan is built.

    Attributes:
        precision: of the matrix products.
        batches: sizes of the profile.
        flavour: tensorrt or tensorrt_rtx; None takes what is installed and can compile here.
        capabilities: compute capabilities to compile for; none takes `target_capabilities`' own.
        timing_cache: file of the builder's timings, which tensorrt_rtx does not take; None takes
            `d4.plan.cache` beside `d4.plan`.
        reference: `.ref` to compare Z with; None takes the one beside the plan or the encoder, if
            it is there.
        comparison: with ONNX Runtime.
    """

    precision: Precision = "fp32"
    batches: Batches = field(default_factory=Batches)
    flavour: str | None = None
    capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None
    reference: Path | None = None
    comparison: Comparison = field(default_factory=Comparison)


def build_plan(path: Path, output: Path, config: BuildConfig) -> PlanFacts:
    """Compile an encoder and write the plan, if its embeddings are ONNX Runtime's.

    Args:
        path: the ONNX file.
        output: the plan; it appears only if the comparison allows it.
        config: how.

    Returns:
        What the plan says about itself.

    Raises:
        ArtifactError: on a damaged encoder, one that TensorRT cannot parse, or a wrong output.
        MismatchError: on a reference made with another encoder.
        EngineUnavailableError: if TensorRT cannot compile here.
        EngineError: if it fails to.
        ParityError: if embeddings, t or Z are too far from ONNX Runtime's.
    """
    if output.suffix != ".plan":
        msg = f"the output must end in .plan, by which engines are opened; got {output}"
        raise ArtifactError(msg)
    check_writable(output)
    threads = config.comparison.threads
    with OnnxEngine(path, threads=threads) as expected:
        beside = (output.with_suffix(".ref"), path.with_suffix(".ref"))
        reference = find_reference(config.reference, beside, expected, threads)
        samples = config.comparison.samples(reference)
        typed = with_precision(load_onnx(path), config.precision)
        api = _choose_api(config.flavour)
        capabilities = target_capabilities(api, config.capabilities)
        compiler = Compiler(api, config.precision)
        compiler.parse(typed, path.name)
        engine = compiler.compile(config.batches, capabilities, _timing_cache(api, output, config))
        facts = _facts(path, expected, api, capabilities, config)
        candidate = Candidate(facts, engine, typed, output)
        differences = config.comparison.run(candidate, expected, samples, reference)
    return write_plan(output, replace(facts, differences=differences), engine)


def _choose_api(flavour: str | None) -> TensorRT:
    """Return the TensorRT asked for; else, without a GPU, first the one that needs none."""
    if flavour is None and gpu_capability() is None:
        try:
            return load_tensorrt("tensorrt_rtx")
        except MissingPackageError:
            _LOG.debug("no tensorrt_rtx to compile with ahead of time")
    return load_tensorrt(flavour)


def _timing_cache(api: TensorRT, output: Path, config: BuildConfig) -> Path | None:
    if not api.is_rtx:
        return config.timing_cache or output.with_name(f"{output.name}.cache")
    if config.timing_cache is not None:
        _LOG.warning("%s has no timing cache: %s is not used", api.name, config.timing_cache)
    return None


def _facts(
    path: Path,
    expected: Engine,
    api: TensorRT,
    capabilities: tuple[str, ...],
    config: BuildConfig,
) -> PlanFacts:
    return PlanFacts(
        fingerprint=expected.fingerprint,
        dim=expected.dim,
        precision=config.precision,
        flavour=api.flavour,
        version=api.version,
        compute_capabilities=capabilities,
        min_batch=1,
        opt_batch=config.batches.best,
        max_batch=config.batches.maximum,
        onnx=path.name,
        engine=expected.facts,
        versions=versions("onnx", "onnxruntime", "torch", "numpy"),
        system=f"{platform.system()} {platform.machine()}",
        created=utc_now(),
    )
