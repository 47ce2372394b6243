"""What the options of ONNX Runtime are worth: one round of it."""

import json
from pathlib import Path

import pytest

from bench.onnx_options import main


def test_every_row_is_timed_at_every_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "options.json"
    words = ["--batches", "64", "512", "--rounds", "1", "--json", str(saved)]
    assert main(words) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["64", "512"]
    results = json.loads(saved.read_text())["results"]
    assert len(results) == len(rows) == 10
    for name, row in zip(results, rows, strict=True):
        assert row.startswith(name)
        assert all(len(results[name][kind]) == 2 for kind in ("min_s", "median_s"))
