"""A plan and its facts go round; what cannot be run or read is refused in one sentence."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from engines.artifact import EngineFacts, SampleFacts
from engines.errors import ArtifactError, EngineUnavailableError
from engines.plans.plan_file import (
    PlanFacts,
    check_runnable,
    read_plan,
    read_plan_facts,
    write_plan,
)

ENGINE = bytes(range(256)) * 8
FACTS = PlanFacts(
    fingerprint="ab" * 32,
    dim=4,
    precision="fp16",
    flavour="tensorrt_rtx",
    version="1.7.1.116",
    compute_capabilities=("8.6", "8.9"),
    min_batch=1,
    opt_batch=256,
    max_batch=4096,
    onnx="d4.onnx",
    engine=EngineFacts(
        arch="mlp",
        dim=4,
        trained_on=(SampleFacts("a.h5", "id", 0, 9),),
        options={"keep": ["mt"], "lr": 0.1},
    ),
    differences={"largest": 0.1 + 0.2, "z": [{"dz": -0.01}]},
    versions={"onnx": "1.17"},
    system="Linux x86_64",
    created="2026-01-01T00:00:00+00:00",
)
REBUILD = "build-engine d4.onnx -o d4.plan --precision fp16"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_plan(tmp_path / "d4.plan", FACTS, ENGINE)
    return tmp_path / "d4.plan"


def test_facts_and_engine_come_back_as_written(plan: Path) -> None:
    facts, engine = read_plan(plan)
    assert engine == ENGINE
    assert replace(facts, checksum="", engine_bytes=0) == FACTS
    assert (facts.engine_bytes, len(facts.checksum)) == (len(ENGINE), 64)
    assert read_plan_facts(plan) == facts
    assert [path.name for path in plan.parent.iterdir()] == ["d4.plan"]


def test_plan_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write the plan .*; choose a writable folder"):
        write_plan(tmp_path / "absent" / "d4.plan", FACTS, ENGINE)


def said(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_plan(path)
    return str(caught.value)


def test_missing_plan_names_the_command_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "d4.plan"
    command = "build-engine d4.onnx -o d4.plan"
    assert said(path) == f"plan {path} does not exist; make it with: {command}"


@pytest.mark.parametrize("magic", [b"ftrt", b"ptrt", b"vtrt"])
def test_bare_engine_of_trtexec_is_named(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "d4.plan"
    path.write_bytes(magic + ENGINE)
    assert said(path) == (
        f"{path} must be a plan of build-engine; got TensorRT's bare engine, as trtexec writes it, "
        "which does not say what encoder it is; build it again: build-engine d4.onnx -o d4.plan"
    )


@pytest.mark.parametrize("content", [b"", b"no plan", b"\x08\n" * 50])
def test_other_files_are_no_plans(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d4.plan"
    path.write_bytes(content)
    assert said(path).startswith(f"{path} must be a plan of build-engine; got another kind of file")


def test_truncated_engine_says_how_many_bytes_are_missing(plan: Path) -> None:
    content = plan.read_bytes()
    plan.write_bytes(content[:-5])
    sentence = (
        f"{plan} is truncated: it must hold {len(content)} bytes; got {len(content) - 5}; "
        f"build it again: build-engine {plan.with_name('d4.onnx')} -o {plan} --precision fp16"
    )
    assert said(plan) == sentence
    with pytest.raises(ArtifactError) as caught:
        read_plan_facts(plan)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("n_bytes", [4, 8, 15, 16, 100])
def test_file_cut_in_its_facts_is_truncated(plan: Path, n_bytes: int) -> None:
    plan.write_bytes(plan.read_bytes()[:n_bytes])
    assert f"bytes; got {n_bytes}; build it again: build-engine d4.onnx -o d4.plan" in said(plan)
    with pytest.raises(ArtifactError, match="is truncated: it must hold more than"):
        read_plan_facts(plan)


def test_altered_engine_and_altered_facts_are_refused(plan: Path) -> None:
    content = plan.read_bytes()
    for old, new in ((content[-1:], b"\x00"), (b'"dim": 4, "precision"', b'"dim": 5, "precision"')):
        first = content.rindex(old)
        plan.write_bytes(content[:first] + new + content[first + len(new) :])
        assert said(plan) == (
            f"{plan} was altered since it was written: its checksum is wrong; build it again: "
            "build-engine d4.onnx -o d4.plan"
        )


def test_facts_that_are_no_facts_are_refused(plan: Path) -> None:
    content = plan.read_bytes()
    plan.write_bytes(content.replace(b'"precision"', b'"provision"'))
    assert said(plan).startswith(f"the facts of {plan} are damaged (")


def test_other_format_is_refused(plan: Path) -> None:
    content = plan.read_bytes()
    plan.write_bytes(content[:8] + struct.pack("<I", 9) + content[12:])
    assert said(plan) == (
        f"{plan} must have format 1; got format 9; build it again: build-engine d4.onnx -o d4.plan"
    )


def test_plan_runs_where_flavour_version_and_gpu_are_its_own() -> None:
    check_runnable(FACTS, "tensorrt_rtx", "1.7.1.116", "8.9")


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (
            ("tensorrt_rtx", "1.2.0.5", "8.9"),
            "the plan must run with tensorrt_rtx 1.7.1.116, which built it; got tensorrt_rtx "
            f"1.2.0.5; build it again here: {REBUILD}",
        ),
        (
            ("tensorrt", "10.9.0", "8.9"),
            "the plan must run with tensorrt_rtx 1.7.1.116, which built it; got tensorrt 10.9.0; "
            f"build it again here: {REBUILD}",
        ),
        (
            ("tensorrt_rtx", "1.7.1.116", "9.0"),
            "the plan must run on a GPU of compute capability 8.6 or 8.9, which tensorrt_rtx "
            f"1.7.1.116 built it for; got 9.0; build it again here: {REBUILD}",
        ),
        (
            ("tensorrt_rtx", "1.7.1.116", None),
            "the plan must run on a GPU that CUDA can use; got none; run d4.onnx on the CPU, or "
            f"build it where there is a GPU: {REBUILD}",
        ),
    ],
)
def test_wrong_machine_is_said_in_one_sentence(
    machine: tuple[str, str, str | None], sentence: str
) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        check_runnable(FACTS, *machine)
    assert str(caught.value) == sentence


def test_command_that_rebuilds_names_the_files_and_what_was_asked_for() -> None:
    facts = replace(FACTS, precision="fp32", opt_batch=256, max_batch=4096)
    assert facts.rebuild() == "build-engine d4.onnx -o d4.plan"
    facts = replace(FACTS, precision="bf16", opt_batch=64, max_batch=128)
    assert facts.rebuild(Path("a b/x.plan")) == (
        "build-engine 'a b/d4.onnx' -o 'a b/x.plan' --precision bf16 --opt-batch 64 --max-batch 128"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("engine_bytes", "a"), ("differences", [1]), ("max_batch", "x"), ("dim", None)],
)
def test_facts_of_another_type_are_refused(plan: Path, name: str, value: object) -> None:
    content = plan.read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    stored = json.loads(content[16 : 16 + length])
    text = json.dumps({**stored, name: value}).encode()
    head = struct.pack("<8sII", b"NPLMPLAN", 1, len(text))
    plan.write_bytes(head + text + content[16 + length :])
    for read in (read_plan, read_plan_facts):
        with pytest.raises(ArtifactError, match=rf"damaged \({name} must be"):
            read(plan)
