"""The TensorRT engine on a GPU that is not there: order, lifetimes and sentences."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.engine import open_engine
from engines.errors import ArtifactError, EngineError, EngineUnavailableError, MissingPackageError
from engines.gpu.tensorrt_lane import TensorRTLane
from engines.plans.tensorrt_api import gpu_capability
from engines.tensorrt_engine import TensorRTEngine
from engines.types import FloatArray
from tests.conftest import MakeEvents
from tests.doubles_cuda import FakeGpu
from tests.doubles_tensorrt import install, make_plan

BUCKETS, SLOTS = (16, 32, 64), 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_plan(tmp_path / "d4.plan")
    return tmp_path / "d4.plan"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    weights = np.random.default_rng(0).normal(size=(57, 3)).astype(np.float32)
    gpu = FakeGpu(weights)
    install(monkeypatch, gpu)
    yield gpu
    assert gpu.violations == []
    assert {kind: n for kind, n in gpu.live.items() if n and kind != "torch stream"} == {}


def expected(gpu: FakeGpu, particles: FloatArray) -> FloatArray:
    return (particles.reshape(-1, 57) @ gpu.weights).astype(np.float32)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 128, 200, 500])
def test_every_number_of_events_is_embedded(
    path: Path, gpu: FakeGpu, make_events: MakeEvents, n: int
) -> None:
    with TensorRTEngine(path) as engine:
        for seed in range(3):  # the second and third find the first's events in the buffers
            particles = make_events(n, seed)
            embeddings = engine.embed(particles)
            np.testing.assert_allclose(embeddings, expected(gpu, particles), rtol=1e-5)


def test_it_says_what_it_is(path: Path, gpu: FakeGpu) -> None:
    with open_engine(path) as engine:
        assert (engine.dim, engine.max_batch, engine.fingerprint) == (3, 64, "ab" * 32)
        assert engine.facts.arch == "mlp"
        assert engine.runtime == "tensorrt 10.13.0.35 on a GPU, fp16"
    with TensorRTEngine(path, max_batch=20) as engine:
        assert engine.max_batch == 20


def test_each_bucket_is_captured_once_for_each_slot_and_replayed(
    path: Path, gpu: FakeGpu, make_events: MakeEvents
) -> None:
    with TensorRTEngine(path) as engine:
        assert sorted(n for _, n in gpu.captured) == sorted(SLOTS * BUCKETS)
        assert set(gpu.captured.values()) == {1}
        for n in (1, 20, 64, 300):
            engine.embed(make_events(n))
    assert sum(gpu.captured.values()) == SLOTS * len(BUCKETS)
    assert gpu.replays == 1 + 1 + 1 + 5


def test_without_a_graph_the_shape_is_set_at_each_batch(
    path: Path,
    gpu: FakeGpu,
    make_events: MakeEvents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        msg = "operation not permitted when stream is capturing\nmore"
        raise RuntimeError(msg)

    monkeypatch.setattr("engines.gpu.tensorrt_lane.capture", refuse)
    with TensorRTEngine(path) as engine:
        for n in (300, 7, 40):
            particles = make_events(n)
            np.testing.assert_allclose(engine.embed(particles), expected(gpu, particles), rtol=1e-5)
    assert gpu.replays == 0
    assert "batches of 16 run without a CUDA graph (operation not permitted" in caplog.text


def test_page_locked_events_are_copied_without_a_detour(
    path: Path, gpu: FakeGpu, make_events: MakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    copy_in = TensorRTLane.copy_in

    def spy(lane: TensorRTLane, device: int, host: FloatArray) -> None:
        copied.append(host.ctypes.data)
        copy_in(lane, device, host)

    monkeypatch.setattr(TensorRTLane, "copy_in", spy)
    with TensorRTEngine(path) as engine:
        events = engine.input_buffer(100)
        events[:] = make_events(100)
        embeddings = np.empty((100, 3), dtype=np.float32)
        engine.embed_into(events, embeddings)
        np.testing.assert_allclose(embeddings, expected(gpu, events), rtol=1e-5)
        assert copied == [events.ctypes.data, events[64:].ctypes.data]
        engine.embed(make_events(5))
        assert copied[-1] != events.ctypes.data


def test_threads_have_a_context_each(path: Path, gpu: FakeGpu, make_events: MakeEvents) -> None:
    wrong: list[int] = []
    together = threading.Barrier(3)

    def work(seed: int) -> None:
        together.wait()
        for _ in range(30):
            particles = make_events(150, seed)
            if not np.allclose(engine.embed(particles), expected(gpu, particles), rtol=1e-4):
                wrong.append(seed)

    with TensorRTEngine(path) as engine:
        for seed in range(5):
            engine.embed(make_events(9, seed))
        assert gpu.made_contexts == 1
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gpu.made_contexts <= 3
    assert not wrong


def test_everything_is_released_in_order(path: Path, gpu: FakeGpu) -> None:
    engine = TensorRTEngine(path)
    engine.close()
    assert gpu.events == [
        "execution context released",
        *SLOTS * [*2 * ["device memory released"], *2 * ["host memory released"]],
        *2 * ["stream released"],
        "engine released",
        "runtime released",
        "primary context released",
    ]
    engine.close()
    assert gpu.events.count("primary context released") == 1


def test_a_closed_engine_refuses(path: Path, gpu: FakeGpu, make_events: MakeEvents) -> None:
    engine = TensorRTEngine(path)
    engine.close()
    with pytest.raises(EngineError, match="must be open to embed; it was closed; open it again"):
        engine.embed(make_events(1))


STEPS = {
    "runtime": 1,
    "Stream": 2,
    "execution context": 1,
    "pagelocked_empty": 3,
    "mem_alloc": 2,
    "memcpy_htod": 4,
    "execute": 1,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_while_it_is_made_leaves_nothing_behind(
    step: str, path: Path, gpu: FakeGpu
) -> None:
    gpu.fail_on = {step: STEPS[step]}
    with pytest.raises((EngineError, RuntimeError), match=f"{step} failed"):
        TensorRTEngine(path)
    assert gpu.events[-1] == "primary context released"


@pytest.mark.parametrize("step", ["memcpy_async", "replay"])
def test_a_failure_in_the_stream_is_a_sentence_and_the_next_batch_has_new_buffers(
    step: str, path: Path, gpu: FakeGpu, make_events: MakeEvents
) -> None:
    with TensorRTEngine(path) as engine:
        gpu.fail_on = {step: 4}
        with pytest.raises(EngineError) as caught:
            engine.embed(make_events(300))
        assert str(caught.value) == (
            f"the encoder failed on the GPU ({step} failed); restart, or run it on the CPU"
        )
        particles = make_events(300)
        np.testing.assert_allclose(engine.embed(particles), expected(gpu, particles), rtol=1e-5)
    assert gpu.made_contexts == 2


def test_non_finite_embeddings_are_refused(
    path: Path, gpu: FakeGpu, make_events: MakeEvents
) -> None:
    gpu.weights = gpu.weights * np.nan
    with TensorRTEngine(path) as engine, pytest.raises(EngineError, match="non-finite embeddings"):
        engine.embed(make_events(3))


def test_tensorrt_for_rtx_compiles_each_bucket_before_it_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, make_events: MakeEvents
) -> None:
    gpu = FakeGpu(np.eye(57, 3, dtype=np.float32))
    install(monkeypatch, gpu, flavour="tensorrt_rtx")
    make_plan(path, flavour="tensorrt_rtx")
    with TensorRTEngine(path) as engine:
        engine.embed(make_events(3))
    assert gpu.strategies == [{"dynamic_shapes_kernel_specialization_strategy": "eager"}]
    assert gpu.violations == []


def test_a_plan_that_tensorrt_cannot_load_is_said(path: Path, gpu: FakeGpu) -> None:
    gpu.serialised = b"of another day"
    with pytest.raises(ArtifactError) as caught:
        TensorRTEngine(path)
    assert str(caught.value) == (
        f"{path} must be a plan that tensorrt 10.13.0.35 can load; it cannot; build it again: "
        f"build-engine {path.with_name('d4.onnx')} -o {path} --precision fp16 "
        "--opt-batch 64 --max-batch 64"
    )
    assert gpu.events == ["runtime released", "primary context released"]


def test_a_plan_for_another_gpu_or_version_names_both_and_the_command(
    path: Path, gpu: FakeGpu
) -> None:
    make_plan(path, compute_capabilities=("9.0",))
    with pytest.raises(EngineUnavailableError, match=r"9\.0.*got 8\.9.*build-engine"):
        open_engine(path)
    make_plan(path, version="10.0.1")
    with pytest.raises(EngineUnavailableError, match=r"10\.0\.1.*10\.13\.0\.35.*build-engine"):
        open_engine(path)


def test_a_truncated_plan_is_said_first(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ArtifactError, match=r"truncated.*build-engine \S*/d4\.onnx -o \S*/d4\.plan"
    ):
        open_engine(path)


def test_without_a_gpu_the_onnx_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeGpu(np.eye(57, 3, dtype=np.float32)), capability=None)
    path.with_name("d4.onnx").touch()
    reason = "the driver finds no GPU" if gpu_capability() else "no libcuda.so.1"
    with pytest.raises(EngineUnavailableError) as caught:
        open_engine(path)
    assert str(caught.value) == (
        f"engine {path} must run on an NVIDIA GPU with its driver; this machine has none "
        f"({reason}); use the ONNX file it came from: --engine {path.with_name('d4.onnx')}, or "
        "add --fallback"
    )


def test_without_pycuda_or_torch_for_cuda_the_package_is_named(
    path: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingPackageError, match=r"PyCUDA must be installed.*nplm-stream\[gpu\]"):
        TensorRTEngine(path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(
        MissingPackageError, match="torch must be built for CUDA to run a plan; got"
    ):
        TensorRTEngine(path)
