"""Damaged files: each is opened or refused in one sentence; and what fuzzing once found."""

import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench import fuzz
from bench.fuzzing import workers
from bench.fuzzing.artefacts import TARGETS
from bench.fuzzing.damage import DAMAGES, damage
from bench.fuzzing.report import RIGHT, files_record, text
from bench.fuzzing.workers import CaseLimits, Outcome, run_cases
from engines.artifact import load_onnx
from engines.command import CommandParser, positive_int
from engines.engine import open_engine
from engines.errors import ArtifactError, NplmStreamError, ParameterError
from engines.event_files import EventFile, write_events
from engines.plans.plan_file import read_plan_facts
from engines.pretrained import pretrained_path
from engines.reference_file import load_reference
from engines.typed_facts import typed
from engines.windows import WindowSpec

ONES = np.ones((20, 19, 3), np.float32)

#: Ends as its first case says: dies, goes silent, goes on.
_WORKER = """
import os, sys, json, time
for case in range(int(sys.argv[3]), int(sys.argv[4])):
    print(json.dumps({"case": case, "kind": "k"}), flush=True)
    if case == 1: os.abort()
    if case == 2: time.sleep(60)
    said = {"verdict": "refused", "said": "no", "seconds": 0.5, "peak_mib": 1.0}
    print(json.dumps({"case": case, "kind": "k", **said}), flush=True)
"""


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_are_opened_or_refused_in_one_sentence(target: str) -> None:
    outcomes = list(run_cases(target, 11, 120, CaseLimits()))
    assert [one.case for one in outcomes] == list(range(120))
    assert [one for one in outcomes if one.verdict not in RIGHT] == []
    assert {one.verdict for one in outcomes} <= {"opened", "refused"}


def test_crash_and_hang_are_counted_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", _WORKER))
    started_s = time.monotonic()
    outcomes = list(run_cases("any", 0, 5, CaseLimits(time_s=1.0)))
    assert time.monotonic() - started_s < 30
    assert [one.verdict for one in outcomes] == ["refused", "crash", "hang", "refused", "refused"]
    assert outcomes[1].said.startswith("SIGABRT")
    record = files_record(outcomes)
    assert (record["files"], record["wrong"], record["crash"], record["hang"]) == (5, 2, 1, 1)
    assert "| any | 5 | 0 | 3 | 1 | 1 | 0 |" in text({"files": {"any": record}})


def test_damage_is_the_same_for_the_same_seed_and_mostly_changes_something() -> None:
    content = bytes(range(256)) * 20
    drawn = [damage(content, np.random.default_rng(k)) for k in range(200)]
    assert drawn == [damage(content, np.random.default_rng(k)) for k in range(200)]
    assert {name for name, _ in drawn} == set(DAMAGES)
    assert sum(damaged != content for _, damaged in drawn) > 180


@pytest.mark.usefixtures("keep_logging")
def test_command_saves_a_record_and_fails_if_anything_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["artefacts", "--targets", "plan", "--files", "20", "--json", str(tmp_path / "f.json")]
    assert fuzz.main(words) == 0
    record = json.loads((tmp_path / "f.json").read_text())
    assert (record["benchmark"], record["settings"]["files"]) == ("fuzz", 20)
    assert record["results"]["files"]["plan"]["files"] == 20
    crash = Outcome(0, "noise", "crash", "SIGSEGV: in a library")
    monkeypatch.setattr(workers, "run_cases", lambda *_: iter([crash]))
    assert fuzz.main(words[:5]) == 1
    assert "nothing must go wrong; got 1 of plan" in capsys.readouterr().err


def external_link(file: h5py.File, other: Path) -> None:
    file["Particles"] = h5py.ExternalLink(str(other), "/Particles")


def soft_link(file: h5py.File, other: Path) -> None:
    file["Particles"] = h5py.SoftLink("/away/Particles")
    file["away"] = h5py.ExternalLink(str(other), "/")


def external_labels(file: h5py.File, other: Path) -> None:
    file["Particles"], file["process"] = ONES, h5py.ExternalLink(str(other), "/process")


def external_storage(file: h5py.File, other: Path) -> None:
    stored = [(str(other), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("Particles", shape=(20, 19, 3), dtype="f4", external=stored)


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(shape=(20, 19, 3), dtype="f4")
    layout[:] = h5py.VirtualSource(other, "Particles", shape=(20, 19, 3))
    file.create_virtual_dataset("Particles", layout)


def never_written(file: h5py.File, _: Path) -> None:
    file.create_dataset("Particles", shape=(10**12, 19, 3), dtype="f4", chunks=(4096, 19, 3))


def partly_written(file: h5py.File, _: Path) -> None:
    data = file.create_dataset("Particles", (20, 19, 3), "f4", chunks=(5, 19, 3))
    data[:15] = 1


def no_space(file: h5py.File, _: Path) -> None:
    file.create_dataset("Particles", shape=(20, 19, 3), dtype="f4")


def huge_chunk(file: h5py.File, _: Path) -> None:
    shape = (5_000_000, 19, 3)
    file.create_dataset("Particles", shape, "f4", chunks=shape, compression="gzip")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (external_link, "must be stored there; got a link to"),
        (soft_link, "must be stored there; got a link to"),
        (external_labels, "'process' in .* must be stored there; got a link"),
        (external_storage, "its numbers lie in other files"),
        (virtual, "its numbers lie in other files"),
        (never_written, "must hold 244140625 chunks; got 0"),
        (partly_written, "must hold 4 chunks; got 3"),
        (no_space, "must hold 4560 bytes; got 0"),
        (huge_chunk, "chunks of at most"),
    ],
)
def test_events_that_lie_elsewhere_or_nowhere_are_refused(
    tmp_path: Path, make: Callable[[h5py.File, Path], None], said: str
) -> None:
    write_events(tmp_path / "other.h5", ONES, np.arange(20))
    with h5py.File(tmp_path / "events.h5", "w") as file:
        make(file, tmp_path / "other.h5")
    with pytest.raises(ArtifactError, match=said):
        EventFile(tmp_path / "events.h5")


def encoder() -> onnx.ModelProto:
    return load_onnx(pretrained_path("d4"))


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"


def negative_size(model: onnx.ModelProto) -> None:
    """ONNX Runtime 1.32 ended the process over it."""
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1


def endless(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def endless_inside(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Loop", [], ["x"])], "inner", [], [])
    node = helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)


def function(model: onnx.ModelProto) -> None:
    """Runtimes write its nodes in the place of those that call it, after the checks."""
    loop = helper.make_node("Loop", ["", ""], ["y"], body=helper.make_graph([], "body", [], []))
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], [loop], opsets))


def crowd(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(9):
        node = helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
    model.graph.node.extend(inner.node)


def huge(model: onnx.ModelProto) -> None:
    size = onnx.numpy_helper.from_array(np.array([10**9]), "size")
    model.graph.initializer.append(size)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["gigabytes"]))


def deep_metadata(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {"nplm_stream": "[" * 100_000})


def wrong_metadata(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {"nplm_stream": '{"trained_on": [], "dim": "4"}'})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (outside, "must hold its weights itself"),
        (negative_size, "must declare sizes from 0 up"),
        (endless, "must end for any event; got a Loop"),
        (endless_inside, "must end for any event; got a Loop"),
        (function, "without functions of its own; got 1"),
        (crowd, "at most 256 graphs"),
        (huge, "must compute tensors of at most"),
        (deep_metadata, "metadata 'nplm_stream' is damaged"),
        (wrong_metadata, "dim must be int; got '4'"),
    ],
)
def test_encoders_that_mean_harm_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    model = encoder()
    change(model)
    (tmp_path / "d4.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=said):
        open_engine(tmp_path / "d4.onnx")


def test_a_plans_damaged_length_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "d4.plan"
    path.write_bytes(struct.pack("<8sII", b"NPLMPLAN", 1, 2**32 - 1) + b"{}")
    with pytest.raises(ArtifactError, match="is truncated"):
        read_plan_facts(path)


@pytest.mark.parametrize("spoilt", [{"onnx": ""}, {"max_batch": -1}, {"dim": 2**62}])
def test_a_plan_of_no_encoder_is_refused(tmp_path: Path, spoilt: dict[str, object]) -> None:
    batches = {"min_batch": 1, "opt_batch": 256, "max_batch": 4096}
    names = {"fingerprint": "0", "flavour": "tensorrt", "version": "10.0", "onnx": "d4.onnx"}
    facts = {"dim": 4, "precision": "fp32", "compute_capabilities": ["8.9"], "engine": {}}
    content = json.dumps({**batches, **names, **facts, **spoilt}).encode()
    path = tmp_path / "d4.plan"
    path.write_bytes(struct.pack("<8sII", b"NPLMPLAN", 1, len(content)) + content)
    with pytest.raises(ArtifactError, match=r"the facts of .* are damaged"):
        read_plan_facts(path)


def test_a_reference_of_deep_json_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"nplm_stream_reference": "[" * 100_000}}).encode()
    path = tmp_path / "d4.ref"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError, match="not a complete reference file"):
        load_reference(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = " + b"[" * 10_000, "cannot read the config file"),
        (b"# " + b"x" * 20_000, "must have at most 16384 bytes"),
        (b'threads = "\\u001b[2J\\n"', "got ?[2J?"),
        (b"threads = -" + b"9" * 3000, "..."),
        (b"\xff\xfe", "cannot read the config file"),
    ],
)
def test_options_that_mean_harm_are_one_short_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    parser = CommandParser("tried", "Does nothing.", "tried")
    parser.add_argument("--threads", type=positive_int)
    (tmp_path / "o.toml").write_bytes(content)
    with pytest.raises(ParameterError) as caught:
        parser.parse_or_raise(["--config", str(tmp_path / "o.toml")])
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 1000


def test_typed_facts_come_back_and_others_are_refused() -> None:
    spec = WindowSpec("time", 6000.0, 60.0)
    assert typed(WindowSpec, json.loads(json.dumps(asdict(spec)))) == spec
    wrongs: list[object] = [{"mode": "hour", "n_expected": 1.0}, {"mode": "count"}, [], None, 5]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            typed(WindowSpec, wrong)
    with pytest.raises(TypeError, match="got \\['colour'\\] too"):
        typed(WindowSpec, {"mode": "count", "n_expected": 1.0, "colour": 1})
    assert issubclass(ArtifactError, NplmStreamError)
