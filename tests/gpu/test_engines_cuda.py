"""Engines on a GPU give the embeddings of the CPU, at every size of batch, from every thread."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from engines.artifact import load_onnx
from engines.engine import Engine, open_engine
from engines.errors import EngineError
from engines.event_files import read_events
from engines.events import EventRange
from engines.gpu.cuda_engine import OnnxCudaEngine, open_cuda_engine
from engines.gpu.onnx_torch import OnnxModule
from engines.gpu.torch_cuda import is_page_locked, urgent_stream
from engines.gpu.torch_engine import TorchEngine
from engines.nplm import CachedReference
from engines.nplm.cuda_stream import BackgroundStream
from engines.plans.precision import Precision, with_precision
from engines.pretrained import PRETRAINED, pretrained_path
from engines.samples import sample_path
from engines.types import FloatArray
from tests.support import gaussians, small_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIZES = (1, 15, 16, 17, 255, 256, 257, 1000, 3000)
MAX_BATCH = 256
#: Of the coordinate's spread, in plain fp32 and in a plan's.
TOLERANCE: dict[Precision, float] = {"fp32": 2e-4, "tf32": 0.06, "fp16": 0.06, "bf16": 0.4}


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    return read_events(EventRange(sample_path("sm_cocktail"), 0, 3000))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a plan built here, if TensorRT and PyCUDA are."""
    pytest.importorskip("pycuda.driver")
    from engines.build_engine import main

    path = tmp_path_factory.mktemp("plans") / "d4.plan"
    words = [str(pretrained_path("d4")), "-o", str(path), "--max-batch", str(MAX_BATCH)]
    if main(words) != 0:
        pytest.skip("build-engine cannot build a plan here")
    return path


@pytest.fixture(params=["torch", "torch compiled", "onnxruntime", "tensorrt"])
def make(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    d4 = pretrained_path("d4")
    if request.param == "tensorrt":
        path = request.getfixturevalue("plan")
        return lambda: open_engine(path, max_batch=MAX_BATCH)
    if request.param == "onnxruntime":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            pytest.skip("needs onnxruntime-gpu")
        return lambda: OnnxCudaEngine(d4, max_batch=MAX_BATCH)
    compiled = request.param == "torch compiled"
    if compiled:
        pytest.importorskip("triton")
    return lambda: TorchEngine(d4, max_batch=MAX_BATCH, compiled=compiled)


@pytest.fixture
def engine(make: Callable[[], Engine]) -> Iterator[Engine]:
    with make() as engine:
        yield engine


@pytest.fixture(scope="module")
def expected(particles: FloatArray) -> FloatArray:
    with open_engine(pretrained_path("d4")) as engine:
        return engine.embed(particles)


def check(embeddings: FloatArray, expected: FloatArray, tolerance: float) -> None:
    atol = tolerance * float(expected.std(axis=0).min()) if len(expected) > 100 else 1e-3
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=atol)


def test_embeddings_are_those_of_the_cpu(
    engine: Engine, particles: FloatArray, expected: FloatArray
) -> None:
    for _ in range(2):  # the second round finds the first's events in the buffers
        for n in SIZES:
            check(engine.embed(particles[:n]), expected[:n], TOLERANCE["fp32"])


def test_memory_that_the_gpu_reads_by_itself(
    engine: Engine, particles: FloatArray, expected: FloatArray
) -> None:
    buffer = engine.input_buffer(1000)
    buffer[:] = particles[:1000]
    embeddings = np.empty((1000, engine.dim), dtype=np.float32)
    engine.embed_into(buffer, embeddings)
    check(embeddings, expected[:1000], TOLERANCE["fp32"])
    if isinstance(engine, OnnxCudaEngine):
        return
    assert is_page_locked(buffer)
    assert is_page_locked(buffer[100:200])
    assert not is_page_locked(embeddings)
    engine.close()
    np.testing.assert_array_equal(buffer, particles[:1000])  # outlives the engine


def test_threads_do_not_disturb_each_other_nor_the_windows(
    engine: Engine, particles: FloatArray, expected: FloatArray
) -> None:
    """Another stream multiplies and takes memory meanwhile, also while graphs are captured."""
    wrong: list[str] = []
    over = threading.Event()

    def multiply() -> None:
        background = BackgroundStream(torch.device("cuda"))
        while not over.is_set():
            with background.work():
                matrix = torch.ones((1024, 1024), device="cuda")
                for _ in range(10):
                    matrix = matrix @ matrix / 1024
                if float(matrix.mean()) != pytest.approx(1.0, rel=1e-3):
                    wrong.append("a product")

    def embed(first: int) -> None:
        for n in (700, 20, 256, 1):
            rows = slice(first, first + n)
            difference = np.abs(engine.embed(particles[rows]) - expected[rows]).max()
            if difference > 1e-3:
                wrong.append(f"{n} events by {difference}")

    threads = [threading.Thread(target=embed, args=(500 * k,)) for k in range(4)]
    other = threading.Thread(target=multiply)
    other.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    other.join()
    assert not wrong


def test_closing_twice_frees_the_memory(make: Callable[[], Engine]) -> None:
    make().close()  # what torch and CUDA keep for good
    torch.cuda.synchronize()
    free_before = torch.cuda.mem_get_info()[0]
    for _ in range(3):
        engine = make()
        engine.close()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] >= free_before - 2**26


def test_a_closed_engine_refuses(make: Callable[[], Engine], particles: FloatArray) -> None:
    engine = make()
    if isinstance(engine, OnnxCudaEngine):
        pytest.skip("its session is gone")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="must be open"):
        engine.embed(particles[:1])


def test_device_cuda_opens_torch() -> None:
    with open_cuda_engine(pretrained_path("d4"), device="cuda") as engine:
        assert isinstance(engine, TorchEngine)
        assert torch.cuda.get_device_name(0) in engine.runtime


def test_engines_go_before_windows() -> None:
    background = BackgroundStream(torch.device("cuda"))
    with background.work():
        least = torch.cuda.current_stream().priority
    assert urgent_stream().priority < least


def test_features_of_one_thread_are_tested_by_another() -> None:
    made = small_reference(np.random.default_rng(0))
    there = CachedReference(made.basis, made.embeddings, made.n_expected, device="cuda")
    windows = [gaussians(200, np.random.default_rng(seed)) for seed in range(20)]
    pieces = [there.features(window) for window in windows]
    t: list[float] = []

    def work() -> None:
        t.extend(float(there.test_features([psi]).t[0]) for psi in pieces)

    other = threading.Thread(target=work)
    other.start()
    other.join()
    np.testing.assert_allclose(t, [there.test(window).t[0] for window in windows], atol=1e-3)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", PRETRAINED)
def test_each_precision_stays_within_its_bound(
    name: str, precision: Precision, particles: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", precision == "tf32")
    model = load_onnx(pretrained_path(name))
    module = OnnxModule(with_precision(model, precision)).to("cuda")
    embeddings = module(torch.from_numpy(particles).cuda()).cpu().numpy()
    with open_engine(pretrained_path(name)) as engine:
        expected = engine.embed(particles)
    share = (np.abs(embeddings - expected) / expected.std(axis=0)).max()
    assert share <= TOLERANCE[precision]
