"""Compiling and comparing: what is asked of TensorRT, what is refused and how it is said."""

import importlib
import io
import logging
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.artifact import EngineFacts, load_onnx
from engines.errors import (
    ArtifactError,
    EngineError,
    EngineUnavailableError,
    MissingPackageError,
    ParameterError,
    ParityError,
    SampleSizeError,
)
from engines.events import EventRange
from engines.plans import compile_plan, plan_comparison
from engines.plans.build_plan import BuildConfig, build_plan
from engines.plans.build_progress import BuildProgress
from engines.plans.compile_plan import Batches, Compiler, target_capabilities
from engines.plans.embedding_check import (
    SampleEmbeddings,
    ZShift,
    compare_embeddings,
    compare_z,
    refuse_shifts,
)
from engines.plans.plan_comparison import Candidate, Comparison
from engines.plans.plan_file import PlanFacts
from engines.plans.precision import Precision, with_precision
from engines.plans.tensorrt_api import TensorRT, load_tensorrt
from engines.pretrained import pretrained_path
from engines.progress import Progress
from engines.samples import sample_path
from engines.types import FloatArray
from tests.support import LinearEngine, gaussians, small_artifact

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx compiles without a GPU; it is missing")


@pytest.fixture(scope="module")
def api() -> TensorRT:
    return load_tensorrt("tensorrt_rtx")


def test_flavour_asked_for_is_imported_and_says_its_version(api: TensorRT) -> None:
    assert (api.flavour, api.is_rtx) == ("tensorrt_rtx", True)
    assert api.name == f"tensorrt_rtx {api.module.__version__}"


def test_flavour_must_be_known() -> None:
    with pytest.raises(ParameterError, match="must be one of tensorrt, tensorrt_rtx; got 'trt'"):
        load_tensorrt("trt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (RuntimeError("a placeholder\nof many lines"), r"no tensorrt \(a placeholder\)"),
        ({}, "tensorrt without a builder"),
        ({"Builder": 1, "__version__": "8.6.1"}, "tensorrt 8.6.1, which is older than 10"),
    ],
)
def test_placeholders_and_old_versions_count_as_missing(
    content: Exception | dict[str, object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_name: str) -> object:
        if isinstance(content, Exception):
            raise content
        return SimpleNamespace(**content)

    monkeypatch.setattr(importlib, "import_module", find)
    with pytest.raises(MissingPackageError, match=f"{reason}; pip install .*gpu.* or .*gpu-rtx"):
        load_tensorrt("tensorrt")


def gpu(monkeypatch: pytest.MonkeyPatch, capability: str | None) -> None:
    for module in (compile_plan, plan_comparison):
        monkeypatch.setattr(module, "gpu_capability", lambda: capability)


def test_rtx_compiles_for_this_gpu_or_all_that_it_can(
    api: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, None)
    everything = target_capabilities(api)
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(everything)
    assert "7.5" not in everything
    assert target_capabilities(api, ("8.9", "8.6", "8.9")) == ("8.9", "8.6")
    gpu(monkeypatch, "8.6")
    assert target_capabilities(api) == ("8.6",)


def test_gpus_that_a_flavour_cannot_compile_for_are_refused(
    api: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, "9.0")
    with pytest.raises(EngineUnavailableError, match=r"got 9\.0; use --tensorrt tensorrt"):
        target_capabilities(api)
    with pytest.raises(ParameterError, match=r"of 7\.5, 8\.0, .*; got 9\.0; build for another GPU"):
        target_capabilities(api, ("8.6", "9.0"))
    tensorrt = TensorRT(api.module, "tensorrt", "10.9.0")
    assert target_capabilities(tensorrt) == ("9.0",)
    with pytest.raises(EngineUnavailableError, match=r"got a wish for 8\.6; build it there"):
        target_capabilities(tensorrt, ("8.6",))
    gpu(monkeypatch, None)
    with pytest.raises(
        EngineUnavailableError, match=r"got no GPU here; .* --tensorrt tensorrt_rtx"
    ):
        target_capabilities(tensorrt)


@pytest.mark.parametrize(("best", "maximum"), [(0, 1), (10, 9)])
def test_batches_out_of_order_are_refused(best: int, maximum: int) -> None:
    with pytest.raises(ParameterError, match="1 <= opt <= max; got"):
        Batches(best, maximum)


def test_every_error_of_the_parser_is_said_once(api: TensorRT) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="first"),
        helper.make_node("MelWeightMatrix", ["d"] * 5, ["y"], name="second"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ArtifactError) as caught:
        Compiler(api, "fp32").parse(model, "d4.onnx")
    said = str(caught.value)
    assert said.startswith(f"d4.onnx must be a graph that {api.name} can compile; got Det first: ")
    assert "\n" not in said


def test_builder_that_fails_says_why(api: TensorRT) -> None:
    compiler = Compiler(api, "fp32")
    compiler.parse(load_onnx(pretrained_path("d4")), "d4.onnx")
    with pytest.raises(EngineError, match=r"compute capability 7\.5; got .*FP32 GEMM"):
        compiler.compile(Batches(), ("7.5",))


class FakeConfig:
    """A config of `tensorrt` that notes what it is asked."""

    def __init__(self, cache_fits: bool) -> None:
        self.asked: list[tuple[str, object]] = []
        self.progress_monitor: object = None
        self._fits, self._cache = cache_fits, b""

    def add_optimization_profile(self, profile: Any) -> None:  # noqa: ANN401
        self.asked.append(("profile", profile.shapes))

    def set_flag(self, flag: str) -> None:
        self.asked.append(("set", flag))

    def clear_flag(self, flag: str) -> None:
        self.asked.append(("clear", flag))

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = cache
        return self._fits or not cache

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self._cache + b"+timings")


def fake_tensorrt(config: FakeConfig, *, has_flags: bool = True) -> TensorRT:
    """Return a `tensorrt` with just what the compiler asks for, as of 10 or, flagless, later."""

    class Profile:
        def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
            self.shapes = (name, *shapes)

    class Builder:
        def __init__(self, _logger: object) -> None:
            self.create_builder_config = lambda: config
            self.create_optimization_profile = Profile

        def create_network(self, flags: int) -> SimpleNamespace:
            config.asked.append(("network", flags))
            return SimpleNamespace(get_input=lambda _: SimpleNamespace(name="particles"))

        def build_serialized_network(self, _network: object, _config: FakeConfig) -> bytes:
            return b"engine"

    module = ModuleType("tensorrt")
    names: dict[str, Any] = {
        "Builder": Builder,
        "ILogger": type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0, "WARNING": 2, "INFO": 3}),
        "IProgressMonitor": type("IProgressMonitor", (), {}),
        "BuilderFlag": SimpleNamespace(**({"TF32": "TF32"} if has_flags else {})),
        "NetworkDefinitionCreationFlag": SimpleNamespace(
            **({"STRONGLY_TYPED": 1} if has_flags else {})
        ),
    }
    for name, value in names.items():
        setattr(module, name, value)
    return TensorRT(module, "tensorrt", "10.9.0")


@pytest.mark.parametrize(
    ("precision", "asked"), [("fp32", "clear"), ("tf32", "set"), ("fp16", "clear")]
)
def test_tf32_is_allowed_only_where_it_is_asked_for(precision: Precision, asked: str) -> None:
    config = FakeConfig(cache_fits=True)
    compiler = Compiler(fake_tensorrt(config), precision)
    assert compiler.compile(Batches(8, 64), ("9.0",)) == b"engine"
    shapes = ("particles", (1, 19, 3), (8, 19, 3), (64, 19, 3))
    assert config.asked == [("network", 2), ("profile", shapes), (asked, "TF32")]


def test_tensorrt_without_the_flags_is_typed_anyway_and_refuses_tf32() -> None:
    config = FakeConfig(cache_fits=True)
    later = fake_tensorrt(config, has_flags=False)
    Compiler(later, "fp32").compile(Batches(), ("9.0",))
    assert config.asked[0] == ("network", 0)
    with pytest.raises(ParameterError, match=r"fp16 or bf16 for tensorrt 10\.9\.0; got tf32"):
        Compiler(later, "tf32").compile(Batches(), ("9.0",))


def test_timings_are_read_and_written_beside_the_plan(tmp_path: Path) -> None:
    cache = tmp_path / "d4.plan.cache"
    for expected in (b"+timings", b"+timings+timings"):
        compiler = Compiler(fake_tensorrt(FakeConfig(cache_fits=True)), "fp32")
        compiler.compile(Batches(), ("9.0",), cache)
        assert cache.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [cache]


def test_timings_of_another_gpu_are_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "d4.plan.cache"
    cache.write_bytes(b"of another GPU")
    Compiler(fake_tensorrt(FakeConfig(cache_fits=False)), "fp32").compile(
        Batches(), ("9.0",), cache
    )
    assert cache.read_bytes() == b"+timings"
    assert "holds timings of another GPU" in caplog.text


def test_phases_within_phases_add_up_to_one_bar() -> None:
    out = io.StringIO()
    shown = Progress(1000, "compiling", stream=out, every_s=0.0)
    progress = BuildProgress(shown)
    progress.start("Building", None, 2)
    progress.start("Timing", "Building", 4)
    progress.step("Timing", 1)
    progress.finish("Timing")
    progress.step("Building", 0)
    progress.step("Unknown", 0)
    progress.close()
    done = [line.split("/")[0] for line in out.getvalue().splitlines()]
    assert done == ["compiling: 250", "compiling: 500", "compiling: 1000"]
    assert out.getvalue().splitlines()[0].endswith("| timing")


def test_embeddings_off_by_more_than_the_bound_are_refused() -> None:
    expected = gaussians(500, np.random.default_rng(0))
    got = expected + np.float32(0.01) * expected.std(axis=0)
    shift = compare_embeddings(expected, got, 0.02, "the plan", "advice")
    assert (shift.largest, shift.rms) == pytest.approx((0.01, 0.01), rel=1e-3)
    got[7, 2] += 1
    with pytest.raises(ParityError, match=r"within 0\.02 of .*; the plan gave .* for event 7; adv"):
        compare_embeddings(expected, got, 0.02, "the plan", "advice")
    got[7, 2] = np.nan
    with pytest.raises(ParityError, match="the plan gave nan for event 7"):
        compare_embeddings(expected, got, 0.02, "the plan", "advice")


def test_constant_coordinate_is_compared_as_it_is() -> None:
    expected = np.ones((10, 2), np.float32)
    assert compare_embeddings(expected, expected, 1e-9, "it", "no").largest == 0.0


def samples(n_events: int, factor: float = 1.0) -> SampleEmbeddings:
    rng = np.random.default_rng(5)
    background, signal = gaussians(n_events, rng), gaussians(200, rng) * np.float32(0.1) + 4
    return SampleEmbeddings(background * np.float32(factor), signal * np.float32(factor))


def test_same_embeddings_shift_nothing_and_signal_is_seen() -> None:
    artifact = small_artifact()
    shifts = compare_z(artifact, samples(900), samples(900))
    names = [shift.window for shift in shifts]
    assert names[:4] == [f"events {i} to {i + 200}" for i in (0, 200, 400, 600)]
    assert names[4] == "the last of them with 14 signal events"
    assert max(abs(shift.dt) for shift in shifts) < 1e-3
    assert shifts[-1].z > 5.0
    refuse_shifts(shifts, 0.1, 0.1, "advice")


def test_sample_of_less_than_three_windows_is_drawn_from_and_says_so() -> None:
    shifts = compare_z(small_artifact(), samples(500), samples(500))
    drawn = [f"draw {i}, of events that the other draws share" for i in (1, 2, 3)]
    assert [shift.window for shift in shifts[:3]] == drawn


def test_sample_of_less_than_a_window_is_refused() -> None:
    with pytest.raises(SampleSizeError, match=r"200 events, to compare Z; got 150; give more"):
        compare_z(small_artifact(), samples(150), samples(150))


def test_shifts_that_matter_are_refused_by_window() -> None:
    shifts = compare_z(small_artifact(), samples(900), samples(900, factor=1.2))
    with pytest.raises(ParityError, match=r"got more in .*events 200 to 400 \(t \+.*; advice$"):
        refuse_shifts(shifts, 0.1, 0.1, "advice")


def test_signal_window_is_bound_by_z_alone() -> None:
    background, signal = ZShift("a", 50.0, 0.1, 0.0, 0.0), ZShift("b", 500.0, 20.0, 0.5, 0.05)
    refuse_shifts([background, signal], 0.1, 0.1, "advice")
    with pytest.raises(ParityError, match=r"got more in b \(t \+0\.500"):
        refuse_shifts([background, signal], 0.1, 0.01, "advice")


def make_candidate(path: Path, precision: Precision) -> Candidate:
    facts = PlanFacts(
        *("ab" * 32, 4, precision, "tensorrt_rtx", "1.7", ("8.9",), 1, 256, 4096, "d4.onnx"),
        engine=EngineFacts(),
    )
    typed = with_precision(load_onnx(pretrained_path("d4")), precision)
    return Candidate(facts, b"engine", typed, path)


def test_plan_itself_is_compared_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, "8.9")
    opened: list[Path] = []

    def open_plan(path: Path, max_batch: int) -> LinearEngine:
        assert path.is_file()
        opened.append(path)
        return LinearEngine()

    monkeypatch.setattr(plan_comparison, "open_engine", open_plan)
    candidate = make_candidate(tmp_path / "d4.plan", "fp16")
    comparison = Comparison()
    found = comparison.run(candidate, LinearEngine(), comparison.samples(None), None)
    assert opened == [tmp_path / ".d4.unchecked.plan"]
    assert found["computed_by"] == "the plan, run by a stand-in,"
    assert (found["largest"], found["n_events"], found["z"]) == (0.0, 20_000, [])
    assert list(tmp_path.iterdir()) == []


def test_wrong_plan_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(LinearEngine):
        def embed(self, particles: FloatArray) -> FloatArray:
            return super().embed(particles) + np.float32(1)

    gpu(monkeypatch, "8.9")
    monkeypatch.setattr(plan_comparison, "open_engine", lambda *_, **__: Wrong())
    candidate = make_candidate(tmp_path / "d4.plan", "fp16")
    with pytest.raises(ParityError, match="the plan, run by a stand-in, gave"):
        Comparison().run(candidate, LinearEngine(), Comparison().samples(None), None)
    assert list(tmp_path.iterdir()) == []


def test_network_that_torch_does_not_know_is_computed_by_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_onnx(pretrained_path("d4"))
    node = next(node for node in model.graph.node if node.op_type == "Reshape")
    flat = helper.make_node("Flatten", [node.input[0]], list(node.output), axis=1)
    node.CopyFrom(flat)
    onnx.save_model(model, tmp_path / "flat.onnx")
    gpu(monkeypatch, None)
    events = EventRange(sample_path("sm_unseen"), 0, 300)
    config = BuildConfig("bf16", comparison=Comparison(events=events), capabilities=("8.9",))
    facts = build_plan(tmp_path / "flat.onnx", tmp_path / "flat.plan", config)
    assert f"by onnx {onnx.__version__} on the CPU" in facts.differences["computed_by"]
    assert 1e-4 < facts.differences["largest"] < facts.differences["bound"]


def test_output_must_be_a_plan(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"output must end in \.plan, by which .*; got d4\.onnx"
    ):
        build_plan(pretrained_path("d4"), Path("d4.onnx"), BuildConfig())


def test_timing_cache_that_rtx_cannot_use_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventRange(sample_path("sm_unseen"), 0, 300)
    config = BuildConfig(
        flavour="tensorrt_rtx",
        capabilities=("8.9",),
        timing_cache=tmp_path / "cache",
        comparison=Comparison(events=events),
    )
    path = tmp_path / "d4.onnx"
    path.write_bytes(pretrained_path("d4").read_bytes())
    with caplog.at_level(logging.WARNING):
        build_plan(path, tmp_path / "d4.plan", config)
    assert f"has no timing cache: {tmp_path / 'cache'} is not used" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d4.onnx", "d4.plan"]
