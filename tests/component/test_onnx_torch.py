"""torch computes what every architecture exports as ONNX Runtime does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.artifact import EngineFacts, load_onnx
from engines.engine import open_engine
from engines.event_files import read_events
from engines.events import EventRange
from engines.gpu.onnx_torch import OnnxModule
from engines.samples import sample_path
from tests.component.test_export import CONFIGS, make_encoder
from training.export import export_encoder

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    particles = np.zeros((401, 19, 3), dtype=np.float32)  # the last event is empty
    particles[:300] = read_events(EventRange(sample_path("sm_cocktail"), 0, 300))
    particles[300:400] = read_events(EventRange(sample_path("A4l"), 0, 100))
    encoder, path = make_encoder(CONFIGS[name], particles), tmp_path / "e.onnx"
    export_encoder(encoder, path, particles, EngineFacts())
    module = OnnxModule(load_onnx(path))
    with open_engine(path) as engine, torch.inference_mode():
        for size in (1, 3, len(particles)):
            expected = engine.embed(particles[:size])
            there = module(torch.from_numpy(particles[:size])).numpy()
            np.testing.assert_allclose(there, expected, rtol=0, atol=TOLERANCE)
    # A meta tensor has no values: whatever reads one fails, as it would in a CUDA graph.
    assert module.to("meta")(torch.empty((5, 19, 3), device="meta")).shape == (5, engine.dim)
