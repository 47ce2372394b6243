"""The ONNX engine on tiny graphs: what it computes, what it says of itself, what it refuses."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.artifact import (
    EngineFacts,
    SampleFacts,
    fingerprint,
    load_onnx,
    read_facts,
    write_facts,
)
from engines.engine import open_engine
from engines.errors import ArtifactError, EngineError
from engines.event_files import write_events
from engines.events import EventRange
from engines.onnx_engine import OnnxEngine
from engines.types import AnyArray, FloatArray

MakeEvents: TypeAlias = Callable[..., FloatArray]
Shape: TypeAlias = Sequence[int | str | None]


def graph_model(
    nodes: list[onnx.NodeProto],
    *,
    input_shape: Shape = ("n", 19, 3),
    output_shape: Shape = ("n", 57),
    kind: int = TensorProto.FLOAT,
    constants: dict[str, AnyArray] | None = None,
    inputs: int = 1,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(f"x{i or ''}", kind, input_shape) for i in range(inputs)],
        [helper.make_tensor_value_info("y", kind, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def flat_model() -> onnx.ModelProto:
    """Map the 57 numbers of an event to two: their sum and twice their sum."""
    weights = np.stack([np.ones(57), np.full(57, 2)], axis=1).astype(np.float32)
    return graph_model(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        output_shape=["n", 2],
        constants={"w": weights},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "tiny.onnx"
    onnx.save_model(flat_model(), place)
    return place


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    place = tmp_path / "other.onnx"
    onnx.save_model(model, place)
    return place


def test_embeddings_are_the_graphs(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(5)
    with open_engine(path) as engine:
        embeddings = engine.embed(particles)
        assert engine.dim == 2
        assert engine.max_batch >= 256
    total = particles.sum(axis=(1, 2))
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, np.stack([total, 2 * total], axis=1), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 11])
def test_large_input_is_split(path: Path, make_events: MakeEvents, n: int) -> None:
    particles = make_events(n)
    with OnnxEngine(path, max_batch=4) as small, OnnxEngine(path) as large:
        np.testing.assert_allclose(small.embed(particles), large.embed(particles), rtol=1e-5)


def test_read_only_and_strided_events_are_embedded(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(6)
    particles.flags.writeable = False
    with open_engine(path) as engine:
        np.testing.assert_array_equal(engine.embed(particles[::2]), engine.embed(particles)[::2])


def test_wrong_particles_are_refused(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(3)
    spoilt = particles.copy()
    spoilt[1, 4, 2] = np.inf
    cases = [
        (particles[:, :18], r"shape \(n, 19, 3\); got \(3, 18, 3\)"),
        (particles[0], r"got \(19, 3\)"),
        (particles.astype(np.float64), "float32; got float64"),
        (particles[:0], "at least one event"),
        (spoilt, "event 1 of the batch"),
    ]
    with open_engine(path) as engine:
        for wrong, text in cases:
            with pytest.raises(EngineError, match=text):
                engine.embed(wrong)


def test_non_finite_embeddings_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Log", ["flat"], ["y"]),
    ]
    with open_engine(saved(tmp_path, graph_model(nodes))) as engine:
        assert np.isfinite(engine.embed(np.ones((2, 19, 3), np.float32))).all()
        with pytest.raises(EngineError, match="non-finite embeddings"):
            engine.embed(np.zeros((2, 19, 3), np.float32))


def test_graph_that_breaks_its_own_interface_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = np.array([1, -1], dtype=np.int64)
    model = graph_model(nodes, constants={"shape": shape})
    with open_engine(saved(tmp_path, model)) as engine:
        engine.embed(np.ones((1, 19, 3), np.float32))
        with pytest.raises(EngineError, match="export it again"):
            engine.embed(np.ones((3, 19, 3), np.float32))


FLATTEN = [helper.make_node("Flatten", ["x"], ["y"], axis=1)]


@pytest.mark.parametrize(
    "model",
    [
        graph_model(FLATTEN, input_shape=["n", 18, 3], output_shape=["n", 54]),
        graph_model(FLATTEN, input_shape=[8, 19, 3], output_shape=[8, 57]),
        graph_model(FLATTEN, kind=TensorProto.DOUBLE),
        graph_model([helper.make_node("Abs", ["x"], ["y"])], output_shape=["n", 19, 3]),
        graph_model(
            [
                helper.make_node("Add", ["x", "x1"], ["z"]),
                helper.make_node("Flatten", ["z"], ["y"], axis=1),
            ],
            inputs=2,
        ),
    ],
    ids=["objects", "fixed batch", "double", "rank", "two inputs"],
)
def test_other_interfaces_are_refused(tmp_path: Path, model: onnx.ModelProto) -> None:
    with pytest.raises(ArtifactError, match=r"must map float32 \(n, 19, 3\) to \(n, d\)"):
        open_engine(saved(tmp_path, model))


def test_operator_that_the_runtime_lacks(tmp_path: Path) -> None:
    model = graph_model([helper.make_node("Enigma", ["x"], ["y"], domain="my.ops")])
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    with pytest.raises(ArtifactError, match=r"other\.onnx"):
        open_engine(saved(tmp_path, model))


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_truncated_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="not a complete ONNX file"):
        open_engine(path)


@pytest.mark.parametrize("content", [b"not a model at all\n", b"\x89HDF\r\n\x1a\n" + bytes(64)])
def test_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a complete ONNX file"):
        open_engine(path)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="train-encoder"):
        open_engine(tmp_path / "absent.onnx")


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"\.onnx or \.plan; got .*model\.pt"):
        open_engine(tmp_path / "model.pt")


def test_plan_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"build-engine d4\.onnx -o d4\.plan"):
        open_engine(tmp_path / "d4.plan")


def test_fingerprint_names_the_graph_not_the_metadata(path: Path) -> None:
    model = flat_model()
    before = fingerprint(model)
    write_facts(model, EngineFacts(arch="mlp", dim=2))
    assert fingerprint(model) == before == open_engine(path).fingerprint
    model.graph.node[1].name = "renamed"
    assert fingerprint(model) != before


def test_facts_travel_with_the_file(tmp_path: Path) -> None:
    facts = EngineFacts(
        arch="transformer",
        loss="supcon",
        dim=2,
        trained_on=(SampleFacts("bkg.h5", "abc", 0, 100),),
        reserved=(SampleFacts("bkg.h5", "abc", 100, 120),),
        options={"epochs": 3},
        metrics={"accuracy": 0.9},
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
    )
    model = flat_model()
    write_facts(model, facts)
    place = saved(tmp_path, model)
    assert read_facts(load_onnx(place)) == facts
    with open_engine(place) as engine:
        assert engine.facts == facts


def test_facts_of_an_earlier_version_reserve_nothing(tmp_path: Path) -> None:
    model = flat_model()
    stored = {"arch": "mlp", "trained_on": [vars(SampleFacts("bkg.h5", "abc", 0, 100))]}
    helper.set_model_props(model, {"nplm_stream": json.dumps(stored)})
    with open_engine(saved(tmp_path, model)) as engine:
        assert engine.facts.reserved == ()
        assert engine.facts.trained_on[0].stop == 100
        whole = EventRange(tmp_path / "absent.h5")
        assert engine.facts.untrained_part(whole) == whole


def test_reserved_part_stands_for_the_whole_file(tmp_path: Path, make_events: MakeEvents) -> None:
    first, copy, other = (tmp_path / f"{name}.h5" for name in "abc")
    for place, seed in ((first, 0), (copy, 0), (other, 1)):
        write_events(place, make_events(100, seed=seed))
    facts = EngineFacts(
        trained_on=(SampleFacts.of(EventRange(first, 0, 80)),),
        reserved=(SampleFacts.of(EventRange(first, 80, 100)),),
    )
    assert facts.untrained_part(EventRange(copy)) == EventRange(copy, 80, 100)
    for source in (EventRange(other), EventRange(first, 90), EventRange(first, 0, 100)):
        assert facts.untrained_part(source) == source


def test_foreign_model_has_empty_facts(path: Path) -> None:
    with open_engine(path) as engine:
        assert engine.facts == EngineFacts()


@pytest.mark.parametrize("value", ["{", "[]", '{"trained_on": [], "colour": 1}', "{}"])
def test_spoilt_facts_are_refused(tmp_path: Path, value: str) -> None:
    model = flat_model()
    helper.set_model_props(model, {"nplm_stream": value})
    with pytest.raises(ArtifactError, match="metadata"):
        open_engine(saved(tmp_path, model))


def test_sample_facts_name_content_and_overlap(tmp_path: Path, make_events: MakeEvents) -> None:
    first, copy, other = (tmp_path / f"{name}.h5" for name in "abc")
    for place, seed in ((first, 0), (copy, 0), (other, 1)):
        write_events(place, make_events(100, seed=seed))
    whole = SampleFacts.of(EventRange(first))
    assert (whole.name, whole.start, whole.stop) == ("a.h5", 0, 100)
    assert whole.overlap(SampleFacts.of(EventRange(copy, 90))) == 10
    assert whole.overlap(SampleFacts.of(EventRange(other, 90))) == 0
    assert SampleFacts.of(EventRange(first, 0, 50)).overlap(whole) == 50
    assert (
        SampleFacts.of(EventRange(first, 0, 50)).overlap(SampleFacts.of(EventRange(first, 50))) == 0
    )
