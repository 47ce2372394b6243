"""Pictures of rates, from results as they were saved."""

import json
from pathlib import Path

import pytest

import bench
from bench.throughput_plot import draw_embedding, draw_stream
from engines.errors import ArtifactError

RESULTS = Path(bench.__file__).with_name("results")
PNG = b"\x89PNG"


def test_saved_rates_are_drawn(tmp_path: Path) -> None:
    embed = json.loads((RESULTS / "embed.json").read_text())["results"]
    stream = json.loads((RESULTS / "stream-d4.json").read_text())["results"]
    draw_embedding(embed, tmp_path / "embed.png")
    draw_stream(stream, ("<f4", "<f2"), tmp_path / "stream.png")
    for name in ("embed.png", "stream.png"):
        content = (tmp_path / name).read_bytes()
        assert content[:4] == PNG
        assert len(content) > 10_000
    with pytest.raises(ArtifactError, match=r"\.png or \.pdf"):
        draw_embedding(embed, tmp_path / "embed.xyz")
