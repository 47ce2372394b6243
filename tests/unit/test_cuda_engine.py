"""Engines on a GPU without TensorRT, as far as a CPU can tell."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import engines.gpu.cuda_engine
from engines.artifact import load_onnx
from engines.engine import open_engine
from engines.errors import ArtifactError, EngineError, EngineUnavailableError
from engines.event_files import read_events
from engines.events import EventRange
from engines.gpu.cuda_engine import OnnxCudaEngine, open_cuda_engine
from engines.gpu.onnx_torch import OnnxModule
from engines.gpu.torch_engine import TorchEngine, _cuda_lane
from engines.pretrained import pretrained_path
from engines.samples import sample_path
from engines.types import FloatArray

D4 = pretrained_path("d4")


@pytest.fixture(scope="module")
def particles() -> FloatArray:
    return read_events(EventRange(sample_path("sm_cocktail"), 0, 700))


@pytest.fixture(scope="module")
def embeddings(particles: FloatArray) -> FloatArray:
    with open_engine(D4) as engine:
        return engine.embed(particles)


@pytest.fixture
def engine() -> Iterator[TorchEngine]:
    with TorchEngine(D4, device="cpu", max_batch=100) as engine:
        yield engine


@pytest.mark.parametrize("n", [1, 15, 16, 17, 99, 100, 101, 250, 300, 301, 700])
def test_every_number_of_events_gives_the_embeddings_of_onnx_runtime(
    engine: TorchEngine, particles: FloatArray, embeddings: FloatArray, n: int
) -> None:
    np.testing.assert_allclose(engine.embed(particles[:n]), embeddings[:n], atol=1e-5)


def test_it_says_what_it_is(engine: TorchEngine) -> None:
    with open_engine(D4) as other:
        assert (engine.dim, engine.fingerprint) == (other.dim, other.fingerprint)
        assert engine.facts == other.facts
    assert engine.runtime == f"torch {torch.__version__} on the CPU, fp32"
    assert engine.max_batch == 100


def test_an_input_buffer_holds_events(
    engine: TorchEngine, particles: FloatArray, embeddings: FloatArray
) -> None:
    buffer = engine.input_buffer(40)
    assert buffer.shape == (40, 19, 3)
    assert buffer.dtype == np.dtype("float32")
    buffer[:] = particles[:40]
    into = np.empty((40, 4), dtype=np.float32)
    engine.embed_into(buffer, into)
    np.testing.assert_allclose(into, embeddings[:40], atol=1e-5)


def test_events_may_stand_in_memory_that_cannot_be_written(
    engine: TorchEngine, particles: FloatArray, embeddings: FloatArray
) -> None:
    received = np.frombuffer(particles[:20].tobytes(), dtype=np.float32).reshape(20, 19, 3)
    np.testing.assert_allclose(engine.embed(received), embeddings[:20], atol=1e-5)


def test_threads_do_not_disturb_each_other(
    engine: TorchEngine, particles: FloatArray, embeddings: FloatArray
) -> None:
    wrong: list[int] = []

    def work(first: int) -> None:
        for _ in range(20):
            got = engine.embed(particles[first : first + 250])
            if not np.allclose(got, embeddings[first : first + 250], atol=1e-5):
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_engine_refuses_and_closes_again(particles: FloatArray) -> None:
    engine = TorchEngine(D4, device="cpu")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="must be open to embed; it was closed; open it again"):
        engine.embed(particles[:1])


def test_a_failure_on_the_device_is_a_sentence(
    engine: TorchEngine, particles: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        msg = "CUDA error: an illegal memory access\nmore lines"
        raise RuntimeError(msg)

    with monkeypatch.context() as patched:
        patched.setattr("engines.gpu.torch_engine.OnnxModule.forward", lambda _, x: fail(x))
        with pytest.raises(
            EngineError,
            match=r"failed on the GPU \(CUDA error: an illegal memory access\); restart",
        ):
            engine.embed(particles)
    assert len(engine.embed(particles)) == 700  # in a new lane


class Recorder:
    """A stream, or an event, that writes down what it is asked."""

    device = torch.device("cpu")

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __enter__(self) -> None:
        self.log.append(f"on {self.name}")

    def __exit__(self, *_: object) -> None:
        pass

    def wait_event(self, event: "Recorder") -> None:
        self.log.append(f"{self.name} waits for {event.name}")

    def record(self) -> None:
        self.log.append(f"{self.name} recorded")

    def synchronize(self) -> None:
        self.log.append(f"{self.name} waited for")


def test_a_batch_is_copied_in_computed_and_copied_out_in_this_order(
    particles: FloatArray, embeddings: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU's slot, on a CPU: what it asks of streams and events, and with which numbers."""
    log: list[str] = []
    streams = iter([Recorder(name, log) for name in ("in", "compute", "out")])
    events = iter([Recorder(name, log) for name in 3 * ("copied in", "computed", "copied out")])
    captured: list[Callable[[], object]] = []

    class Graph:
        def __init__(self, work: Callable[[], object]) -> None:
            captured.append(work)
            self.replay = work

    module = "engines.gpu.torch_engine."
    monkeypatch.setattr(module + "urgent_stream", lambda: next(streams))
    monkeypatch.setattr(module + "new_event", lambda: next(events))
    monkeypatch.setattr(module + "capture", lambda work, *_: Graph(work))
    monkeypatch.setattr(module + "page_locked", torch.empty)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    lane = _cuda_lane(OnnxModule(load_onnx(D4)), torch.device("cpu"), [16, 32], 4)
    assert len(captured) == 3 * 2
    for slot, n in zip(lane.slots, (5, 16, 31), strict=True):
        log.clear()
        out = np.empty((n, 4), dtype=np.float32)
        slot.submit(particles[:n])
        slot.finish(out)
        np.testing.assert_allclose(out, embeddings[:n], atol=1e-5)
        assert log == [
            *("on in", "copied in recorded"),
            *("on compute", "compute waits for copied in", "computed recorded"),
            *("on out", "out waits for computed", "copied out recorded"),
            "copied out waited for",
        ]
    log.clear()
    lane.close()
    assert log == ["in waited for", "compute waited for", "out waited for"]
    assert not lane.slots


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:x", "tpu"])
def test_a_missing_gpu_is_said_in_a_sentence(device: str) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        open_engine(D4, device=device)
    assert str(caught.value) == (
        f"device must be cpu, or cuda with a driver and a GPU; got {device}, and torch "
        f"{torch.__version__} finds 0 GPUs; use --device cpu"
    )


def test_a_wrong_file_is_named_before_a_missing_gpu(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        open_cuda_engine(tmp_path / "none.onnx", device="cuda")


def test_torch_goes_before_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    for name in ("TorchEngine", "OnnxCudaEngine"):
        monkeypatch.setattr(
            engines.gpu.cuda_engine, name, lambda *_, n=name, **__: opened.append(n)
        )
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    for count in (1, 0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n=count: n)
        open_cuda_engine(D4, device="cuda:0")
    assert opened == ["TorchEngine", "OnnxCudaEngine"]


def test_onnx_runtime_without_its_provider_is_refused() -> None:
    with pytest.raises(EngineUnavailableError, match="must have its CUDA provider for cuda"):
        OnnxCudaEngine(D4)
