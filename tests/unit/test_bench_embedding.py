"""Engine-only rates and their limits: the numbers agree with each other, whatever they are."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from bench import embedding, limits, throughput
from bench.bandwidth import LargeArray
from bench.embedding import Settings, measure
from bench.flops import flops_per_event
from engines.artifact import load_onnx
from engines.engine import Engine, open_engine
from engines.errors import ArtifactError, EngineUnavailableError, ParameterError
from engines.pretrained import pretrained_path

D4 = pretrained_path("d4")
D4_FLOPS = 2 * (95 * 128 + 128 * 64 + 64 * 32 + 32 * 4)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LargeArray", partial(LargeArray, n_bytes=2**20))
    monkeypatch.setattr(limits, "_SIZE", 64)
    monkeypatch.setattr(embedding, "_N_EVENTS", 512)


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Return a model of x, (n, 19, 3), and two constant matrices."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 19, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [3, 5], [0.0] * 15),
        helper.make_tensor("v", TensorProto.FLOAT, [19, 7], [0.0] * 133),
    ]
    return helper.make_model(helper.make_graph(list(nodes), "g", [x], [y], weights))


def test_products_are_counted_by_their_shapes() -> None:
    assert flops_per_event(load_onnx(D4)) == D4_FLOPS
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert flops_per_event(graph(product)) == 2 * 19 * 3 * 5
    swap = helper.make_node("Transpose", ["x"], ["z"], perm=[0, 2, 1])
    attention = helper.make_node("MatMul", ["x", "z"], ["y"])
    assert flops_per_event(graph(swap, attention)) == 2 * 19 * 3 * 19
    one = helper.make_node("Squeeze", ["x"], ["z"])
    gemm = helper.make_node("Gemm", ["z", "v"], ["y"], transA=1)
    assert flops_per_event(graph(one, gemm)) == 2 * 3 * 19 * 7


def test_an_unknown_shape_is_said() -> None:
    unknown = helper.make_node("Strange", ["x"], ["z"], domain="somewhere")
    product = helper.make_node("MatMul", ["z", "w"], ["y"], name="last")
    model = graph(unknown, product)
    with pytest.raises(ArtifactError, match="cannot be inferred"):
        flops_per_event(model)
    model.opset_import.append(helper.make_opsetid("somewhere", 1))
    with pytest.raises(ArtifactError, match="'last' must be known"):
        flops_per_event(model)


def run(tmp_path: Path, *options: str) -> dict[str, Any]:
    path = tmp_path / "out.json"
    words = ["embed", "--batch", "1", "64", "--seconds", "0.001", "--repeat", "3"]
    assert throughput.main([*words, *options, "--json", str(path)]) == 0
    record: dict[str, Any] = json.loads(path.read_text())
    return record


@pytest.mark.usefixtures("keep_logging")
def test_rates_and_shares_of_the_limits_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hybrid = pretrained_path("hybrid")
    record = run(tmp_path, "--engine", str(D4), str(hybrid))
    assert record["benchmark"] == "embed-throughput"
    assert record["settings"]["engines"] == ["d4.onnx", "hybrid.onnx"]
    results = record["results"]
    assert list(results["peak_gflops"]) == ["fp32"]
    first, second = results["engines"]
    assert (first["flops_per_event"], first["bytes_per_event"]) == (D4_FLOPS, 19 * 3 * 4 + 4 * 4)
    assert second["bytes_per_event"] == 19 * 3 * 4 + 4 * 8
    for engine in (first, second):
        assert engine["precision"] == "fp32"
        assert [rate["batch"] for rate in engine["rates"]] == [1, 64]
        for rate in engine["rates"]:
            for figure in (rate["events_hz"], rate["share_of_peak"], rate["share_of_bandwidth"]):
                assert 0 < figure["low"] <= figure["median"] <= figure["high"]
    text = capsys.readouterr().out
    assert "d4.onnx: ONNX Runtime" in text
    assert f"{D4_FLOPS} FLOP with all objects and 244 bytes an event" in text


@pytest.mark.usefixtures("keep_logging")
def test_an_engine_that_cannot_run_here_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def some(path: Path, **options: Any) -> Engine:  # noqa: ANN401
        if path.suffix == ".plan":
            msg = "a GPU must be there"
            raise EngineUnavailableError(msg)
        return open_engine(path, **options)

    monkeypatch.setattr(embedding, "open_engine", some)
    record = run(tmp_path, "--engine", str(D4), "d4.plan")
    assert record["results"]["refused"] == {"d4.plan": "a GPU must be there"}
    assert [one["engine"] for one in record["results"]["engines"]] == ["d4.onnx"]
    assert "d4.plan: a GPU must be there" in capsys.readouterr().out


def test_an_engine_without_its_graph_has_no_share_of_the_peak(tmp_path: Path) -> None:
    other = tmp_path / "d4.onnx"
    assert embedding._flops(other, "ab" * 32) is None
    assert embedding._flops(D4, "ab" * 32) is None


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="different names"):
        measure(Settings((D4, tmp_path / "d4.onnx")))
