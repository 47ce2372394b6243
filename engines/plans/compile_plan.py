"""A typed ONNX graph compiled by TensorRT: parser, batch profile, builder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import ArtifactError, EngineError, EngineUnavailableError, ParameterError
from engines.events import N_FEATURES, N_OBJECTS
from engines.plans.build_progress import BuildProgress, monitor_of
from engines.plans.tensorrt_api import TensorRT, gpu_capability
from engines.progress import Progress

if TYPE_CHECKING:
    import onnx

    from engines.plans.precision import Precision

__all__ = ["Batches", "Compiler", "target_capabilities"]

_LOG = logging.getLogger(__name__)
#: TensorRT-RTX cannot multiply fp32 matrices there.
_TURING = "7.5"


@dataclass(frozen=True)
class Batches:
    """The one profile of a plan: it runs 1 to `maximum` events at once, `best` fastest."""

    best: int = 256
    maximum: int = 4096

    def __post_init__(self) -> None:
        """Refuse sizes out of order.

        Raises:
            ParameterError: unless 1 <= best <= maximum.
        """
        if not 1 <= self.best <= self.maximum:
            msg = (
                f"batches must satisfy 1 <= opt <= max; got {self.best} and {self.maximum}; change "
                "--opt-batch or --max-batch"
            )
            raise ParameterError(msg)


def target_capabilities(api: TensorRT, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the compute capabilities of the GPUs to compile for, such as 8.9.

    Args:
        api: tensorrt compiles for the GPU that is there; tensorrt_rtx for any that it knows.
        wanted: by the user; without any, this machine's GPU, or all there are.

    Raises:
        EngineUnavailableError: if the flavour needs a GPU and there is none, or does not know it.
        ParameterError: if the flavour cannot compile for those wanted.
    """
    here = gpu_capability()
    if not api.is_rtx:
        if here is None or wanted not in ((), (here,)):
            got = f"a wish for {', '.join(wanted)}" if here else "no GPU here"
            msg = (
                f"tensorrt must compile on the GPU that runs the plan; got {got}; build it there, "
                "or ahead of time with --tensorrt tensorrt_rtx"
            )
            raise EngineUnavailableError(msg)
        return (here,)
    known = _known_capabilities(api)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        msg = (
            f"compute capabilities must be of {', '.join(known)} for {api.name}; got "
            f"{', '.join(unknown)}; build for another GPU on it, with --tensorrt tensorrt"
        )
        raise ParameterError(msg)
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if here is None:
        return tuple(name for name in known if name != _TURING)
    if here not in known:
        msg = (
            f"the GPU must have compute capability {' or '.join(known)} for {api.name}; got {here};"
            " use --tensorrt tensorrt, or name others with --compute-capability"
        )
        raise EngineUnavailableError(msg)
    return (here,)


def _known_capabilities(api: TensorRT) -> list[str]:
    names = api.module.ComputeCapability.__members__
    digits = sorted(int(name[2:]) for name in names if name.startswith("SM"))
    return [f"{number // 10}.{number % 10}" for number in digits]


class Compiler:
    """One compilation: `parse`, look at the network if you like, then `compile`.

    Args:
        api: the TensorRT to use.
        precision: that the graph was rewritten to.

    Raises:
        EngineUnavailableError: if TensorRT does not start here.
    """

    def __init__(self, api: TensorRT, precision: "Precision") -> None:
        """Start a builder with an empty, strongly typed network."""
        self._api, self._precision = api, precision
        self._logger = _logger_of(api)
        try:
            self._builder = api.module.Builder(self._logger)
        except (TypeError, RuntimeError) as exc:  # TypeError: how the bindings say a null pointer
            msg = (
                f"{api.name} must find a GPU and a driver that it supports; got "
                f"{self._logger.said() or exc}; update the driver"
            )
            raise EngineUnavailableError(msg) from exc
        # All networks are strongly typed where the flag is gone.
        typed = getattr(api.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        flags = 0 if typed is None else 1 << int(typed)
        self.network: Any = self._builder.create_network(flags)

    def parse(self, model: "onnx.ModelProto", name: str) -> None:
        """Fill the network.

        Args:
            model: with the casts that the precision asks for.
            name: of its file.

        Raises:
            ArtifactError: with every error of TensorRT's parser.
        """
        parser = self._api.module.OnnxParser(self.network, self._logger)
        if not parser.parse(model.SerializeToString()):
            errors = (parser.get_error(index) for index in range(parser.num_errors))
            said = "; ".join(_parser_error(error) for error in errors)
            msg = f"{name} must be a graph that {self._api.name} can compile; got {said}"
            raise ArtifactError(msg)

    def compile(
        self, batches: Batches, capabilities: tuple[str, ...], timing_cache: Path | None = None
    ) -> bytes:
        """Return the serialised engine.

        Args:
            batches: sizes of the profile.
            capabilities: as `target_capabilities` gave them.
            timing_cache: file of earlier timings, read if it is there, then written.

        Raises:
            EngineError: if the builder fails, with what it said.
        """
        config = self._builder.create_builder_config()
        profile = self._builder.create_optimization_profile()
        shapes = [(n, N_OBJECTS, N_FEATURES) for n in (1, batches.best, batches.maximum)]
        profile.set_shape(self.network.get_input(0).name, *shapes)
        config.add_optimization_profile(profile)
        self._set_tf32(config)
        if self._api.is_rtx:
            config.num_compute_capabilities = len(capabilities)
            for index, name in enumerate(capabilities):
                target = getattr(self._api.module.ComputeCapability, f"SM{name.replace('.', '')}")
                config.set_compute_capability(target, index)
        elif timing_cache is not None:
            self._read_cache(config, timing_cache)
        progress = BuildProgress(Progress(1000, "compiling"))
        config.progress_monitor = monitor = monitor_of(self._api.module, progress)
        engine = self._builder.build_serialized_network(self.network, config)
        progress.close()
        if monitor.interrupted:
            raise KeyboardInterrupt
        if engine is None:
            msg = (
                f"{self._api.name} must be able to compile the network for compute capability "
                f"{', '.join(capabilities)}; got {self._logger.said() or 'no reason'}; choose "
                "another --precision or --compute-capability"
            )
            raise EngineError(msg)
        if not self._api.is_rtx and timing_cache is not None:
            _write(timing_cache, bytes(config.get_timing_cache().serialize()))
        return bytes(engine)

    def _set_tf32(self, config: Any) -> None:  # noqa: ANN401 - TensorRT has no types
        """Set or clear TF32, which TensorRT allows unless it is told otherwise."""
        flag = getattr(self._api.module.BuilderFlag, "TF32", None)
        if flag is None and self._precision == "tf32":
            msg = f"precision must be fp32, fp16 or bf16 for {self._api.name}; got tf32"
            raise ParameterError(msg)
        if flag is not None:
            (config.set_flag if self._precision == "tf32" else config.clear_flag)(flag)

    def _read_cache(self, config: Any, path: Path) -> None:  # noqa: ANN401 - TensorRT has no types
        content = path.read_bytes() if path.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(content), False):
            _LOG.warning("%s holds timings of another GPU or TensorRT; starting afresh", path)
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as exc:
        _LOG.warning("the timing cache %s was not kept (%s)", path, exc.strerror)
        temporary.unlink(missing_ok=True)


def _parser_error(error: Any) -> str:  # noqa: ANN401 - TensorRT has no types
    where = f"{error.node_operator()} {error.node_name()}".strip()
    return f"{where}: {' '.join(error.desc().split())}" if where else error.desc()


def _logger_of(api: TensorRT) -> Any:  # noqa: ANN401 - TensorRT has no types
    """Return a logger that keeps errors for the sentence about them and logs the rest."""
    base: Any = api.module.ILogger
    levels = {base.WARNING: logging.WARNING, base.INFO: logging.DEBUG}

    class Logger(base):  # type: ignore[misc] # known at run time only
        def __init__(self) -> None:
            base.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: object, message: str) -> None:
            if severity in (base.ERROR, base.INTERNAL_ERROR):
                self._errors.append(" ".join(message.split()))
            elif severity in levels:
                _LOG.log(levels[severity], "%s", message)

        def said(self) -> str:
            return "; ".join(dict.fromkeys(self._errors))

    return Logger()
